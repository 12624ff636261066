"""Finds the interval of a sorted list in which a number lies, and interpolates in it.

ONNX has no binary search. A tree of comparisons is one: a node per breakpoint, and leaves that hold
positions. ONNX Runtime compares float64 with float64 in it, and walks it in a few steps, whereas
comparing with all breakpoints takes memory for rows × columns × breakpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto

from model_export.convert.boosters.ensemble import Ensemble, Mode, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_export.convert.block import Block
    from model_export.study.arrays import Values

Side = Literal["left", "right"]
_FLAT = 8
"""Columns with at most so many breakpoints are compared with all of them."""


def count_below(block: Block, edges: Sequence[Values], side: Side) -> Block:
    """As `numpy.searchsorted(edges[j], block[:, j], side)`: how many edges are below each number
    (`right`: or equal to it); float64 [N, width]."""
    if max(map(len, edges), default=0) <= _FLAT:
        return _compared(block.as_dtype("float64"), edges, side)
    builder = block.builder
    trees = [_tree(column, np.asarray(own, np.float64), side) for column, own in enumerate(edges)]
    ensemble = Ensemble(trees, np.zeros(len(edges)), "identity")
    name = builder.node(
        "TreeEnsembleRegressor",
        block.as_dtype("float64").name,
        domain="ai.onnx.ml",
        **ensemble.attributes(double=True),
    )
    wide = builder.cast(name, TensorProto.DOUBLE)
    return type(block)(builder, wide, block.width, "float64")


def _compared(block: Block, edges: Sequence[Values], side: Side) -> Block:
    operator = "GreaterOrEqual" if side == "right" else "Greater"
    most = max(map(len, edges), default=0)
    padded = np.full((most, len(edges)), np.inf)
    for column, own in enumerate(edges):
        padded[: len(own), column] = own
    total = block.repeated(np.zeros(block.width))
    for row in padded:
        total = total + block.flags(block.test(operator, row))
    return total


def _tree(column: int, edges: Values, side: Side) -> Tree:
    """A balanced tree whose leaves add the position to target `column`."""
    tree = Tree()
    distinct, counts = np.unique(edges, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    mode: Mode = "BRANCH_LT" if side == "right" else "BRANCH_LEQ"

    def build(first: int, last: int) -> int:
        """The node for the positions from `first` to `last` in `below`."""
        if first == last:
            return tree.leaf({column: float(below[first])})
        middle = (first + last) // 2
        low, high = build(first, middle), build(middle + 1, last)
        return tree.split(column, float(distinct[middle]), mode, low, high, missing_true=False)

    build(0, len(distinct))
    return tree.root_first()


@dataclass(frozen=True)
class Lines:
    """Piecewise linear functions, one per column, constant outside of their breakpoints."""

    x: Sequence[Values]
    """Breakpoints, not descending."""
    y: Sequence[Values]

    def at(self, block: Block, side: Side = "right") -> Block:
        """Interpolate as `numpy.interp` does (side `right`); side `left` takes the interval that
        ends at a breakpoint, where several are equal. float64 [N, width]."""
        block = block.as_dtype("float64")
        low = np.asarray([x[0] for x in self.x])
        high = np.asarray([x[-1] for x in self.x])
        clipped = block.apply("Max", low).apply("Min", high)
        position = count_below(clipped, self.x, side)
        last = np.asarray([len(x) - 1 for x in self.x], dtype=np.float64)
        # The start of the interval; at the last breakpoint itself, an interval of no length.
        start = (position - 1.0).apply("Max", 0.0).apply("Min", last)
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in self.x])[:-1]])
        at = (start + offsets.astype(np.float64)).indices()
        slope = block.picked(np.concatenate([_slopes(*xy) for xy in self._columns()]), at)
        anchor = clipped - block.picked(np.concatenate(list(self.x)), at)
        found = slope * anchor + block.picked(np.concatenate(list(self.y)), at)
        found = found.where(block.test("Less", low), np.asarray([y[0] for y in self.y]))
        return found.where(block.test("Greater", high), np.asarray([y[-1] for y in self.y]))

    def _columns(self) -> list[tuple[Values, Values]]:
        return list(zip(self.x, self.y, strict=True))


def _slopes(x: Values, y: Values) -> Any:
    """Of the interval that begins at each breakpoint; 0 at the last one and at equal ones."""
    width = np.diff(x)
    slope = np.divide(np.diff(y), width, out=np.zeros(len(x) - 1), where=width > 0)
    return np.append(slope, 0.0)
