"""Which rows the registered model raises on, learned from the rows that it was asked for.

It raises on a whole batch if one row is invalid for it, such as a negative number for a logarithm.
Batches are then asked in halves. That takes tens of thousands of calls if the invalid rows are
spread over 100,000; sorted by a decision tree that predicts them, it takes some thousands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from model_export.errors import ExportError, is_memory_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.study.arrays import Flags, Floats, Ints, Matrix

_FEWEST = 8
"""Pieces of so few rows are not halved any further when the model raises on them."""
_ALIKE = 64
"""The same, if all rows of the piece are expected to be refused, and one of them alone is."""
_TAUGHT = 256
"""Rows of a batch that are asked one by one, to train the tree."""
_MOST_VALUES = 1_000_000
"""Of all rows that the tree is trained on."""
_WRONG = 0.005
"""Share of wrong predictions above which the tree is trained on rows of that batch, too."""
_LARGEST = 1e30
"""Of the numbers that the tree reads: their sum must fit into float32."""


class Refusals:
    """Asks the model in pieces that it answers."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._tree: Any = None
        self._rows: list[Matrix] = []
        self._raised: list[Flags] = []

    def pieces(self, rows: Matrix, ask: Callable[[Matrix], Any]) -> list[tuple[Ints, Any]]:
        """The positions and the answers of each answered piece of rows that cannot be asked
        together; the smallest failing pieces are left out.

        Args:
            rows: float64[N, columns].
            ask: answers some of the rows, or raises what the model raises.
        """
        if self._tree is None:
            self._learn(rows, ask)
        expected = self._expected(rows)
        found = _halved(rows, np.argsort(expected, kind="stable"), expected == 1.0, ask)
        if np.mean(_raised(len(rows), found) != (expected > 0.5)) > _WRONG:
            self._learn(rows, ask)
        return found

    def _learn(self, rows: Matrix, ask: Callable[[Matrix], Any]) -> None:
        """Ask some of the rows one by one, and fit a tree to what is known now."""
        known = sum(map(len, self._rows))
        if len(rows) < 2 * _TAUGHT or (known + _TAUGHT) * rows.shape[1] > _MOST_VALUES:
            return
        some = rows[np.linspace(0, len(rows) - 1, _TAUGHT).astype(np.int64)]
        unsure = np.zeros(len(some), dtype=np.bool_)
        self._rows.append(_readable(some))
        self._raised.append(
            _raised(len(some), _halved(some, np.arange(len(some)), unsure, ask, fewest=1))
        )
        everything = np.concatenate(self._raised)
        if everything.any():
            self._tree = DecisionTreeClassifier(random_state=0)
            self._tree.fit(np.concatenate(self._rows), everything)

    def _expected(self, rows: Matrix) -> Floats:
        """float64[N]: how surely the model raises on each row, 0 to 1."""
        if self._tree is None:
            return np.zeros(len(rows))
        found: Floats = self._tree.predict_proba(_readable(rows))
        return found[:, -1]  # of the class True, which may be the only one


def _halved(
    rows: Matrix,
    order: Ints,
    sure: Flags,
    ask: Callable[[Matrix], Any],
    *,
    fewest: int = _FEWEST,
) -> list[tuple[Ints, Any]]:
    """Ask the rows in this order, in halves where the model raises."""
    try:
        return [(order, ask(rows[order]))]
    except ExportError:
        raise
    except Exception as error:  # the estimator may raise anything
        if is_memory_error(error):
            raise
    expected = sure[order]
    if len(order) <= fewest:
        return []
    if len(order) <= _ALIKE and expected.all():
        one = order[len(order) // 2 :][:1]
        if not _halved(rows, one, sure, ask):
            return []
        sure, expected = np.zeros_like(sure), np.zeros_like(expected)  # the tree was wrong
    middle = len(order) // 2 if expected.all() else len(order) - int(expected.sum())
    if middle in (0, len(order)):
        middle = len(order) // 2
    return [
        piece
        for part in (order[:middle], order[middle:])
        for piece in _halved(rows, part, sure, ask, fewest=fewest)
    ]


def _raised(size: int, found: list[tuple[Ints, Any]]) -> Flags:
    """Which rows are in no answered piece."""
    raised = np.ones(size, dtype=np.bool_)
    for positions, _ in found:
        raised[positions] = False
    return raised


def _readable(rows: Matrix) -> Matrix:
    return np.clip(rows, -_LARGEST, _LARGEST)
