"""MLflow's `inputs` by column: the quick way gives the rows of the slow one, or leaves the body to
it."""

import json
import random
import tracemalloc
from typing import Any

import msgspec
import pytest

from halfcore.bundle import Ignored, Input
from halfcore.pipeline.decode import Decoder as PlainDecoder
from halfcore.pipeline.decode import Rows, all_at_once
from halfcore.pipeline.schema import Rule, Schema
from halfcore.predict.protocols.forms import parsed, table_of
from halfcore.predict.protocols.mlflow_rows import Decoder, Wanted, wanted_of
from halfcore.problem import Problem
from support.bundles import MIXED, NUMBERS

MOST_ROWS = 10_000
INPUTS = msgspec.convert(MIXED, list[Input])
NUMBER_INPUTS = msgspec.convert(NUMBERS, list[Input])
NUMBER = next(column["name"] for column in MIXED if column["kind"] == "number")
SCHEMAS = {
    "mixed": Schema(INPUTS, "float32"),
    "float64": Schema(INPUTS, "float64"),
    "ignored": Schema(INPUTS, "float32", ignored=[Ignored(name="note", type="string")]),
    "rules": Schema(INPUTS, "float32", {NUMBER: Rule(default=1.5, minimum=0, maximum=1e6)}),
    "numbers": Schema(NUMBER_INPUTS, "float32"),
}
NULLABLE = [column["name"] for column in MIXED if column.get("nullable")]
Outcome = tuple[bytes, int, Wanted] | tuple[int, str] | None


def columns_of(schema: Schema, rows: int = 5) -> dict[str, list[Any]]:
    """Right values of each column."""
    examples = {column.name: column.example for column in schema.inputs}
    return {
        name: [None if name in NULLABLE and i % 3 == 1 else value for i in range(rows)]
        for name, value in examples.items()
    }


def quick(schema: Schema, body: bytes) -> Outcome:
    """The rows that the quick way reads; None if it reads none."""
    call = Decoder(schema).usual(body, max_rows=MOST_ROWS)
    chunks = PlainDecoder(schema, max_rows=MOST_ROWS).chunks
    long = all_at_once(Decoder(schema).usual_in_chunks(body, chunks, max_rows=MOST_ROWS))
    assert call == long
    return call and (call.rows.payload, call.rows.size, call.wanted)


def quick_or_refused(schema: Schema, body: bytes) -> Outcome:
    """As `quick`, which refuses wrong parameters."""
    try:
        return quick(schema, body)
    except Problem as problem:
        return problem.status, problem.detail


def slow(schema: Schema, body: bytes) -> Outcome:
    """The rows, or the refusal, of the slow way."""
    decoder = Decoder(schema)
    try:
        document, strict = all_at_once(parsed(body, max_rows=MOST_ROWS, reserve=lambda _: None))
        table = table_of(document, most_columns=decoder.most_columns, strict=strict)
        found: Rows = all_at_once(decoder.rows(table, max_rows=MOST_ROWS))
        return found.payload, found.size, wanted_of(document.get("params"))
    except Problem as problem:
        return problem.status, problem.detail


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("rows", [1, 5, 9_000])
def test_a_body_that_needs_no_conversion_is_read_quickly(
    name: str, indent: int | None, rows: int
) -> None:
    """Also with its columns in another order, other columns, a default, and parameters."""
    schema = SCHEMAS[name]
    columns = columns_of(schema, rows)
    more = {"note": ["x, y"] * rows, "other": [None, *range(1, rows)]}
    documents = [
        {"inputs": columns},
        {"inputs": dict(reversed(columns.items()))},
        {"inputs": more | columns, "params": {"predict_method": "predict_proba"}},
    ]
    if schema.defaults:
        documents.append({"inputs": {key: columns[key] for key in columns if key != NUMBER}})
    for document in documents:
        body = json.dumps(document, indent=indent).encode()
        found = quick(schema, body)
        assert found is not None
        assert found == slow(schema, body)


COLUMNS = columns_of(SCHEMAS["mixed"])
LONG = columns_of(SCHEMAS["mixed"], 9_000)


def text(columns: Any, **more: Any) -> str:
    """A body."""
    return json.dumps({"inputs": columns} | more)


OTHERS = {
    "a column is missing": text({key: COLUMNS[key] for key in list(COLUMNS)[1:]}),
    "lengths differ": text(COLUMNS | {NUMBER: [1.5]}),
    "no rows": text({key: [] for key in COLUMNS}),
    "scalars": text({key: values[0] for key, values in COLUMNS.items()}),
    "columns of shape [N, 1]": text({key: [[v] for v in c] for key, c in COLUMNS.items()}),
    "a text for a number": text(COLUMNS | {NUMBER: ["1.5"] * 5}),
    "NaN": text(COLUMNS | {NUMBER: [float("nan")] * 5}),
    "a number that is too large": text(COLUMNS | {NUMBER: [1e39] * 5}),
    "another form": text(COLUMNS, instances=[[1]]),
    "inputs again": text(COLUMNS)[:-1] + ', "inputs": [[1]]}',
    "inputs again, escaped": text(COLUMNS)[:-1] + ', "\\u0069nputs": []}',
    "a column again": text(COLUMNS)[:-2] + f', "{NUMBER}": [1, 2, 3, 4, 5]}}}}',
    "a wrong parameter": text(COLUMNS, params={"predict_method": "x"}),
    "much behind it": text(COLUMNS) + " " * 300 + "x",
    "a comma at a cut": text(LONG).replace("]", ",]", 1),
    "two commas": text(LONG).replace(", ", ",, "),
    "a control character in the name of another column": text(COLUMNS | {"a?": [1] * 5}).replace(
        "?", "\0"
    ),
    "a long text": text(COLUMNS | {"note": ["a" * 40_000] * 5}),
    "too many rows": text(columns_of(SCHEMAS["mixed"], MOST_ROWS + 1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_body_is_left_to_the_slow_way(name: str) -> None:
    """Which converts its values or says what is wrong; a wrong parameter has its own refusal."""
    schema, body = SCHEMAS["mixed"], OTHERS[name].encode()
    assert quick_or_refused(schema, body) in (None, slow(schema, body))
    assert name == "a wrong parameter" or quick(schema, body) is None


@pytest.mark.parametrize("name", SCHEMAS)
def test_damaged_bodies_have_the_same_rows(name: str) -> None:
    """Or none by the quick way."""
    schema, chosen = SCHEMAS[name], random.Random(name)  # noqa: S311  not a secret
    pieces = ['"', ",", "]", "[", "}", "{", " ", "1", "-", ".", "e9", "null", "true", "NaN", "\\"]
    pieces += ['"a"', ", ,", "],[", '"note":[1]', ": [", "é", "1e400", "9" * 20, "\n", "\0"]
    bodies = [
        text(columns_of(schema, rows), **more) for rows in (1, 4) for more in ({}, {"params": {}})
    ]
    read = 0
    for _ in range(3_000):
        damaged = chosen.choice(bodies)
        for _ in range(chosen.randint(1, 2)):
            at = chosen.randrange(len(damaged))
            cut = chosen.choice((0, 0, 1, 2, 8))
            damaged = damaged[:at] + chosen.choice(["", *pieces]) + damaged[at + cut :]
        body = damaged.encode()
        found = quick_or_refused(schema, body)
        if found is not None:
            assert found == slow(schema, body), damaged
            read += 1
    assert read > 30


@pytest.mark.parametrize("value", ["1", "257", "1.5", "null"])
def test_what_it_takes_in_memory_is_in_proportion_to_the_body(value: str) -> None:
    """At most eight times its length, as whatever is read."""
    nullable = msgspec.convert([column | {"nullable": True} for column in NUMBERS], list[Input])
    schema = Schema(nullable, "float64")
    column = ",".join([value] * 9_000)
    body = (
        '{"inputs":{' + ",".join(f'"{name}":[{column}]' for name in schema.names) + "}}"
    ).encode()
    assert quick(schema, body) is not None
    tracemalloc.start()
    quick(schema, body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 8 * len(body) + (1 << 20)
