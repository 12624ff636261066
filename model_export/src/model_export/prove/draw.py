"""Draws the rows that the gate compares: some like the training data, some unlike it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.prove.samples import Group, RowSampler, Sample, fixed
from model_export.study.arrays import Matrix
from model_export.study.rows import null_of, unknown_of

if TYPE_CHECKING:
    from model_export.prove.boundary import Boundary
    from model_export.prove.samples import Generator
    from model_export.study.arrays import Values
    from model_export.study.schema import Column

GATE_ROWS = 100_000
"""What most models answer within seconds. If all of n rows agree, at most 3/n of such rows may
still differ: 0.003 % for 100,000."""
THRESHOLD_ROWS = 50_000
_ROWS_PER_EDGE = 20
_ROWS_PER_NULL = 500
_EDGE_SHARE = 4
"""At most a quarter of the rows is at edges, and at most a fifth holds nulls, for any number of
columns."""
_NULL_SHARE = 5

_FLOAT32 = np.finfo(np.float32)
_NUMBER_EDGES = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.0 / 3.0,
    5e-324,
    float(_FLOAT32.smallest_subnormal),
    -float(_FLOAT32.smallest_subnormal),
    float(_FLOAT32.smallest_normal),
    1e6,
    -1e6,
    float(_FLOAT32.max),
    -float(_FLOAT32.max),
)
# 2²⁴ + 1 is the first integer that float32 cannot hold; up to 2⁵³ a double holds every integer.
_INTEGER_EDGES = (
    0,
    1,
    -1,
    255,
    -32768,
    2**24,
    2**24 + 1,
    -(2**24) - 1,
    2**31 - 1,
    -(2**31),
    2**53,
    -(2**53),
)


def draw(
    sampler: RowSampler,
    threshold_neighbours: dict[int, Values],
    boundary: Boundary,
    *,
    rows: int = GATE_ROWS,
    seed: int = 20,
) -> Sample:
    """Draw the gate's rows.

    Args:
        sampler: draws them.
        threshold_neighbours: column → values around the tree thresholds.
        boundary: where the registered model changes its label, and how far the wide rows must go.
        rows: in all, besides those around thresholds.
        seed: of all random numbers here.

    Returns:
        groups that hold at least `rows` rows, and at most `THRESHOLD_ROWS` named "thresholds".
    """
    data = sampler.data[: rows // 2]
    groups = [
        fixed("data", data),
        *_edges(sampler, rows // _EDGE_SHARE),
        *_nulls(sampler, rows),
        *_choices(sampler, rows // _EDGE_SHARE),
        *_unknowns(sampler, rows),
        *boundary.groups(sampler),
    ]
    left = max(4, rows - sum(group.size for group in groups))
    groups += _random(sampler, left, boundary.reach)
    if neighbours := _within(threshold_neighbours, sampler.limit):
        groups.append(_around_thresholds(sampler, neighbours, seed))
    return Sample(tuple(groups), len(sampler.schema.columns), seed)


def more(sampler: RowSampler, repeated: int) -> Group:
    """Rows in place of those that were drawn again; a few more, as some of these may be as well."""

    def uniform(rng: Generator, start: int, stop: int) -> Matrix:
        return sampler.uniform(rng, stop - start)

    count = repeated + repeated // 50 + 10
    return Group("uniform, in place of repeated rows", count, uniform, may_be_refused=True)


def _choices(sampler: RowSampler, most: int) -> list[Group]:
    """Every value of each category and boolean, in rows of the data; of several columns, each row
    gets one value of each."""
    columns = [
        (i, column.choices)
        for i, column in enumerate(sampler.schema.columns)
        if not column.is_numeric
    ]
    if not columns:
        return []

    def make(rng: Generator, start: int, stop: int) -> Matrix:
        made = sampler.bootstrap(rng, stop - start)
        for i, choices in columns:
            made[:, i] = np.arange(start, stop) % choices
        return made

    size = min(max(choices for _, choices in columns), max(1, most))
    return [Group("every category and boolean", size, make)]


def _random(sampler: RowSampler, rows: int, reach: float) -> list[Group]:
    """Four groups, a quarter of the rows each."""
    quarter = rows // 4

    def near(rng: Generator, start: int, stop: int) -> Matrix:
        return sampler.jittered(rng, stop - start)

    def shuffled(rng: Generator, start: int, stop: int) -> Matrix:
        return sampler.shuffled(rng, stop - start)

    def uniform(rng: Generator, start: int, stop: int) -> Matrix:
        return sampler.uniform(rng, stop - start)

    def wide(rng: Generator, start: int, stop: int) -> Matrix:
        return sampler.wide(rng, stop - start, reach)

    return [
        Group("near the data", rows - 3 * quarter, near),
        Group("columns shuffled", quarter, shuffled),
        Group("uniform over the ranges", quarter, uniform, may_be_refused=True),
        Group("wide", quarter, wide, may_be_refused=True),
    ]


def _within(neighbours: dict[int, Values], limit: float | None) -> dict[int, Values]:
    """The values within ±limit, without columns that have none."""
    if limit is None:
        return neighbours
    return {
        column: near
        for column, values in neighbours.items()
        if len(near := values[np.abs(values) <= limit])
    }


def _edges(sampler: RowSampler, most: int) -> list[Group]:
    """A group per edge value: rows of the data with one column at the value, or several columns if
    there are too many of them."""
    columns: dict[str, tuple[float, list[int]]] = {}
    for i, column in enumerate(sampler.schema.columns):
        for edge in _edges_within(column, sampler.limit):
            columns.setdefault(repr(float(edge)), (edge, []))[1].append(i)
    pairs = sum(len(at) for _, at in columns.values())
    zeros = fixed("all zero", np.zeros((1, len(sampler.schema.columns))), may_be_refused=True)
    if not pairs:
        return [zeros]
    each = max(1, min(_ROWS_PER_EDGE, most // pairs))
    together = max(1, most // len(columns))
    return [
        *(_edge(sampler, edge, at, each, max(together, each)) for edge, at in columns.values()),
        zeros,
    ]


def _edge(sampler: RowSampler, edge: float, columns: list[int], each: int, most: int) -> Group:
    size = min(len(columns) * each, most) if each == 1 else len(columns) * each
    places = np.asarray(columns)

    def make(rng: Generator, start: int, stop: int) -> Matrix:
        rows = sampler.bootstrap(rng, stop - start)
        if each > 1:
            rows[np.arange(stop - start), places[np.arange(start, stop) // each]] = edge
            return rows
        for first in range(0, len(places), size):  # each row gets one column of each `size`
            some = places[first : first + size][start:stop]
            rows[np.arange(len(some)), some] = edge
        return rows

    return Group(f"a column = {edge:g}", size, make, may_be_refused=True)


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


def _nulls(sampler: RowSampler, rows: int) -> list[Group]:
    """Null in each nullable column alone, in some of them together, and in all."""
    nullable = [i for i, column in enumerate(sampler.schema.columns) if column.nullable]
    if not nullable:
        return []
    places = np.asarray(nullable)
    nulls = np.asarray([null_of(sampler.schema.columns[i]) for i in nullable])
    each = max(1, min(_ROWS_PER_NULL, rows // 20, rows // _NULL_SHARE // len(nullable)))

    def alone(rng: Generator, start: int, stop: int) -> Matrix:
        made = sampler.bootstrap(rng, stop - start)
        which = np.arange(start, stop) // each
        made[np.arange(stop - start), places[which]] = nulls[which]
        return made

    def together(rng: Generator, start: int, stop: int) -> Matrix:
        made = sampler.bootstrap(rng, stop - start)
        chosen = rng.random((stop - start, len(places))) < 0.4
        if start == 0:
            chosen[0] = True
        made[:, places] = np.where(chosen, nulls, made[:, places])
        return made

    count = max(1, min(4 * _ROWS_PER_NULL, rows // 5))
    return [
        Group("null in one column", len(nullable) * each, alone),
        Group("null in some columns", count, together),
    ]


def _unknowns(sampler: RowSampler, rows: int) -> list[Group]:
    """Unknown categories in each column that accepts them, alone and in several of them."""
    accepting = [i for i, column in enumerate(sampler.schema.columns) if column.unknown]
    if not accepting:
        return []
    places = np.asarray(accepting)
    unknown = np.asarray([unknown_of(sampler.schema.columns[i]) for i in accepting])
    count = max(len(places), min(_ROWS_PER_NULL * len(places), rows // _NULL_SHARE))

    def make(rng: Generator, start: int, stop: int) -> Matrix:
        made = sampler.shuffled(rng, stop - start)
        alone = np.arange(start, stop)[:, None] % len(places) == np.arange(len(places))
        more = rng.random(alone.shape) < rng.choice([0.0, 0.5], (stop - start, 1))
        made[:, places] = np.where(alone | more, unknown, made[:, places])
        return made

    return [Group("unknown categories", count, make)]


def _around_thresholds(
    sampler: RowSampler, threshold_neighbours: dict[int, Values], seed: int
) -> Group:
    """Rows of the data with values around thresholds, at most `THRESHOLD_ROWS`.

    Each row gets one such value if they fit; otherwise a row gets values in several columns, so
    that every value still occurs (of a column with more than `THRESHOLD_ROWS` values, that many
    drawn at random).
    """
    count = min(THRESHOLD_ROWS, sum(len(values) for values in threshold_neighbours.values()))
    rng = np.random.default_rng([seed, count])
    chosen: list[tuple[int, int, Any]] = []
    first_place = 0
    for column, values in threshold_neighbours.items():
        some: Any = values if len(values) <= count else rng.choice(values, count, replace=False)
        chosen.append((column, first_place, some))
        first_place = (first_place + len(some)) % count
    place = rng.permutation(count)

    def make(rng: Generator, start: int, stop: int) -> Matrix:
        made = sampler.bootstrap(rng, stop - start)
        for column, first, values in chosen:
            at = (place[start:stop] - first) % count
            takes = at < len(values)
            made[takes, column] = values[at[takes]]
        return made

    return Group("thresholds", count, make)
