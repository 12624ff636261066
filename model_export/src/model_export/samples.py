"""Draws the rows that the gate compares: like the training data, and like what no training data holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.rows import Matrix, null_of

if TYPE_CHECKING:
    from model_export.schema import Column, Schema
    from model_export.thresholds import Values

GATE_ROWS = 100_000
THRESHOLD_ROWS = 50_000
_ROWS_PER_EDGE = 20
_ROWS_PER_NULL = 500

_FLOAT32 = np.finfo(np.float32)
_NUMBER_EDGES = (0.0, -0.0, 1.0, -1.0, 1.0 / 3.0, 5e-324, float(_FLOAT32.smallest_subnormal), -float(_FLOAT32.smallest_subnormal),
                 float(_FLOAT32.smallest_normal), 1e6, -1e6, float(_FLOAT32.max), -float(_FLOAT32.max))  # fmt: skip
# 2²⁴ + 1 is the first integer that float32 cannot hold, 2⁵³ the last up to which JSON's doubles hold every one.
_INTEGER_EDGES = (0, 1, -1, 255, -32768, 2**24, 2**24 + 1, -(2**24) - 1, 2**31 - 1, -(2**31), 2**53, -(2**53))


@dataclass(frozen=True)
class Group:
    """Rows of one kind."""

    name: str
    rows: Matrix
    may_be_refused: bool = False
    """The registered model may raise on these (an overflow, say): then there is no answer to compare, and the group is left out."""


def draw(
    data: Matrix, schema: Schema, adversaries: dict[int, Values], *, rows: int = GATE_ROWS, seed: int = 20, limit: float | None = None
) -> list[Group]:
    """Draw the gate's rows.

    Args:
        data: float64[n, F], packed rows of the training distribution, n ≥ 1.
        schema: with categories and nullability.
        adversaries: column → values around the tree thresholds.
        rows: drawn in all, besides those around thresholds.
        seed: of everything random here.
        limit: largest absolute number to draw at an edge; None: the largest float32.

    Returns:
        groups that hold at least `rows` rows, and at most `THRESHOLD_ROWS` named "thresholds".
    """
    rng = np.random.default_rng(seed)
    groups = [Group("data", data[: rows // 2]), *_edges(rng, data, schema, limit), *_nulls(rng, data, schema, rows)]
    left = max(3, rows - sum(len(group.rows) for group in groups))
    groups += [
        Group("near the data", _jittered(rng, data, schema, left - 2 * (left // 3))),
        Group("columns shuffled", _shuffled(rng, data, left // 3)),
        Group("uniform over the ranges", _uniform(rng, data, schema, left // 3)),
    ]
    if limit is not None:
        adversaries = {column: near for column, values in adversaries.items() if len(near := values[np.abs(values) <= limit])}
    if adversaries:
        groups.append(Group("thresholds", _around_thresholds(rng, data, adversaries)))
    return groups


def _bootstrap(rng: np.random.Generator, data: Matrix, rows: int) -> Matrix:
    return data[rng.integers(len(data), size=rows)]


def _jittered(rng: np.random.Generator, data: Matrix, schema: Schema, rows: int) -> Matrix:
    """Rows of the data, each number moved by up to 1 % of its column's range (an integer by up to 2)."""
    drawn = _bootstrap(rng, data, rows)
    for i, column in enumerate(schema.columns):
        if column.kind == "number":
            low, high = _range(data[:, i])
            drawn[:, i] += rng.uniform(-0.01, 0.01, rows) * (high - low)
        elif column.kind == "integer":
            drawn[:, i] += rng.integers(-2, 3, rows)
    return drawn


def _shuffled(rng: np.random.Generator, data: Matrix, rows: int) -> Matrix:
    """Every column drawn from the data on its own: combinations, categories included, that the data does not hold."""
    return np.column_stack([rng.choice(data[:, i], rows) for i in range(data.shape[1])])


def _uniform(rng: np.random.Generator, data: Matrix, schema: Schema, rows: int) -> Matrix:
    drawn = np.empty((rows, len(schema.columns)))
    for i, column in enumerate(schema.columns):
        drawn[:, i] = _uniform_column(rng, data[:, i], column, rows)
    return drawn


def _uniform_column(rng: np.random.Generator, seen: Values, column: Column, rows: int) -> Values:
    """Every category alike, numbers up to a tenth beyond the range that the data covers."""
    if column.is_index:
        return rng.integers(len(column.categories), size=rows).astype(np.float64)
    if column.kind == "boolean":
        return rng.integers(2, size=rows).astype(np.float64)
    low, high = _range(seen)
    margin = (high - low) / 10
    drawn = rng.uniform(low - margin, high + margin, rows)
    return np.rint(drawn) if column.kind == "integer" else drawn


def _range(values: Values) -> tuple[float, float]:
    seen = values[~np.isnan(values)]
    return (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)


def _edges(rng: np.random.Generator, data: Matrix, schema: Schema, limit: float | None) -> list[Group]:
    groups = []
    for i, column in enumerate(schema.columns):
        for edge in _edges_within(column, limit):
            rows = _bootstrap(rng, data, _ROWS_PER_EDGE)
            rows[:, i] = edge
            groups.append(Group(f"{column.name} = {edge:g}", rows, may_be_refused=True))
    zeros = np.zeros((1, len(schema.columns)))
    return [*groups, Group("all zero", zeros, may_be_refused=True)]


def _edges_within(column: Column, limit: float | None) -> tuple[float, ...]:
    edges = _edges_of(column)
    if limit is None or not edges:
        return edges
    kept = tuple(edge for edge in edges if abs(edge) <= limit)
    return kept if len(kept) == len(edges) else (*kept, limit, -limit)


def _edges_of(column: Column) -> tuple[float, ...]:
    if column.kind == "number":
        return _NUMBER_EDGES
    if column.kind != "integer":
        return ()
    bounds = np.iinfo(column.dtype)
    return tuple(edge for edge in _INTEGER_EDGES if bounds.min <= edge <= bounds.max)


def _nulls(rng: np.random.Generator, data: Matrix, schema: Schema, rows: int) -> list[Group]:
    """Null in each nullable column alone, in some of them together, and in all."""
    nullable = [i for i, column in enumerate(schema.columns) if column.nullable]
    if not nullable:
        return []
    groups = []
    for i in nullable:
        alone = _bootstrap(rng, data, min(_ROWS_PER_NULL, rows // 20))
        alone[:, i] = null_of(schema.columns[i])
        groups.append(Group(f"null in {schema.columns[i].name}", alone))
    together = _bootstrap(rng, data, min(4 * _ROWS_PER_NULL, rows // 5))
    for i in nullable:
        together[rng.random(len(together)) < 0.4, i] = null_of(schema.columns[i])
    together[0, nullable] = [null_of(schema.columns[i]) for i in nullable]
    return [*groups, Group("null in some columns", together)]


def _around_thresholds(rng: np.random.Generator, data: Matrix, adversaries: dict[int, Values]) -> Matrix:
    """Rows of the data with values around thresholds, at most `THRESHOLD_ROWS`.

    One such value per row while they fit; beyond, a row takes values in several columns, so that still every value occurs
    (of more than `THRESHOLD_ROWS` values in one column, that many drawn at random).
    """
    count = min(THRESHOLD_ROWS, sum(len(values) for values in adversaries.values()))
    drawn = _bootstrap(rng, data, count)
    free = rng.permutation(count)
    for column, values in adversaries.items():
        chosen: Any = values if len(values) <= count else rng.choice(values, count, replace=False)
        drawn[free[: len(chosen)], column] = chosen
        free = np.roll(free, -len(chosen))
    return drawn
