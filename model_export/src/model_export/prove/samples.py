"""The gate's rows: a sample of several groups, and the sampler that draws their rows.

Rows are drawn a chunk at a time, and drawn again when they are needed again: 100,000 rows of 5,000
columns would take 4 GB. Each chunk has its own seeded random generator, so it is always the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.study.arrays import Flags, Matrix, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model_export.prove.ranges import Ranges
    from model_export.study.schema import Column, Schema

    Generator = np.random.Generator
    Make = Callable[[Generator, int, int], Matrix]

CHUNK_ROWS = 10_000
CHUNK_VALUES = 8_000_000
"""Most rows and most values in a chunk: 64 MB. A model's input and its intermediate results take a
multiple of that."""

_FLOAT32 = np.finfo(np.float32)
_NEAREST = 0.1
"""Wide rows lie at between this and `reach` times the usual distance from the middle of the
ranges."""


def chunk_rows(columns: int) -> int:
    """Most rows in a chunk of rows with so many columns."""
    return max(1, min(CHUNK_ROWS, CHUNK_VALUES // columns))


@dataclass(frozen=True)
class Group:
    """Rows of one kind."""

    name: str
    size: int
    make: Make
    """Makes the rows start…stop from a random generator."""
    may_be_refused: bool = False
    """The registered model may raise on these (an overflow, say); such a row is left out, because
    there is no answer to compare."""
    kept: Flags | None = None
    """bool[size]: the rows that are not left out; None: all."""

    @property
    def count(self) -> int:
        """Rows that are not left out."""
        return self.size if self.kept is None else int(self.kept.sum())


@dataclass(frozen=True)
class Sample:
    """The rows of several groups, one group after another."""

    groups: tuple[Group, ...]
    columns: int
    seed: int = 20

    @property
    def size(self) -> int:
        """Rows in all."""
        return sum(group.count for group in self.groups)

    @property
    def chunk_rows(self) -> int:
        """Most rows in a chunk."""
        return chunk_rows(self.columns)

    def of(self, number: int) -> Iterator[Matrix]:
        """The rows of one group, in chunks."""
        for start in range(0, self.groups[number].size, self.chunk_rows):
            yield self._chunk(number, start)

    def chunks(self) -> Iterator[Matrix]:
        """All rows, in chunks; none is empty."""
        for number in range(len(self.groups)):
            yield from (rows for rows in self.of(number) if len(rows))

    def take(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> Matrix:
        """Some rows by their index, in the order of the indices."""
        wanted = np.asarray(indices, dtype=np.int64)
        taken: Matrix = np.empty((len(wanted), self.columns))
        done = 0
        for number, group in enumerate(self.groups):
            for start in range(0, group.size, self.chunk_rows):
                count = self._count(group, start)
                inside = (wanted >= done) & (wanted < done + count)
                if inside.any():
                    taken[inside] = self._chunk(number, start)[wanted[inside] - done]
                done += count
        return taken

    def group_of(self, index: int) -> str:
        """The name of a row's group."""
        ends = np.cumsum([group.count for group in self.groups])
        return self.groups[int(np.searchsorted(ends, index, side="right"))].name

    def plus(self, group: Group) -> Sample:
        """The same rows and those of one more group."""
        return replace(self, groups=(*self.groups, group))

    def keeping(self, kept: list[Flags | None]) -> Sample:
        """The same rows without those left out, group by group."""
        return replace(
            self,
            groups=tuple(
                replace(group, kept=flags) for group, flags in zip(self.groups, kept, strict=True)
            ),
        )

    def _stop(self, group: Group, start: int) -> int:
        return min(group.size, start + self.chunk_rows)

    def _count(self, group: Group, start: int) -> int:
        stop = self._stop(group, start)
        return stop - start if group.kept is None else int(group.kept[start:stop].sum())

    def _chunk(self, number: int, start: int) -> Matrix:
        group = self.groups[number]
        stop = self._stop(group, start)
        rows = group.make(np.random.default_rng([self.seed, number, start]), start, stop)
        return rows if group.kept is None else rows[group.kept[start:stop]]


def fixed(name: str, rows: Matrix, *, may_be_refused: bool = False) -> Group:
    """A group of given rows."""
    return Group(
        name, len(rows), lambda _, start, stop: rows[start:stop], may_be_refused=may_be_refused
    )


@dataclass(frozen=True)
class RowSampler:
    """Draws rows from the data and from the ranges of the columns."""

    data: Matrix
    """float64[n, F], packed rows of the training distribution, n ≥ 1."""
    schema: Schema
    """With categories and nullability."""
    ranges: Ranges
    limit: float | None = None
    """Largest absolute number to draw; None: the largest float32."""

    def bootstrap(self, rng: Generator, rows: int) -> Matrix:
        """Rows of the data, drawn with replacement."""
        return self.data[rng.integers(len(self.data), size=rows)]

    def uniform(self, rng: Generator, rows: int) -> Matrix:
        """Categories with equal probability, numbers up to a tenth beyond the ranges."""
        low, high = self.ranges.low, self.ranges.high
        margin = (high - low) / 10
        drawn = low - margin + rng.random((rows, len(low))) * (high - low + 2 * margin)
        return self.legal(self._with_any_categories(rng, drawn))

    def wide(self, rng: Generator, rows: int, reach: float) -> Matrix:
        """Numbers around the middle of the ranges; each row has its own random distance, around
        0.1 to `reach` times the usual one."""
        low, high = self.ranges.low, self.ranges.high
        distance = _NEAREST * (reach / _NEAREST) ** rng.random((rows, 1))
        drawn = (low + high) / 2 + distance * (high - low) / 4 * rng.standard_normal(
            (rows, len(low))
        )
        return self.legal(self._with_any_categories(rng, drawn))

    def jittered(self, rng: Generator, rows: int) -> Matrix:
        """Rows of the data, each number moved by up to 1 % of its column's range (an integer by up
        to 2), and not out of it: a model of logarithms may raise on a number below all others."""
        drawn = self.bootstrap(rng, rows)
        for i, column in enumerate(self.schema.columns):
            if column.kind == "number":
                drawn[:, i] += rng.uniform(-0.01, 0.01, rows) * (
                    self.ranges.high[i] - self.ranges.low[i]
                )
            elif column.kind == "integer":
                drawn[:, i] += rng.integers(-2, 3, rows)
            if column.is_numeric:
                drawn[:, i] = _inside(drawn[:, i], self.data[:, i])
        return self.legal(drawn)

    def shuffled(self, rng: Generator, rows: int) -> Matrix:
        """Each column drawn independently from the data: combinations, of categories too, that the
        data does not hold."""
        return self.data[
            rng.integers(len(self.data), size=(rows, self.data.shape[1])),
            np.arange(self.data.shape[1]),
        ]

    def legal(self, rows: Matrix) -> Matrix:
        """The rows with every integer whole and within its type, and every number within float32
        and the limit."""
        limit = float(_FLOAT32.max) if self.limit is None else self.limit
        for i, column in enumerate(self.schema.columns):
            if column.kind == "integer":
                least, most = _exact_bounds(column)
                rows[:, i] = np.clip(np.rint(rows[:, i]), max(least, -limit), min(most, limit))
        numbers = np.asarray([column.kind == "number" for column in self.schema.columns])
        return np.where(numbers, np.clip(rows, -limit, limit), rows)

    def _with_any_categories(self, rng: Generator, rows: Matrix) -> Matrix:
        for i, column in enumerate(self.schema.columns):
            if not column.is_numeric:
                rows[:, i] = rng.integers(column.choices, size=len(rows))
        return rows


def _inside(drawn: Values, data: Values) -> Values:
    """The numbers, reflected at the ends of the data's range if they lie beyond; as they are if the
    data has no range."""
    known = data[~np.isnan(data)]
    if not len(known) or known.min() == known.max():
        return drawn
    low, high = known.min(), known.max()
    reflected = high - np.abs(high - low - np.abs(drawn - low))
    inside: Values = np.clip(reflected, low, high)
    return inside


def _exact_bounds(column: Column) -> tuple[float, float]:
    """The least and the largest integer of a column that a double holds exactly."""
    bounds = np.iinfo(column.dtype)
    return max(float(bounds.min), -(2.0**53)), min(float(bounds.max), 2.0**53)
