"""How MLflow's forms become rows: defaults of the catalogue, and work in proportion to a body."""

import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from halfcore.bundle import Input
from halfcore.pipeline.decode import Rows, all_at_once
from halfcore.pipeline.schema import Rule, Schema
from halfcore.predict.protocols.forms import parsed, table_of
from halfcore.predict.protocols.mlflow import Decoder
from halfcore.problem import Problem
from support.bundles import NUMBERS

INPUTS = msgspec.convert(NUMBERS, list[Input])
RECORD: dict[str, float] = {"x0": 1, "x1": 2, "x2": 3, "x3": 4}


def rows(schema: Schema, document: Any) -> Rows:
    """The rows of a body, read value by value."""
    table = table_of(parsed(json.dumps(document).encode()))
    return all_at_once(Decoder(schema).rows(table, max_rows=10_000))


def calls(work: Callable[[], object]) -> int:
    """How many functions some work calls, Python's own included."""
    count = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


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
