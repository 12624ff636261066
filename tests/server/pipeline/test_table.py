"""Tables of parsed values: what is packed without a look at each value is what that look packs."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from halfcore.bundle import Input
from halfcore.pipeline.decode import all_at_once
from halfcore.pipeline.schema import Rule, Schema
from halfcore.pipeline.table import Coerce, Quick, Table
from halfcore.pipeline.values import (
    MISSING,
    all_from_text,
    as_numpy,
    as_pandas,
    as_sent,
    from_text,
    unchanged,
)
from halfcore.problem import Problem

COLUMNS = [
    {"name": "number", "kind": "number", "nullable": False, "example": None},
    {"name": "maybe", "kind": "number", "nullable": True, "example": None},
    {"name": "whole", "kind": "integer", "nullable": False, "example": None},
    {"name": "truth", "kind": "boolean", "nullable": False, "example": None},
    {"name": "text", "kind": "category", "nullable": False, "example": None}
    | {"categories": ["a", "b"]},
    {"name": "open", "kind": "category", "nullable": True, "example": None}
    | {"categories": ["a", "b"], "accepts_unknown": True},
    {"name": "code", "kind": "category", "nullable": False, "example": None}
    | {"categories": [0, 1, 2]},
]
RIGHT: list[Any] = [0.5, None, 3, True, "a", "c", 2]
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2.0,
    1.9,
    -0.0,
    1e39,
    10**400,
    2**53 + 1,
    "",
    "a",
    "z",
    "1",
    "a" * 100_000,
    [1],
    {"a": 1},
]
SCHEMA = Schema(msgspec.convert(COLUMNS, list[Input]), "float32", {"whole": Rule(maximum=9)})


TEXTS: list[Any] = ["0.5", "1.25", "3", "True", "a", "c", "2"]
ODD_TEXTS: list[Any] = [
    *sorted(MISSING),
    "TRUE",
    "no",
    "1e39",
    "1e999",
    "-inf",
    "nAn",
    "1_0",
    " 7 ",
    "7.9",
    "99999999999999999999",
    "z",
    "a" * 100_000,
    True,
    7.5,
]
"""The last two: as defaults of the catalogue, which stand among the texts."""


def packed(row: list[Any], coerce: Coerce, quick: Quick | None, right: list[Any] = RIGHT) -> Any:
    """What becomes of a row among right ones: the packed rows, or the refusal's errors."""
    rows = Table.of(SCHEMA).pack([right, row, right], coerce, max_rows=9, path="$", quick=quick)
    try:
        return all_at_once(rows).payload
    except Problem as problem:
        return problem.code, problem.errors


@pytest.mark.parametrize("coerce", [as_sent, as_numpy, as_pandas])
@pytest.mark.parametrize("place", range(len(COLUMNS)), ids=[str(c["name"]) for c in COLUMNS])
def test_a_value_is_packed_or_refused_alike_in_both_ways(place: int, coerce: Coerce) -> None:
    """Every odd value in every column, under the conversions of every protocol."""
    for value in ODD:
        row = [*RIGHT[:place], value, *RIGHT[place + 1 :]]
        assert packed(row, coerce, unchanged) == packed(row, coerce, None), value


@pytest.mark.parametrize("width", [0, 1, len(COLUMNS) - 1, len(COLUMNS) + 1])
def test_a_row_of_another_width_is_refused_alike_in_both_ways(width: int) -> None:
    """Too few values, and too many."""
    row = list(itertools.islice(itertools.cycle(RIGHT), width))
    assert packed(row, as_sent, unchanged) == packed(row, as_sent, None)


@pytest.mark.parametrize("place", range(len(COLUMNS)), ids=[str(c["name"]) for c in COLUMNS])
def test_a_text_of_csv_is_packed_or_refused_alike_in_both_ways(place: int) -> None:
    """Every odd text in every column."""
    for text in ODD_TEXTS:
        row = [*TEXTS[:place], text, *TEXTS[place + 1 :]]
        found = packed(row, from_text, all_from_text, TEXTS)
        assert found == packed(row, from_text, None, TEXTS), text


def test_usual_texts_of_csv_are_read_column_by_column() -> None:
    """Null where one is missing."""
    assert all_from_text(SCHEMA.inputs, [TEXTS, TEXTS]) == [(0.5, 1.25, 3, True, "a", "c", 2)] * 2
    assert all_from_text(SCHEMA.inputs, [["NA"] * 7, TEXTS]) == [
        (None,) * 7,
        (0.5, 1.25, 3, True, "a", "c", 2),
    ]
    assert all_from_text(SCHEMA.inputs, [TEXTS[:-1]]) is None
