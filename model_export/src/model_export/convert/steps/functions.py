"""FunctionTransformer: NumPy's and SciPy's functions of single numbers, as ONNX operators."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from model_export.convert.block import Block
from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[Block], Block]


_LARGEST = float(np.finfo(np.float64).max)


def log1p(x: Block) -> Block:
    """log(1 + x), exact where x is small."""
    above = x + 1.0
    exact = above.apply("Log") * x / (above - 1.0)
    return exact.where(above.test("Equal", 1.0), x)


def expm1(x: Block) -> Block:
    """exp(x) − 1, exact where x is small."""
    power = x.apply("Exp")
    less = power - 1.0
    exact = less * x / power.apply("Log")
    exact = exact.where(power.test("Equal", 1.0), x)
    exact = exact.where(less.test("Equal", -1.0), -1.0)
    return exact.where(x.test("Greater", 1.0), less)


def expit(x: Block) -> Block:
    """1 / (1 + exp(−x)); ONNX Runtime's own Sigmoid in float64 is less exact."""
    return ((-x).apply("Exp") + 1.0).apply("Reciprocal")


def _sinh(x: Block) -> Block:
    power = expm1(x.apply("Abs"))
    return (power + power / (power + 1.0)) * 0.5 * x.apply("Sign")


def _cosh(x: Block) -> Block:
    return (x.apply("Exp") + (-x).apply("Exp")) * 0.5


def _arcsinh(x: Block) -> Block:
    size = x.apply("Abs")
    square = size * size
    return log1p(size + square / ((square + 1.0).apply("Sqrt") + 1.0)) * x.apply("Sign")


def _operator(name: str) -> Function:
    return lambda x: x.apply(name)


def _scaled(factor: float) -> Function:
    return lambda x: x * factor


_FUNCTIONS: dict[str, Function] = {
    "absolute": _operator("Abs"),
    "arcsinh": _arcsinh,
    "cbrt": lambda x: x.apply("Abs").apply("Pow", 1.0 / 3.0) * x.apply("Sign"),
    "ceil": _operator("Ceil"),
    "cos": _operator("Cos"),
    "cosh": _cosh,
    "deg2rad": _scaled(math.pi / 180.0),
    "degrees": _scaled(180.0 / math.pi),
    "exp": _operator("Exp"),
    "exp2": lambda x: (x * math.log(2.0)).apply("Exp"),
    "expit": expit,
    "expm1": expm1,
    "fabs": _operator("Abs"),
    "floor": _operator("Floor"),
    "log": _operator("Log"),
    "log10": lambda x: x.apply("Log") / math.log(10.0),
    "log1p": log1p,
    "log2": lambda x: x.apply("Log") / math.log(2.0),
    "logit": lambda x: (x / (1.0 - x)).apply("Log"),
    "nan_to_num": lambda x: (
        x.where(x.missing(), 0.0).apply("Max", -_LARGEST).apply("Min", _LARGEST)
    ),
    "negative": _operator("Neg"),
    "positive": _operator("Identity"),
    "rad2deg": _scaled(180.0 / math.pi),
    "radians": _scaled(math.pi / 180.0),
    "reciprocal": _operator("Reciprocal"),
    "rint": _operator("Round"),
    "sign": _operator("Sign"),
    "sin": _operator("Sin"),
    "sinh": _sinh,
    "sqrt": _operator("Sqrt"),
    "square": lambda x: x * x,
    "tan": lambda x: x.apply("Sin") / x.apply("Cos"),
    "tanh": _operator("Tanh"),
    "trunc": lambda x: x.apply("Abs").apply("Floor") * x.apply("Sign"),
}
"""By NumPy's or SciPy's name."""


def function_of(
    path: str,
    function: Any,
    given: dict[str, Any] | None,
    otherwise: str = "compute the column before the model is called",
) -> Function:
    """The conversion of a function of single numbers.

    Args:
        path: of the step, for the error.
        function: of NumPy or SciPy.
        given: further arguments of each call.
        otherwise: what to do if no function of NumPy is wanted, for the error.

    Raises:
        ExportError: it is none that is known here.
    """
    if isinstance(function, functools.partial) and not function.args:
        function, given = function.func, {**function.keywords, **(given or {})}
    name = getattr(function, "__name__", "")
    known = name in _FUNCTIONS and any(
        getattr(module, name, None) is function for module in (np, special)
    )
    if known and not given:
        return _FUNCTIONS[name]
    if function is np.clip and set(given or {}) <= {"a_min", "a_max", "min", "max"}:
        return _clipping(given or {})
    shown = name if name and name != "<lambda>" else "a function of your own"
    also = f" with the arguments {sorted(given)}" if given else ""
    raise ExportError(
        f"step {path!r} (FunctionTransformer): {shown}{also} cannot be converted to ONNX: use "
        f"one of NumPy's {', '.join(sorted(_FUNCTIONS))}, or clip, or {otherwise}"
    )


def _clipping(given: dict[str, Any]) -> Function:
    least = given.get("a_min", given.get("min"))
    most = given.get("a_max", given.get("max"))

    def clip(x: Block) -> Block:
        x = x if least is None else x.apply("Max", np.asarray(least, dtype=np.float64))
        return x if most is None else x.apply("Min", np.asarray(most, dtype=np.float64))

    return clip


def write_function(block: Block, path: str, step: Any) -> Block:
    """A FunctionTransformer."""
    if step.func is None:
        return block
    return function_of(path, step.func, step.kw_args)(block)


def inverse_function(block: Block, path: str, step: Any) -> Block:
    """The inverse of a FunctionTransformer of targets."""
    if step.inverse_func is None:
        return block
    otherwise = "train on the transformed target, and invert the answer after the model is called"
    return function_of(path, step.inverse_func, step.inv_kw_args, otherwise)(block)
