"""Normalizer, PowerTransformer and QuantileTransformer, and the inverses that a
TransformedTargetRegressor needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial.chebyshev import Chebyshev
from scipy import special
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from model_export.convert.steps.functions import expm1, inverse_function, log1p
from model_export.convert.steps.search import Lines
from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_export.convert.block import Block

_EPSILON = float(np.finfo(np.float64).eps)
_TINY = 1e-7
"""QuantileTransformer's distance from the end of its range, below which it answers the end."""


def write_normalizer(block: Block, path: str, step: Any) -> Block:
    """A Normalizer: a row without length stays as it is."""
    del path
    size = block.apply("Abs")
    if step.norm == "l1":
        length = size.reduced("ReduceSum")
    elif step.norm == "max":
        length = size.reduced("ReduceMax")
    else:
        length = (size * size).reduced("ReduceSum").apply("Sqrt")
    return block / length.where(length.test("Less", 10.0 * _EPSILON), 1.0)


def write_weights(block: Block, path: str, step: Any) -> Block:
    """A TfidfTransformer; a row of zeros, such as a text without a known term, stays so."""
    del path
    if step.sublinear_tf:
        zero = block.test("Equal", 0.0)
        block = (block.where(zero, 1.0).apply("Log") + 1.0).where(zero, 0.0)
    if step.use_idf:
        block = block * np.asarray(step.idf_, dtype=np.float64).reshape(1, -1)
    if step.norm is None:
        return block
    length = block.reduced("ReduceL2" if step.norm == "l2" else "ReduceL1")
    return block / length.where(length.test("Equal", 0.0), 1.0)


def write_power(block: Block, path: str, step: Any) -> Block:
    """A PowerTransformer, with or without its scaler."""
    del path
    change = _yeo_johnson if step.method == "yeo-johnson" else _box_cox
    powered = _by_column(block, change, step.lambdas_)
    if not step.standardize:
        return powered
    scaled: Block = (powered - step._scaler.mean_) / step._scaler.scale_  # noqa: SLF001
    return scaled


def _by_column(
    block: Block, change: Callable[[Block, float], Block], values: Iterable[float]
) -> Block:
    parts = [change(block.columns((i,)), float(value)) for i, value in enumerate(values)]
    return block.joined(parts)


def _yeo_johnson(x: Block, power: float) -> Block:
    negative = x.test("Less", 0.0)
    size = log1p(x.apply("Abs"))
    above = size if abs(power) < _EPSILON else expm1(size * power) / power
    other = 2.0 - power
    below = size if abs(other) <= _EPSILON else expm1(size * other) / other
    return above.where(negative, -below)


def _box_cox(x: Block, power: float) -> Block:
    logarithm = x.apply("Log")
    return logarithm if abs(power) < 1e-19 else expm1(logarithm * power) / power


def _yeo_johnson_inverse(x: Block, power: float) -> Block:
    negative = x.test("Less", 0.0)
    size = x.apply("Abs")
    above = expm1(size) if abs(power) < _EPSILON else _root(size, power)
    other = 2.0 - power
    below = expm1(size) if abs(other) <= _EPSILON else _root(size, other)
    return above.where(negative, -below)


def _root(size: Block, power: float) -> Block:
    return (size * power + 1.0).apply("Pow", 1.0 / power) - 1.0


def _box_cox_inverse(x: Block, power: float) -> Block:
    if power == 0.0:
        return x.apply("Exp")
    return expm1(log1p(x * power) / power) + 1.0


def write_quantiles(block: Block, path: str, step: Any) -> Block:
    """A QuantileTransformer: the mean of both interpolations where quantiles are equal."""
    del path
    quantiles = list(step.quantiles_.T)
    lines = Lines(quantiles, [step.references_] * len(quantiles))
    shares = (lines.at(block) + lines.at(block, "left")) * 0.5
    low, high = step.quantiles_[0], step.quantiles_[-1]
    if step.output_distribution == "uniform":
        at_low, at_high = block.test("Equal", low), block.test("Equal", high)
    else:
        at_low = (block - _TINY).test("Less", low)
        at_high = (block + _TINY).test("Greater", high)
    shares = shares.where(at_high, 1.0).where(at_low, 0.0)
    if step.output_distribution == "normal":
        shares = _normal_quantile(shares)
    return shares.where(block.missing(), block)


def _normal_quantile(shares: Block) -> Block:
    """The inverse of the normal distribution function within the transformer's bounds.

    The function of `sqrt(−2 log p)` is smooth, so a polynomial follows it to 1e-13.
    """
    least = _TINY - np.spacing(1)
    tail = shares.apply("Min", 1.0 - shares).apply("Max", least)
    depth = (tail.apply("Log") * -2.0).apply("Sqrt")
    ends = [np.sqrt(-2.0 * np.log(p)) for p in (0.5, least / 2.0)]
    fitted = Chebyshev.interpolate(lambda s: -special.ndtri(np.exp(-s * s / 2.0)), 48, ends)
    size = _polynomial(depth, fitted)
    return size.where(shares.test("Less", 0.5), -size)


def _normal_share(x: Block) -> Block:
    """The normal distribution function; beyond ±6 its ends, which is 1e-9 away."""
    size = x.apply("Abs").apply("Min", 6.0)
    fitted = Chebyshev.interpolate(lambda s: special.erfcx(s / np.sqrt(2.0)) / 2.0, 40, [0.0, 6.0])
    tail = (size * size * -0.5).apply("Exp") * _polynomial(size, fitted)
    return (1.0 - tail).where(x.test("Less", 0.0), tail)


def _polynomial(x: Block, fitted: Chebyshev) -> Block:
    """Clenshaw's recurrence: sums of Chebyshev polynomials without loss of digits."""
    low, high = (float(end) for end in fitted.domain)
    place = (x - (low + high) / 2.0) * (2.0 / (high - low))
    twice = place * 2.0
    later = last = place * 0.0
    for coefficient in fitted.coef[:0:-1]:
        last, later = twice * last - later + float(coefficient), last
    return place * last - later + float(fitted.coef[0])


def inverted(block: Block, path: str, step: Any) -> Block:
    """The inverse of a transformer of targets.

    Raises:
        ExportError: its inverse is not known here.
    """
    if isinstance(step, Pipeline):
        for name, one in reversed(step.steps):
            block = inverted(block, f"{path}/{name}", one)
        return block
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return block
    for kind, inverse in _INVERSES.items():
        if isinstance(step, kind):
            return inverse(block, path, step)
    raise ExportError(
        f"step {path!r}: the inverse of {type(step).__name__} cannot be converted to ONNX: "
        "transform the target with a scaler, a PowerTransformer, a QuantileTransformer or NumPy's "
        "functions"
    )


def _unscaled(block: Block, path: str, step: Any) -> Block:
    del path
    centre = getattr(step, "mean_" if isinstance(step, StandardScaler) else "center_", None)
    centred = not isinstance(step, StandardScaler) or step.with_mean
    block = block if step.scale_ is None else block * step.scale_
    return block + centre if centre is not None and centred else block


def _unpowered(block: Block, path: str, step: Any) -> Block:
    del path
    if step.standardize:
        scaler = step._scaler  # noqa: SLF001  no public name
        block = block * scaler.scale_ + scaler.mean_
    change = _yeo_johnson_inverse if step.method == "yeo-johnson" else _box_cox_inverse
    return _by_column(block, change, step.lambdas_)


def _unquantiled(block: Block, path: str, step: Any) -> Block:
    del path
    normal = step.output_distribution == "normal"
    shares = _normal_share(block) if normal else block
    quantiles = list(step.quantiles_.T)
    values = Lines([step.references_] * len(quantiles), quantiles).at(shares)
    low, high = step.quantiles_[0], step.quantiles_[-1]
    reach = _TINY if normal else 0.0
    values = values.where((shares + reach).test("Greater" if normal else "Equal", 1.0), high)
    return values.where((shares - reach).test("Less" if normal else "Equal", 0.0), low)


_INVERSES: dict[type, Callable[[Block, str, Any], Block]] = {
    FunctionTransformer: inverse_function,
    MaxAbsScaler: _unscaled,
    MinMaxScaler: lambda block, _, step: (block - step.min_) / step.scale_,
    PowerTransformer: _unpowered,
    QuantileTransformer: _unquantiled,
    RobustScaler: _unscaled,
    StandardScaler: _unscaled,
}
