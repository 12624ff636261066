"""Finds rows on both sides of the decision boundary: where the registered model changes its label.

Rows drawn near the data may all get one label, which shows nothing about how the model chooses: a
graph with another threshold would pass. So the search asks the model about wider and wider rows
until it has answered several labels, and bisects between rows with different labels to find where
the label changes. The gate gets every row on the way: their distance from the change halves each
time, so some of them reveal even a very small difference between two rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model_export.prove.samples import Group, RowSampler

if TYPE_CHECKING:
    from model_export.study.arrays import Floats, Ints, Matrix, Values

USUAL_REACH = 3.0
_FURTHER = (30.0, 300.0)
"""How far to look for classes that are not yet seen, in the unit of `RowSampler.wide`."""
_FURTHEST = (3e3, 3e4, 3e5, 3e6)
"""How far to look if only one class is seen."""
_HALVINGS = 30
_SMOOTH = 20
"""Halvings whose rows the gate gets: the last ones are a millionth of the way apart, where the two
classes of a smooth model are equally likely."""
_JUMP = 10
"""The same where the model jumps, as trees and votes do: there the side of a much nearer row
depends on the order of additions, and the answers are the same all the way to the jump."""
_SHARE_AT_JUMP = 1e-3
"""Next to a jump the label leads by more than this share of its usual lead; where a model is
smooth, the lead goes to 0."""
_PAIRS = 500
_ROWS_PER_PAIR = 200
"""One pair per so many rows of the gate, at most `_PAIRS`."""
_POOL_ROWS = 1_000
_POOL_VALUES = 1_000_000


class Model(Protocol):
    """The registered model, as the search uses it."""

    def labels(self, rows: Matrix) -> Ints:
        """int64[N]: the label of each row, −1 where the model raises."""

    def leads(self, rows: Matrix) -> Floats:
        """float64[N]: by how much each label leads; NaN where the model raises."""

    def judge_by_probabilities(self, rows: Matrix) -> None:
        """Check on both sides of changes whether the label follows the probabilities."""


@dataclass(frozen=True)
class Boundary:
    """Where the registered model changes its label, as far as the search found out."""

    seen: tuple[int, ...]
    """Indices of the classes that it answered; empty for a regressor."""
    start: Matrix
    """float64[P, F]."""
    end: Matrix
    """float64[P, F]: rows with another label than `start`, which differ from it in numbers only."""
    pairs: Ints
    """int64[M]: for each row of the gate, the pair of start and end between which it lies."""
    places: Values
    """float64[M]: its place between them, from 0 (start) to 1 (end)."""
    reach: float = USUAL_REACH
    """How far the gate's wide rows must go so that these classes occur."""

    def groups(self, sampler: RowSampler) -> list[Group]:
        """The rows on both sides, as one group; no group if there are none."""
        if not len(self.pairs):
            return []

        def make(_: Any, start: int, stop: int) -> Matrix:
            pairs = self.pairs[start:stop]
            return _between(sampler, self.start[pairs], self.end[pairs], self.places[start:stop])

        return [Group("around the decision boundary", len(self.pairs), make, may_be_refused=True)]


def _between(sampler: RowSampler, start: Matrix, end: Matrix, places: Values) -> Matrix:
    """Rows between start and end, at the given places in 0…1."""
    return sampler.legal(start + places[:, None] * (end - start))


def no_boundary(columns: int) -> Boundary:
    """The boundary of a model without labels."""
    empty: Matrix = np.empty((0, columns))
    return Boundary((), empty, empty, np.empty(0, dtype=np.int64), np.empty(0))


def find(model: Model, sampler: RowSampler, classes: int, *, rows: int, seed: int = 21) -> Boundary:
    """Search for rows of every class, and for the changes of the label between them.

    Args:
        model: the registered model.
        sampler: draws the rows.
        classes: how many classes there are.
        rows: of the gate; decides how many changes to look for.
        seed: of all random numbers here.
    """
    rng = np.random.default_rng(seed)
    pool, labels, reach = _pool(model, sampler, classes, rng)
    seen = tuple(sorted(set(labels[labels >= 0].tolist())))
    start, end = _pairs(
        model, sampler, pool, labels, seen, rng, max(4, min(_PAIRS, rows // _ROWS_PER_PAIR))
    )
    if not len(start):
        return replace(no_boundary(pool.shape[1]), seen=seen, reach=reach)
    low, high, asked = _halve(model, sampler, start, end)
    sides = [_between(sampler, start, end, low), _between(sampler, start, end, high)]
    model.judge_by_probabilities(np.concatenate(sides))
    with np.errstate(invalid="ignore"):
        usual = np.nanmedian(np.concatenate([model.leads(start), model.leads(end)]))
        jumps = ~(np.fmax(*map(model.leads, sides)) <= _SHARE_AT_JUMP * usual)
    # bool[P, S], the two ends included.
    kept = np.arange(len(asked)) < 2 + np.where(jumps, _JUMP, _SMOOTH)[:, None]
    pairs, steps = np.nonzero(kept)
    return Boundary(seen, start, end, pairs, asked[steps, pairs], reach)


def _pool(
    model: Model, sampler: RowSampler, classes: int, rng: np.random.Generator
) -> tuple[Matrix, Ints, float]:
    """Rows and their labels: from the data, from the estimator, over the ranges, and wider until
    all classes are seen; and how wide."""
    size = max(50, min(_POOL_ROWS, _POOL_VALUES // len(sampler.schema.columns)))
    kept = sampler.ranges.rows
    parts = [
        sampler.bootstrap(rng, size),
        kept[rng.permutation(len(kept))[:size]],
        sampler.uniform(rng, size),
    ]
    parts.append(sampler.wide(rng, size, USUAL_REACH))
    labels = [model.labels(part) for part in parts]
    reach, found = USUAL_REACH, _distinct(labels)
    for further in (*_FURTHER, *_FURTHEST):
        if found == classes or (further > _FURTHER[-1] and found > 1):
            break
        parts.append(sampler.wide(rng, size, further))
        labels.append(model.labels(parts[-1]))
        if _distinct(labels) > found:
            reach, found = further, _distinct(labels)
    return np.concatenate(parts), np.concatenate(labels), reach


def _distinct(labels: list[Ints]) -> int:
    answered = np.unique(np.concatenate(labels))
    return int((answered >= 0).sum())


def _pairs(
    model: Model,
    sampler: RowSampler,
    pool: Matrix,
    labels: Ints,
    seen: tuple[int, ...],
    rng: np.random.Generator,
    count: int,
) -> tuple[Matrix, Matrix]:
    """Rows with different labels that differ in their numbers only; every pair of classes is
    equally likely."""
    if len(seen) < 2:
        return pool[:0], pool[:0]
    of_class = {label: np.flatnonzero(labels == label) for label in seen}
    chosen = [rng.choice(seen, 2, replace=False).tolist() for _ in range(count)]
    start, end = (
        pool[[int(rng.choice(of_class[pair[side]])) for pair in chosen]] for side in (0, 1)
    )
    numbers = np.asarray([column.is_numeric for column in sampler.schema.columns])
    end = np.where(numbers & ~np.isnan(start) & ~np.isnan(end), end, start)
    first, second = model.labels(start), model.labels(end)
    differ = (first != second) & (first >= 0) & (second >= 0)
    return start[differ], end[differ]


def _halve(
    model: Model, sampler: RowSampler, start: Matrix, end: Matrix
) -> tuple[Values, Values, Matrix]:
    """The last place with the label of the start, the last with another label, and float64[S, P]:
    all places that were asked, the two ends first."""
    low, high = np.zeros(len(start)), np.ones(len(start))
    asked = [low, high]
    label = model.labels(start)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = model.labels(_between(sampler, start, end, middle)) == label
        low, high = np.where(same, middle, low), np.where(same, high, middle)
        asked.append(middle)
    return low, high, np.asarray(asked)
