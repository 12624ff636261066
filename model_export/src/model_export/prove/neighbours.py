"""Rows to which a model of nearest neighbours has several right answers, and what those are.

If the k-th and the following training row are equally far from a row, only one of them counts, and
scikit-learn's choice depends on the order in which it searches: another `algorithm`, another number
of threads or another order of the training rows chooses another one. Whether it is so is found by
the fitted model's own search, for one neighbour more. The right answers are those of the registered
model itself, asked again with each choice of neighbours that the distances allow.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_export.study.arrays import Flags, Ints, Values

_T = TypeVar("_T")
_SEARCH = "_fit_method"
"""Where scikit-learn keeps how it searches; "brute" counts the labels without `kneighbors`."""
_METRICS = ("euclidean", "manhattan", "chebyshev", "minkowski", "cosine")
_ROUNDING = 8.0 * float(np.finfo(np.float64).eps)
"""Of a distance that is computed in float64: of each of its columns, relative to the largest number
in them."""
MOST_CHOICES = 2_000
"""For one row. A row with more of them is not excused: to compare with them all takes too long, and
an answer that any of so many may explain shows little."""
MOST_ANSWERS = 500_000
"""For all rows that differ: the registered model gives them in a minute or two."""


class Neighbours:
    """The nearest neighbours that decide a model's answers, wherever they are inside it."""

    def __init__(self, estimator: Any) -> None:
        """Find them in a fitted estimator of scikit-learn, or in those that it is made of."""
        self._parts = [part for part in _parts(estimator, {}) if _is_known(part)]

    def __bool__(self) -> bool:
        """True if there are any."""
        return bool(self._parts)

    def tied(self, rows: Any, ask: Callable[[Any], Any]) -> Flags:
        """bool[N]: rows with several right choices of neighbours.

        Args:
            rows: N rows, as the model takes them.
            ask: calls the model with such rows; its answer is not used.
        """
        found = np.zeros(len(rows), dtype=np.bool_)
        for seen in self._watched(rows, ask):
            found |= seen.tied()
        return found

    def alternatives(
        self, rows: Any, ask: Callable[[Any], _T], most: int = MOST_ANSWERS
    ) -> tuple[Ints, _T | None]:
        """The right answers to rows.

        Args:
            rows: N rows, as the model takes them.
            ask: the model's answers to such rows.
            most: how many answers; the last rows get none if it would be more.

        Returns:
            int64[M]: for each answer, the row's index; and the M answers, None if there are none.
                A row without several choices, or with too many, has none.
        """
        watched = self._watched(rows, ask)
        for one in watched:
            one.widen()
        owners: list[int] = []
        chosen: list[tuple[tuple[Values, Ints], ...]] = []
        for row in range(len(rows)):
            choices = _choices(watched, row)
            if len(chosen) + len(choices) > most:
                break
            owners += [row] * len(choices)
            chosen += choices
        index = np.asarray(owners, dtype=np.int64)
        if not len(index):
            return index, None
        fixed = [
            _Fixed(*(np.stack(arrays) for arrays in zip(*choice, strict=True)))
            for choice in zip(*chosen, strict=True)
        ]
        with _searching([(w.part, f) for w, f in zip(watched, fixed, strict=True)]):
            return index, ask(_take(rows, index))

    def _watched(self, rows: Any, ask: Callable[[Any], Any]) -> list[_Watched]:
        watched = [_Watched(part) for part in self._parts]
        with _searching([(one.part, one) for one in watched]):
            ask(rows)
        # A fitted part that its owner has copied and never asks stays without distances.
        asked = [one for one in watched if one.count]
        return asked if all(one.count == len(rows) for one in asked) else []


@dataclass(frozen=True)
class _Fixed:
    """In place of the search of a fitted estimator: neighbours that were chosen before."""

    distances: Values
    indices: Ints

    def __call__(self, rows: Any, n_neighbors: Any = None, return_distance: bool = True) -> Any:
        """[M, k] of M rows, which are those that the neighbours were chosen for."""
        del rows, n_neighbors
        return (self.distances, self.indices) if return_distance else self.indices


class _Watched:
    """In place of the search of a fitted estimator: looks for one neighbour more."""

    def __init__(self, part: Any) -> None:
        self.part = part
        self._source = copy.copy(part)  # searches as before
        self._largest = float(_absolute(part._fit_X).max(initial=0.0))  # noqa: SLF001
        self._rows: Any = None
        self._sizes: Values = np.empty((0, 0))
        self._distances: Values = np.empty((0, 0))
        self._indices: Ints = np.empty((0, 0), dtype=np.int64)

    @property
    def count(self) -> int:
        """How many rows it was asked for."""
        return len(self._distances)

    def __call__(self, rows: Any, n_neighbors: Any = None, return_distance: bool = True) -> Any:
        """As `kneighbors` of the estimator."""
        del n_neighbors
        count = self.part.n_neighbors
        more = min(count + 1, self.part.n_samples_fit_)
        self._rows = rows
        self._distances, self._indices = self._source.kneighbors(rows, more)
        chosen = self._indices[:, :count]
        return (self._distances[:, :count], chosen) if return_distance else chosen

    def tied(self) -> Flags:
        """bool[N]: the last neighbour and the following training row are equally far."""
        count = self.part.n_neighbors
        if self._distances.shape[1] <= count:
            return np.zeros(len(self._distances), dtype=np.bool_)
        last, following = self._distances[:, count - 1], self._distances[:, count]
        return self._equal(_absolute(self._rows), last, following)

    def widen(self) -> None:
        """Look for more neighbours, until none of the further rows is equally far."""
        count, known = self.part.n_neighbors, self.part.n_samples_fit_
        self._sizes = _absolute(self._rows)
        while (found := self._distances.shape[1]) < known and self._equal(
            self._sizes, self._distances[:, count - 1], self._distances[:, -1]
        ).any():
            more = min(2 * found, known)
            self._distances, self._indices = self._source.kneighbors(self._rows, more)

    def choices(self, row: int) -> list[tuple[Values, Ints]]:
        """The distances and the indices of the neighbours, in each way that gives another
        answer."""
        count = self.part.n_neighbors
        distances, indices = self._distances[row], self._indices[row]
        sizes, last = self._sizes[row : row + 1], distances[count - 1]
        equal = self._equal(sizes, np.minimum(last, distances), np.maximum(last, distances))
        inside = np.flatnonzero(~equal & (distances < last))
        return [
            (distances[places], indices[places])
            for some in self._subsets(indices, np.flatnonzero(equal), count - len(inside))
            for places in [np.concatenate([inside, some])]
        ]

    def _subsets(self, indices: Ints, equal: Ints, size: int) -> list[Ints]:
        """So many of the places of equally far rows, once for each combination of targets."""
        targets = np.asarray(self.part._y)[indices[equal]].reshape(len(equal), -1)  # noqa: SLF001
        groups = np.unique(targets, axis=0, return_inverse=True)[1].ravel()
        places = [equal[groups == group] for group in range(int(groups.max(initial=-1)) + 1)]
        if _combinations([len(group) for group in places], size) > MOST_CHOICES:
            return []
        found: list[list[Ints]] = [[]]
        for number, group in enumerate(places):
            left = sum(len(other) for other in places[number + 1 :])
            found = [
                [*some, group[:taken]]
                for some in found
                for open_ in [size - sum(map(len, some))]
                for taken in range(max(0, open_ - left), min(len(group), open_) + 1)
            ]
        return [np.concatenate(some) for some in found if some]

    def _equal(self, sizes: Values, low: Any, high: Any) -> Flags:
        """bool[N]: the two distances are the same within the rounding of their computation.

        Args:
            sizes: float64[N, W], the absolute numbers of the rows.
            low: float64[N] or one number, the smaller distance.
            high: float64[N], the larger one.
        """
        if self.part.effective_metric_ == "cosine":
            return np.asarray(high - low <= _ROUNDING)
        largest = np.maximum(sizes.max(axis=1, initial=0.0), self._largest)
        bound = _ROUNDING * sizes.shape[1] * largest
        with np.errstate(over="ignore", invalid="ignore"):
            if self.part.effective_metric_ == "euclidean" and _multiplies(self._source):
                # Computed as x² - 2xy + y², which loses digits that the difference would keep.
                return np.asarray(np.square(high) - np.square(low) <= bound * largest)
            return np.asarray(high - low <= bound)


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """All neighbours among the attributes of an estimator, in a fixed order."""
    if id(value) in seen:
        return
    if isinstance(value, list | tuple):
        inside = list(value)
    elif isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, BaseEstimator) or type(value).__name__ == "_CalibratedClassifier":
        inside = list(vars(value).values())
    else:
        return
    seen[id(value)] = value
    if isinstance(value, KNeighborsClassifier | KNeighborsRegressor):
        yield value
    for one in inside:
        yield from _parts(one, seen)


def _is_known(part: Any) -> bool:
    """True if it is fitted, and its distances are those of a metric whose rounding is known."""
    return getattr(part, "effective_metric_", None) in _METRICS and not getattr(
        part, "outputs_2d_", False
    )


def _multiplies(part: Any) -> bool:
    return getattr(part, _SEARCH, None) == "brute"


def _combinations(groups: list[int], size: int) -> int:
    """In how many ways so many are taken from groups of these sizes; stops beyond the most."""
    ways = [1, *[0] * size]
    for group in groups:
        ways = [sum(ways[max(0, i - group) : i + 1]) for i in range(size + 1)]
        if ways[size] > MOST_CHOICES:
            break
    return ways[size]


def _choices(watched: list[_Watched], row: int) -> list[tuple[tuple[Values, Ints], ...]]:
    """The choices of all neighbours together; none if there is only one, or too many."""
    each = [one.choices(row) for one in watched]
    count = int(np.prod([len(choices) for choices in each]))
    return list(product(*each)) if 1 < count <= MOST_CHOICES else []


@contextmanager
def _searching(searches: list[tuple[Any, Any]]) -> Iterator[None]:
    """Let fitted estimators find their neighbours by other searches."""
    before = [(part, part.__dict__.get(_SEARCH)) for part, _ in searches]
    try:
        for part, search in searches:
            part.kneighbors = search
            setattr(part, _SEARCH, "kd_tree")
        yield
    finally:
        for part, method in before:
            part.__dict__.pop("kneighbors", None)
            setattr(part, _SEARCH, method)


def _absolute(rows: Any) -> Values:
    dense = rows.toarray() if hasattr(rows, "toarray") else rows
    return np.abs(np.asarray(dense, dtype=np.float64))


def _take(rows: Any, index: Ints) -> Any:
    return rows.iloc[index] if hasattr(rows, "iloc") else rows[index]
