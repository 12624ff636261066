"""Binarizer, KBinsDiscretizer and SplineTransformer: each finds the interval in which a number
lies."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.convert.steps.search import count_below

if TYPE_CHECKING:
    from model_export.convert.block import Block
    from model_export.study.arrays import Values


def write_binarizer(block: Block, path: str, step: Any) -> Block:
    """A Binarizer: 1 above the threshold. At the threshold skl2onnx's float64 graph answers 1."""
    del path
    return block.flags(block.test("Greater", float(step.threshold)))


def write_bins(block: Block, path: str, step: Any) -> Block:
    """A KBinsDiscretizer: the number of the bin, or a column per bin."""
    del path
    if step.dtype is not None and np.dtype(step.dtype) == np.float32:
        block = block.as_dtype("float32").as_dtype("float64")
    inner = [np.asarray(edges[1:-1], dtype=np.float64) for edges in step.bin_edges_]
    numbers = count_below(block, inner, "right")
    if step.encode == "ordinal":
        return numbers
    bins = [(column, bin_) for column, n in enumerate(step.n_bins_) for bin_ in range(int(n))]
    spread = numbers.columns(tuple(column for column, _ in bins))
    return spread.flags(spread.test("Equal", np.asarray([float(bin_) for _, bin_ in bins])))


@dataclass(frozen=True)
class _Spline:
    """The splines of one column as polynomials, one per interval, in the distance from its
    start."""

    starts: Values
    """float64[I]: where the intervals begin."""
    coefficients: Values
    """float64[degree + 1, I, S]."""


def _pieces(spline: Any) -> _Spline:
    first, last = spline.k, len(spline.t) - spline.k - 1
    knots = np.unique(spline.t[first : last + 1])
    starts = knots[:-1]
    found = [spline(starts, nu=power) / factorial(power) for power in range(spline.k + 1)]
    return _Spline(starts, np.asarray(found))


def write_splines(block: Block, path: str, step: Any) -> Block:
    """A SplineTransformer."""
    del path
    parts, degree = [], int(step.degree)
    for column, spline in enumerate(step.bsplines_):
        parts.append(_splines(block.columns((column,)), spline, step, degree))
        if step.extrapolation == "linear" and degree <= 1:
            # scikit-learn raises its own variable with each column, and begins the next column's
            # straight line at that knot.
            degree += 1
    return block.joined(parts)


def _splines(x: Block, spline: Any, step: Any, degree: int) -> Block:
    pieces = _pieces(spline)
    low, high = float(spline.t[degree]), float(spline.t[-degree - 1])
    inside = x
    if step.extrapolation == "periodic":
        turns = ((x - low) / (high - low)).apply("Floor")
        inside = x - turns * (high - low)
    elif step.extrapolation in ("constant", "linear"):
        inside = x.apply("Max", low).apply("Min", high)
    found = _evaluated(inside, pieces)
    if step.extrapolation == "linear":
        lines = degree + 1 if degree <= 1 else degree
        before, after = (np.asarray(spline(end, nu=1)).copy() for end in (low, high))
        before[lines:] = 0.0
        after[: len(after) - lines] = 0.0
        numbers = np.arange(found.width)
        below, beyond = x.test("Less", low), x.test("Greater", high)
        found = found.where(below, found * (numbers < lines).astype(np.float64))
        found = found.where(beyond, found * (numbers >= found.width - lines).astype(np.float64))
        found = found + (x - low).apply("Min", 0.0) * before.reshape(1, -1)
        found = found + (x - high).apply("Max", 0.0) * after.reshape(1, -1)
    if getattr(step, "handle_missing", "error") == "zeros":
        found = found.where(x.missing(), 0.0)
    return found if step.include_bias else found.columns(tuple(range(found.width - 1)))


def _evaluated(x: Block, pieces: _Spline) -> Block:
    """Horner's scheme with the coefficients of each row's interval."""
    position = count_below(x, [pieces.starts[1:]], "right")
    at = position.indices()
    distance = x - position.picked(pieces.starts, at)
    total = None
    for coefficients in pieces.coefficients[::-1]:
        chosen = distance.rows_of(coefficients, at)
        total = chosen if total is None else total * distance + chosen
    assert total is not None  # noqa: S101  a spline has at least a constant
    return total
