"""How bodies of other protocols become rows: defaults of the catalogue, and work and memory in
proportion to a body."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from halfcore.bundle import Ignored, Input
from halfcore.pipeline.decode import Decoder as PlainDecoder
from halfcore.pipeline.decode import Rows, all_at_once
from halfcore.pipeline.json_slices import json_in_slices
from halfcore.pipeline.schema import Rule, Schema
from halfcore.predict.protocols.forms import (
    EMPTY_LINES,
    FORMS,
    OTHER_COLUMNS,
    from_csv,
    parsed,
    table_of,
)
from halfcore.predict.protocols.inference import Request, long_request
from halfcore.predict.protocols.mlflow_rows import Decoder
from halfcore.predict.protocols.protocol import Reserve
from halfcore.predict.protocols.tensors import with_data
from halfcore.problem import Problem
from support.bundles import MIXED, NUMBERS
from support.calls import calls

INPUTS = msgspec.convert(NUMBERS, list[Input])
RECORD: dict[str, float] = {"x0": 1, "x1": 2, "x2": 3, "x3": 4}


def rows(schema: Schema, document: Any) -> Rows:
    """The rows of a body, read value by value."""
    return rows_of(Decoder(schema), document)


def rows_of(decoder: Decoder, document: Any) -> Rows:
    """As `rows`."""
    return read(decoder, json.dumps(document).encode())


def read(decoder: Decoder, body: bytes, reserve: Reserve = lambda _: None) -> Rows:
    """The rows of a body, without a pause."""
    document, strict = all_at_once(parsed(body, max_rows=MOST_ROWS, reserve=reserve))
    table = table_of(
        document, most_columns=decoder.most_columns, strict=strict, optional=decoder.optional
    )
    return all_at_once(decoder.rows(table, max_rows=MOST_ROWS))


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize("size", [0, 20_000], ids=["short", "long"])
def test_a_body_in_another_coding_is_refused(coding: str, size: int) -> None:
    """Also of one value: Python's parser guesses the coding of bytes."""
    text = json.dumps({"inputs": [[1, 2, 3, 4]], "params": {}}) + " " * size
    with pytest.raises(Problem, match="valid JSON"):
        read(Decoder(Schema(INPUTS, "float32")), text.encode(coding))
    broken = b'{"inputs": [[1, 2, 3, 4]], "id": 3\0\0\0}' + b" " * size
    with pytest.raises(Problem, match="valid JSON"):
        read(Decoder(Schema(INPUTS, "float32")), broken)


@pytest.mark.parametrize("more", [b'"\xf0": 1', b'"id": "\xf0"'])
@pytest.mark.parametrize(
    "rows_there", [b'"inputs": [[1, 2, 3, 4]]', b'"inputs": {"x0": [1], "x1": [1]}']
)
def test_a_field_that_is_not_read_must_be_utf_8(rows_there: bytes, more: bytes) -> None:
    """The typed parse does not look at it."""
    decoder = Decoder(Schema(INPUTS, "float32", {"x2": Rule(default=1), "x3": Rule(default=1)}))
    assert decoder.usual(b"{" + rows_there + b', "id": "a"}', max_rows=9) is not None
    assert decoder.usual(b"{" + rows_there + b", " + more + b"}", max_rows=9) is None


@pytest.mark.parametrize("form", ["dataframe_records", "instances"])
def test_a_record_may_lack_what_is_optional_whatever_another_one_needs(form: str) -> None:
    """Both ways of reading take it; `instances` must have equal names otherwise, as in MLflow."""
    rules = {"x3": Rule(default=1.0)}
    decoder = Decoder(Schema(INPUTS, "float32", rules, [Ignored(name="customer", type="string")]))
    short = {name: value for name, value in RECORD.items() if name != "x3"}
    records = [RECORD | {"customer": "a"}, short]
    usual = decoder.usual(json.dumps({form: records}).encode(), max_rows=9)
    assert usual is not None
    assert usual.rows.payload == rows_of(decoder, {form: records}).payload
    converted = [RECORD | {"x0": True}, short] if form == "instances" else [RECORD, short]
    assert rows_of(decoder, {form: converted}).payload == usual.rows.payload
    if form == "instances":
        with pytest.raises(Problem, match="not the same"):
            rows_of(decoder, {form: [RECORD, {"x0": 1}]})


@pytest.mark.parametrize("default", [7.5, 0.0])
def test_a_record_without_a_column_gets_its_default_whatever_else_is_sent(default: float) -> None:
    """Other records may have the column, and there may be a column that the model does not know:
    such a body is read in another way."""
    schema = Schema(INPUTS, "float32", {"x3": Rule(default=default)})
    short = {name: value for name, value in RECORD.items() if name != "x3"}
    filled = [RECORD, RECORD | {"x3": default}]
    wanted = b"".join(schema.pack(tuple(record.values())) for record in filled)

    usual = Decoder(schema).usual(
        json.dumps({"dataframe_records": [RECORD, short]}).encode(), max_rows=10
    )

    assert usual is not None
    assert usual.rows.payload == wanted
    for more in ({}, {"id": "a"}):
        assert rows(schema, {"dataframe_records": [RECORD | more, short]}).payload == wanted


def test_a_record_without_a_column_that_has_no_default_has_null_there() -> None:
    """As pandas makes a frame of records; this model has no null."""
    short = {name: value for name, value in RECORD.items() if name != "x3"}
    with pytest.raises(Problem, match='row 1: "x3" is null'):
        rows(Schema(INPUTS, "float32"), {"dataframe_records": [RECORD, short]})


def test_names_that_only_one_record_has_cost_no_more_in_the_others() -> None:
    """Twice the records, each with 30 names of its own, have twice the calls, not four times."""
    schema = Schema(INPUTS, "float32")

    def made(count: int) -> Any:
        return {
            "dataframe_records": [
                RECORD | {f"n{number}_{i}": 1 for i in range(30)} for number in range(count)
            ]
        }

    assert rows(schema, made(100)).size == 100
    short, long = made(100), made(200)
    few, many = (calls(lambda body=body: rows(schema, body)) for body in (short, long))  # type: ignore[misc]
    assert many < 2.5 * few


MOST_ROWS = 10_000
LENGTH = 300_000
SPARE_BYTES = 2 << 20
"""Of memory that any body may take; half of it is what the pattern of a slice takes."""
TENSOR = '{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[%s]}]}'
REPEATED = {
    "empty records": ('{"dataframe_records":[%s]}', "{}"),
    "records of an empty name": ('{"dataframe_records":[%s]}', '{"":1}'),
    "empty rows": ('{"instances":[%s]}', "[]"),
    "rows of one value": ('{"inputs":[%s]}', "[1]"),
    "values": ('{"instances":[%s]}', "257"),
    "texts": ('{"inputs":{"x0":[%s]}}', '"ab"'),
    "a tensor of objects": (TENSOR, "{}"),
    "a tensor of arrays": (TENSOR, "[]"),
    "a tensor of texts": (TENSOR, '"ab"'),
    "names": ('{"dataframe_split":{"columns":[%s],"data":[[1]]}}', '"abcd"'),
    "objects in a row": ('{"instances":[[%s]]}', "{}"),
}
"""Bodies that are made to take memory: the frame, and what it holds again and again."""


@pytest.mark.parametrize("name", REPEATED)
def test_what_a_body_takes_is_known_before_it_is_parsed(name: str) -> None:
    """At most eight times its length, and what is reserved for it."""
    frame, part = REPEATED[name]
    body = (frame % ",".join([part] * (LENGTH // (len(part) + 1)))).encode()
    decoder = Decoder(Schema(INPUTS, "float32"))
    reserved = [0]

    def work() -> None:
        if frame is TENSOR:
            steps = long_request(body, max_rows=MOST_ROWS, reserve=reserved.append)
            all_at_once(with_data(all_at_once(steps).inputs, memoryview(b"")))
        else:
            read(decoder, body, reserved.append)

    assert _peak(work) <= 8 * len(body) + SPARE_BYTES + max(reserved)


def test_names_of_many_records_are_reserved() -> None:
    """Each has others: they cannot be shared, as those of usual records are."""
    numbers = iter(range(10**9))
    records = [{f"{next(numbers):x}": 1 for _ in range(43)} for _ in range(1_000)]
    body = json.dumps({"instances": records}, separators=(",", ":")).encode()
    reserved = [0]

    def work() -> None:
        all_at_once(parsed(body, max_rows=MOST_ROWS, reserve=reserved.append))

    assert _peak(work) <= 8 * len(body) + SPARE_BYTES + max(reserved)
    assert max(reserved) > len(body)


def test_a_long_body_gives_the_rows_of_a_short_one() -> None:
    """In each form, with nulls, and with values that need a conversion in some of its slices."""
    schema = Schema(msgspec.convert(MIXED, list[Input]), "float32")
    decoder = Decoder(schema)
    short = [{column["name"]: column["example"] for column in MIXED}]
    wanted = read(decoder, json.dumps({"dataframe_records": short}).encode()).payload
    (record,) = short
    number = next(column["name"] for column in MIXED if column["kind"] == "number")
    odd = record | {number: str(record[number])}
    odd_row = read(decoder, json.dumps({"dataframe_records": [odd]}).encode()).payload
    records = [record] * 4_000 + [odd] + [record] * 4_000
    rows = [list(one.values()) for one in records]
    split = {"columns": list(reversed(record)), "data": [row[::-1] for row in rows]}
    for document in (
        {"dataframe_records": records},
        {"dataframe_split": split},
        {"instances": rows},
        {"inputs": {name: [one[name] for one in records] for name in record}},
    ):
        found = read(decoder, json.dumps(document).encode())
        assert (found.size, found.payload) == (8_001, wanted * 4_000 + odd_row + wanted * 4_000)


def in_chunks(body: str) -> Rows | None:
    """The rows of a long body of `MIXED`, read in chunks; None if it is not read so."""
    schema = Schema(msgspec.convert(MIXED, list[Input]), "float32")
    chunks = PlainDecoder(schema, max_rows=MOST_ROWS).chunks
    call = all_at_once(Decoder(schema).usual_in_chunks(body.encode(), chunks, max_rows=MOST_ROWS))
    return call.rows if call else None


ROW = {column["name"]: column["example"] for column in MIXED}
WITHOUT_MASS = ROW | {"mass": None, "sex": None}
LONG = [ROW] * 2_000 + [WITHOUT_MASS] + [ROW] * 2_000
LONG_ROWS = [list(row.values()) for row in LONG]
INDEX = list(range(len(LONG)))


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_records": LONG},
        {"dataframe_split": {"data": LONG_ROWS}},
        {"dataframe_split": {"columns": list(ROW), "data": LONG_ROWS}},
        {"dataframe_split": {"index": INDEX, "columns": list(ROW), "data": LONG_ROWS}},
        {"instances": LONG},
        {"instances": LONG_ROWS},
        {"inputs": LONG_ROWS},
    ],
    ids=["records", "data", "columns data", "index columns data", "objects", "lists", "inputs"],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_body_with_its_rows_at_the_end_is_read_in_chunks(
    document: Any, indent: int | None
) -> None:
    """In each form, with the white space of any writer: the rows are those of the slow way."""
    body = json.dumps(document, indent=indent)
    found = in_chunks(body)
    wanted = read(Decoder(Schema(msgspec.convert(MIXED, list[Input]), "float32")), body.encode())
    assert found is not None
    assert (found.payload, found.size) == (wanted.payload, len(LONG))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"instances": LONG_ROWS, "params": {}}),
        json.dumps({"params": {"data": LONG_ROWS}, "instances": LONG_ROWS}),
        json.dumps({"other": {"data": LONG_ROWS}}),
        json.dumps({"dataframe_split": {"columns": list(ROW)[::-1], "data": LONG_ROWS}}),
        json.dumps({"dataframe_split": {"columns": ["a],", "b"], "data": LONG_ROWS}}),
        json.dumps({"dataframe_split": {"data": LONG_ROWS}, "inputs": LONG_ROWS}),
        json.dumps({"dataframe_records": [*LONG, ROW | {"island": "Hoy"}]}),
        json.dumps({"dataframe_records": [*LONG, ROW | {"mass": "4000"}]}),
        json.dumps({"dataframe_records": [*LONG, ROW | {"more": "}, {"}]}),
        json.dumps({"instances": LONG_ROWS})[:-1],
        json.dumps({"instances": LONG_ROWS}) + "}",
        json.dumps({"instances": LONG_ROWS}).replace("], [", "] [", 2_500),
        json.dumps({"instances": LONG_ROWS})[:-2] + ",]}",
        json.dumps({"instances": LONG_ROWS})[:-2] + ', ["Biscoe"',
    ],
)
def test_any_other_long_body_is_left_to_the_slow_way(body: str) -> None:
    """Which says what is wrong with it, or converts its values."""
    assert in_chunks(body) is None


def test_too_many_rows_of_a_long_body_are_refused() -> None:
    """As soon as they are found."""
    with pytest.raises(Problem) as raised:
        in_chunks(json.dumps({"instances": LONG_ROWS * 3}))
    assert raised.value.status == 413


def test_nan_in_a_long_body_is_null() -> None:
    """It is no JSON, and what the model does not take as null is refused."""
    body = json.dumps({"instances": [[1.5] * 4] * 9_000 + [[1.5, float("nan"), 1.5, 1.5]]}).encode()
    with pytest.raises(Problem, match='row 9000: "x1" is null'):
        read(Decoder(Schema(INPUTS, "float32")), body)


def test_a_long_request_of_the_inference_protocol_is_that_of_one_parse() -> None:
    """Whatever its values are; and a wrong one has the same error."""
    data: list[Any] = [[1, 2.5, "a", None]] * 6_000
    tensor = {"name": "i", "shape": [6_000, 4], "datatype": "FP32", "data": data}
    for inputs in ([tensor], [tensor, tensor | {"data": 1}], [tensor, 3], 3, [{"data": data}]):
        body = json.dumps({"id": "a", "inputs": inputs, "parameters": {"timeout": 1}}).encode()

        def one_parse(body: bytes = body) -> Any:
            return msgspec.json.decode(body, type=Request)

        def sliced(body: bytes = body) -> Any:
            return all_at_once(long_request(body, max_rows=MOST_ROWS, reserve=lambda _: None))

        assert _outcome(sliced) == _outcome(one_parse)


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except msgspec.ValidationError as error:
        return str(error)


def wide(form: str, count: int) -> bytes:
    """A table of one row with as many columns as are known and `count` others."""
    names = [*RECORD, *(f"{number:x}" for number in range(count))]
    if form == "csv":
        return ",".join(names).encode() + b"\n" + b",".join([b"1"] * len(names))
    ones = dict.fromkeys(names, 1)
    documents: dict[str, Any] = {
        "dataframe_split": {"columns": names, "data": [[1] * len(names)]},
        "dataframe_records": [RECORD, ones],
        "instances": [ones],
        "inputs": ones,
    }
    return json.dumps({form: documents[form]}, separators=(",", ":")).encode()


@pytest.mark.parametrize("form", ["csv", *FORMS])
def test_a_table_of_very_many_columns_is_refused_before_it_takes_memory(form: str) -> None:
    """Which the model does not have; some thousands of them are ignored."""
    decoder = Decoder(Schema(INPUTS, "float32"))

    def of(body: bytes) -> Rows:
        if form != "csv":
            return read(decoder, body, reserved.append)
        table = from_csv(body, most_columns=decoder.most_columns)
        return all_at_once(decoder.rows(table, max_rows=MOST_ROWS))

    reserved = [0]
    assert of(wide(form, OTHER_COLUMNS)).size == (2 if form == "dataframe_records" else 1)
    many = wide(form, 5 * OTHER_COLUMNS)

    def refused() -> None:
        with pytest.raises(Problem, match=f"expected at most {OTHER_COLUMNS + 4}; leave out"):
            of(many)

    assert _peak(refused) <= 8 * len(many) + SPARE_BYTES + max(reserved)


def test_a_line_of_csv_is_refused_before_it_takes_memory() -> None:
    """A cell of two letters takes twenty times its length; commas within quotes make no cells."""
    decoder = Decoder(Schema(INPUTS, "float32"))

    def of(line: bytes) -> Rows:
        table = from_csv(b"x0,x1,x2,x3,note\n" + line, most_columns=decoder.most_columns)
        return all_at_once(decoder.rows(table, max_rows=MOST_ROWS))

    assert of(b'1,2,3,4,"' + b"," * 100_000 + b'"').size == 1
    wide = b",".join([b"10"] * 100_000)

    def refused() -> None:
        with pytest.raises(Problem, match="a line of the CSV table has at least 99999 columns"):
            of(wide)

    assert _peak(refused) <= 8 * len(wide) + SPARE_BYTES


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"x0,x1,x2,x3\n1,2,3,4"),
        (b"x0,x1,x2,x3\n", b"1,2,3,4"),
        (b"x0,x1,x2,x3\n1,2,3,4\n", b""),
    ],
)
def test_empty_lines_of_csv_hold_up_nobody(before: bytes, after: bytes, end: bytes) -> None:
    """Some are passed over; megabytes of them would take a second, in which nobody is answered."""
    decoder = Decoder(Schema(INPUTS, "float32"))

    def of(body: bytes) -> Rows:
        table = from_csv(body, most_columns=decoder.most_columns)
        return all_at_once(decoder.rows(table, max_rows=MOST_ROWS))

    some = before + end * EMPTY_LINES
    assert of(some + after).size == 1

    def refused() -> None:
        with pytest.raises(Problem, match="more than 20000 empty lines, expected fewer"):
            of(some + end * 1_000_000)

    assert calls(refused) < 5 * EMPTY_LINES


def test_lines_of_csv_are_not_kept() -> None:
    """However short they are."""
    body = b"x0,x1,x2,x3\n" + b"1\n" * (LENGTH // 2)
    table = Decoder(Schema(INPUTS, "float32"))
    peak = _peak(
        lambda: all_at_once(table.rows(from_csv(body, most_columns=10**9), max_rows=10_000))
    )
    assert peak <= 8 * len(body) + SPARE_BYTES


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_records": [{"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}] * 1000},
        {"dataframe_records": [{"island": "Dream", "sex": "MALE", "mass": 4000, "wet": True}] * 9},
        {"instances": [[5.1, 3.5, 1.4, 0.2]] * 1000},
        {"inputs": {"x0": [5.1] * 1000, "island": ["Dream"] * 1000}},
        {"inputs": [{"name": "x0", "shape": [1000], "datatype": "FP32", "data": [5.1] * 1000}]},
    ],
)
def test_usual_bodies_need_nothing_more(document: Any) -> None:
    """With and without spaces."""
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps(document, separators=separators).encode()
        reserved = [0]
        steps = json_in_slices(
            body, max_rows=MOST_ROWS, reserve=reserved.append, decode=msgspec.json.decode
        )
        assert (all_at_once(steps), max(reserved)) == (document, 0)


def _peak(work: Callable[[], object]) -> int:
    """Bytes that some work allocates at most; what it raises for a wrong body is right."""
    tracemalloc.start()
    try:
        work()
    except Problem:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
