"""Columns that the model does not read, and names that JSON must escape."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from halfcore.bundle import Ignored, Input
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.schema import Rule, Schema
from halfcore.predict.protocols.mlflow_rows import Decoder as Scoring
from halfcore.predict.protocols.protocol import Call
from halfcore.problem import Problem
from support.bodies import RIGHT, VECTOR
from support.bundles import MIXED

IGNORED = ("customer", "at")


def decoder(
    inputs: list[dict[str, Any]] = MIXED,
    ignored: tuple[str, ...] = IGNORED,
    rules: dict[str, Rule] | None = None,
) -> Decoder:
    """A decoder of these columns."""
    columns = [msgspec.convert(column, Input) for column in inputs]
    return Decoder(
        Schema(columns, "float32", rules, [Ignored(name=name, type="string") for name in ignored]),
        max_rows=9,
    )


def outcome(kind: Decoder, body: str) -> Any:
    """The packed rows, or the refusal's code and path."""
    try:
        rows = kind.decode(body.encode())
    except Problem as problem:
        return problem.code, problem.errors[0].path if problem.errors else None
    return rows.payload, rows.size


def escaped(body: str) -> str:
    """The same JSON with a letter of a column's name escaped, which only the explaining decoder
    reads."""
    return body.replace('"island"', '"\\u0069sland"')


ODD = [
    '"c17"',
    '""',
    "17",
    "-0.5",
    "true",
    "null",
    '"say \\"hi\\""',
    '"\\u0063"',
    '"é"',
    '"[{"',
    "1e999",
    "1e-999",
    "1" * 400,
    '"\\ud800"',
    "[]",
    "{}",
    '["c17"]',
    '{"a":1}',
    '{"a":1,"a":2}',
    "c17",
    "NaN",
    "01",
    '"',
    "",
    "'c'",
    '"\n"',
    '"a","customer":"b"',
    "1" * 4301,
]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("ruled", [False, True], ids=["bundle alone", "with a catalogue"])
def test_both_decoders_treat_an_ignored_column_alike(value: str, ruled: bool) -> None:
    """Whatever it holds, one record and several end alike in the fast decoder and in the explaining
    one."""
    kind = decoder(
        rules={"count": Rule(default=3), "island": Rule(default="Dream")} if ruled else None
    )
    record = dict(RIGHT)
    if ruled:
        del record["count"]
    one = f'{json.dumps(record)[:-1]}, "customer": {value}}}'

    for body in (one, f"[{one},{one}]", f"[{json.dumps(record)},{one}]"):
        assert outcome(kind, body) == outcome(kind, escaped(body)), body


@pytest.mark.parametrize(
    "value", ["c17", "", 17, -0.5, True, None, 'say "hi"', "2026-01-01T00:00:00Z"]
)
def test_any_scalar_of_an_ignored_column_is_accepted(value: Any) -> None:
    """And the packed row is that of a record without the column."""
    kind = decoder()
    plain = kind.decode(json.dumps(RIGHT).encode())

    assert kind.decode(json.dumps(RIGHT | {"customer": value}).encode()) == plain
    assert kind.decode(json.dumps({"at": value} | RIGHT | {"customer": value}).encode()) == plain
    assert (
        kind.decode(json.dumps([RIGHT, RIGHT | {"at": value}]).encode()).payload
        == plain.payload * 2
    )
    assert kind.decode(json.dumps({"features": VECTOR}).encode()) == plain


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"customer": ["c17"]}, ("wrong_type", "$.customer")),
        ({"customer": {"id": 17}}, ("wrong_type", "$.customer")),
        ({"customers": "c17"}, ("unknown_column", "$.customers")),
    ],
    ids=["an array", "an object", "another name"],
)
def test_what_is_no_scalar_or_no_column_is_refused(
    change: dict[str, Any], expected: tuple[str, str]
) -> None:
    """By name."""
    assert outcome(decoder(), json.dumps(RIGHT | change)) == expected


def test_an_ignored_column_twice_is_refused() -> None:
    """As every other name."""
    body = json.dumps(RIGHT)[:-1] + ', "customer": 1, "customer": 2}'

    assert outcome(decoder(), body) == ("duplicate_key", None)


def test_an_ignored_column_called_features_is_no_vector() -> None:
    """Records of such a model win over the vector form, as with an input of that name."""
    kind = decoder(ignored=("features",))

    assert outcome(kind, json.dumps({"features": "text"} | RIGHT)) == outcome(
        kind, json.dumps(RIGHT)
    )


NAMES = [
    'screen 15"',
    "C:\\temp",
    "two\nlines",
    "a b",
    "é",
    "a.b",
    "50%",
    "{x}",
    "[0]",
    "f0",
    "",
    "\x7f",
    "\u2028",
]


@pytest.mark.parametrize("name", [name for name in NAMES if name])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_any_column_name_is_read_in_every_form(name: str, ascii_only: bool) -> None:
    """Quotes, backslashes and control characters too, as an input and as an ignored column."""
    plain = decoder().decode(json.dumps(RIGHT).encode())
    renamed = decoder(
        [
            column | {"name": name if column["name"] == "mass" else column["name"]}
            for column in MIXED
        ],
        (),
    )
    record = {name if key == "mass" else key: value for key, value in RIGHT.items()}
    ignoring = decoder(ignored=(name, "at"))

    for value, size in ((record, 1), ([record, record], 2), ({"features": VECTOR}, 1)):
        assert (
            renamed.decode(json.dumps(value, ensure_ascii=ascii_only).encode()).payload
            == plain.payload * size
        )
    for value in (RIGHT, RIGHT | {name: 1}, RIGHT | {"at": 1, name: "x"}):
        assert ignoring.decode(json.dumps(value, ensure_ascii=ascii_only).encode()) == plain


@pytest.mark.parametrize("name", ['a"b', "b\\"])
def test_a_name_that_must_be_escaped_cannot_be_sent_twice(name: str) -> None:
    """Nor can the name that stands in for it be guessed."""
    kind = decoder(
        [
            column | {"name": name if column["name"] == "mass" else column["name"]}
            for column in MIXED
        ],
        (),
    )
    record = {key: value for key, value in RIGHT.items() if key != "mass"}
    key = json.dumps(name)

    assert outcome(kind, json.dumps(record)[:-1] + f", {key}: 1, {key}: 2}}") == (
        "duplicate_key",
        None,
    )
    assert outcome(kind, json.dumps(record | {"______1": 1})) == ("unknown_column", "$.______1")


def test_vectors_and_records_in_one_request_are_refused() -> None:
    """MLflow's instances are one or the other: so they are left to the way that says so."""
    columns = [msgspec.convert(column, Input) for column in MIXED]
    ignored = [Ignored(name=name, type="string") for name in IGNORED]
    read = Scoring(Schema(columns, "float32", None, ignored))
    record, vector = RIGHT | dict.fromkeys(IGNORED, 1), VECTOR

    def usual(instances: list[Any]) -> Call | None:
        return read.usual(json.dumps({"instances": instances}).encode(), max_rows=9)

    assert usual([record, vector]) is None
    for alike in ([record, record], [vector, vector]):
        call = usual(alike)
        assert call is not None
        assert call.rows.payload == decoder().decode(json.dumps(RIGHT).encode()).payload * 2
