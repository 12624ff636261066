"""Columns of files are converted as the server converts and checks each value."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from halfcore.bundle import Input, Text
from halfcore.offline.convert import Converter
from halfcore.offline.sources import Chunk
from halfcore.pipeline.row_checks import ExpectedRow, RowChecks
from halfcore.pipeline.schema import Schema
from halfcore.pipeline.values import as_pandas, from_text

WORDS = Text(
    analyzer="word",
    lowercase=True,
    strip_accents=None,
    pattern=r"(?u)\b\w\w+\b",
    stop_words=["the"],
    tokens=["good", "film"],
    max_length=20,
    slots=3,
)


def column(kind: str, **more: Any) -> Input:
    """A column that is not nullable, unless it is said."""
    return Input(**{"name": "c", "kind": kind, "nullable": False, "example": None} | more)


COLUMNS = {
    "number": column("number"),
    "nullable number": column("number", nullable=True),
    "number in a domain": column("number", domain=(-2, 12)),
    "integer": column("integer"),
    "nullable integer": column("integer", nullable=True),
    "boolean": column("boolean"),
    "nullable boolean": column("boolean", nullable=True),
    "category": column("category", categories=["a", "NA", "1"]),
    "nullable category": column("category", categories=["a", "None"], nullable=True),
    "any category": column("category", categories=["a"], accepts_unknown=True, nullable=True),
    "category of integers": column("category", categories=[1, 12]),
    "nullable category of integers": column("category", categories=[1, 12], nullable=True),
    "any integer": column("category", categories=[1, 12], accepts_unknown=True),
    "text": column("text", text=WORDS),
}
TEXTS = (
    *("", "NA", "None", "NaN", "nan", "null", "-nan", "a", "A", " a", "b", "1", "1.0", "1.9"),
    *("12", " 12 ", "-3", "1e2", "1e39", "-1e400", "inf", "Infinity", "1_0", "0x1", "٣", "true"),
    *("True", "tRue", "FALSE", "yes", "0", "the good film", "good " * 4, "x" * 30, "x" * 2000),
    *("9007199254740993", "340282346638528859811704183484516925440", "\udcff", "é"),
)
VALUES = (
    *(None, True, False, 0, 1, 2, 12, -3, 1.0, 1.9, 12.0, 1e39, float("nan"), float("inf")),
    *(
        10**400,
        2**31,
        2**53 + 1,
        "",
        "a",
        "b",
        "NA",
        "None",
        "1",
        "12",
        "1.9",
        "good film",
        "\udcff",
    ),
    *([1], [], {"a": 1}, [[1]]),
)


def by_the_server(schema: Schema, value: Any, *, text: bool) -> bytes | None:
    """One row as MLflow's protocol packs it; None if it is refused."""
    coerced = (from_text if text else as_pandas)(schema.inputs[0], value)
    checks = RowChecks(ExpectedRow(schema))
    checks.check_vector([coerced], None, "$")
    return None if checks.error_count else bytes(checks.packed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", [True, False], ids=["CSV", "JSON"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_converted_as_the_server_converts_it(name: str, text: bool, dtype: str) -> None:
    """Each value alone, all together, and those that are right together."""
    schema = Schema([COLUMNS[name]], dtype)
    converter = Converter(schema, text=text)
    values = list(TEXTS if text else VALUES)
    expected = {i: by_the_server(schema, value, text=text) for i, value in enumerate(values)}
    right = [i for i, packed in expected.items() if packed is not None]
    for places in [[i] for i in expected] + [list(expected), right]:
        chunk = Chunk(places, {"c": [values[i] for i in places]}, {}, 0.0)
        converted = converter.convert(chunk)
        packed = [expected[i] for i in places]
        assert converted.right.tolist() == [each is not None for each in packed], values[places[0]]
        assert converted.matrix.tobytes() == b"".join(each for each in packed if each is not None)
        for row in np.flatnonzero(~converted.right).tolist():
            assert converter.reason(chunk, row)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("dtype", ["int8", "uint64", "int64", "float32", "float64"])
def test_arrays_of_numbers_are_as_their_values(name: str, dtype: str) -> None:
    """As Parquet has them."""
    numbers = np.array([0, 1, 2, 12], dtype)
    if dtype.startswith("float"):
        numbers = np.append(numbers, [1.9, np.nan, np.inf]).astype(dtype)
    schema = Schema([COLUMNS[name]], "float32")
    one, other = (
        Converter(schema, text=False).convert(Chunk(range(len(numbers)), {"c": values}, {}, 0.0))
        for values in (numbers, numbers.tolist())
    )
    assert one.right.tolist() == other.right.tolist()
    assert one.matrix.tobytes() == other.matrix.tobytes()


@pytest.mark.parametrize(
    ("value", "right"),
    [(Decimal("1.5"), True), (datetime.date(2026, 1, 1), False), (b"1.5", True)],
)
def test_types_that_json_has_not(value: Any, right: bool) -> None:
    """A decimal is a number, bytes are a text; a date is a text that is refused."""
    converter = Converter(Schema([COLUMNS["number"]], "float32"), text=False)
    chunk = Chunk([1, 2], {"c": [value, 1.0]}, {}, 0.0)
    assert converter.convert(chunk).right.tolist() == [right, True]
    assert right or "expected a number" in converter.reason(chunk, 0)


def test_several_columns_and_a_broken_row() -> None:
    """Each column has its place, that of a text several; a broken row is left out."""
    inputs = [
        column("number", name="a"),
        column("text", name="b", text=WORDS),
        column("boolean", name="c"),
    ]
    columns = {"a": ["1", "", "3"], "b": ["good film", "", "the film"], "c": ["true", "", "False"]}
    converter = Converter(Schema(inputs, "float64"), text=True)
    chunk = Chunk([1, 2, 3], columns, {1: "it is broken"}, 0.0)
    converted = converter.convert(chunk)
    assert converted.matrix.tolist() == [[1, 1, 2, 0, 1], [3, 2, 0, 0, 0]]
    assert converted.right.tolist() == [True, False, True]
    assert converter.reason(chunk, 1) == "it is broken"
