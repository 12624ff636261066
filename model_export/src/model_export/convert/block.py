"""A matrix of numbers inside the graph, and the operations that convert fitted steps on it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from skl2onnx.convert import convert_sklearn

from model_export.convert.boosters.register import register_all
from model_export.convert.graph import OPSET, GraphBuilder
from model_export.convert.no_conversion import why_not
from model_export.errors import ExportError, plain

if TYPE_CHECKING:
    from onnx import ModelProto

Dtype = Literal["float32", "float64"]
Operand = Union["Block", float, np.ndarray[Any, Any]]
ELEMENT = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


@dataclass(frozen=True)
class Block:
    """A matrix of numbers inside the graph, [N, width]."""

    builder: GraphBuilder
    name: str
    width: int
    dtype: Dtype

    def apply(self, op: str, *others: Operand, **attributes: Any) -> Block:
        """An elementwise operator on this block and others, of [N, 1], [N, width] or constants."""
        operands = [self._operand(other) for other in others]
        name = self.builder.node(op, self.name, *(o.name for o in operands), **attributes)
        return self._same(name, max(self.width, *(o.width for o in operands), 0))

    def __add__(self, other: Operand) -> Block:
        return self.apply("Add", other)

    def __sub__(self, other: Operand) -> Block:
        return self.apply("Sub", other)

    def __mul__(self, other: Operand) -> Block:
        return self.apply("Mul", other)

    def __truediv__(self, other: Operand) -> Block:
        return self.apply("Div", other)

    def __rsub__(self, other: float) -> Block:
        return self._operand(other).apply("Sub", self)

    def __neg__(self) -> Block:
        return self.apply("Neg")

    def times(self, matrix: np.ndarray[Any, Any]) -> Block:
        """The matrix product with a constant [width, W]."""
        name = self.builder.node("MatMul", self.name, self._operand(matrix).name)
        return self._same(name, matrix.shape[1])

    def test(self, op: str, other: Operand) -> str:
        """bool[N, width]: Less, Equal, GreaterOrEqual, …"""
        return self.builder.node(op, self.name, self._operand(other).name)

    def missing(self) -> str:
        """bool[N, width]: true for NaN."""
        return self.builder.node("IsNaN", self.name)

    def where(self, mask: str, value: Operand) -> Block:
        """The block with another value where the mask is true."""
        other = self._operand(value)
        name = self.builder.node("Where", mask, other.name, self.name)
        return self._same(name, max(self.width, other.width))

    def flags(self, mask: str, width: int | None = None) -> Block:
        """A mask of this block's shape, or of another width, as zeros and ones."""
        return self._same(self.builder.cast(mask, ELEMENT[self.dtype]), width or self.width)

    def reduced(self, op: str) -> Block:
        """[N, 1]: ReduceSum, ReduceMax, … of each row."""
        axes = [self.builder.constant(np.asarray([1], dtype=np.int64))]
        return self._same(self.builder.node(op, self.name, *axes, keepdims=1), 1)

    def best(self) -> str:
        """int64[N]: the first column with the largest value."""
        return self.builder.node("ArgMax", self.name, axis=1, keepdims=0)

    def indices(self) -> str:
        """int64[N, width]: whole numbers."""
        return self.builder.cast(self.name, TensorProto.INT64)

    def picked(self, table: np.ndarray[Any, Any], indices: str) -> Block:
        """[N, width]: entries of a vector."""
        return self._same(
            self.builder.node("Gather", self._operand(table).name, indices), self.width
        )

    def rows_of(self, table: np.ndarray[Any, Any], index: str) -> Block:
        """[N, W]: rows of a table [n, W].

        Args:
            table: constant.
            index: int64[N, 1].
        """
        rows = self.builder.node("Gather", self._operand(table).name, index, axis=0)
        shape = self.builder.constant(np.asarray([-1, table.shape[1]], dtype=np.int64))
        return self._same(self.builder.node("Reshape", rows, shape), table.shape[1])

    def smallest(self, count: int) -> tuple[Block, str]:
        """[N, count]: the smallest values of each row, and their columns as int64."""
        opposite = -self
        size = self.builder.constant(np.asarray([count], dtype=np.int64))
        found, at = self.builder.nodes("TopK", opposite.name, size, outputs=2, axis=1)
        return -self._same(found, count), at

    def repeated(self, values: np.ndarray[Any, Any]) -> Block:
        """[N, W]: the same row of constants for each of this block's rows."""
        zero = self.columns((0,)) * 0.0
        # A missing value times 0 is NaN.
        return zero.where(zero.missing(), 0.0) + np.asarray(values).reshape(1, -1)

    def columns(self, positions: tuple[int, ...]) -> Block:
        """Some of the columns; the block itself if these are all of them in order."""
        if positions == tuple(range(self.width)):
            return self
        chosen = self.builder.constant(np.asarray(positions, dtype=np.int64))
        return self._same(self.builder.node("Gather", self.name, chosen, axis=1), len(positions))

    def looked_up(self, column: int, values: np.ndarray[Any, Any]) -> Block:
        """The rows of a table, with one column's values as the indices."""
        position = self.builder.constant(np.asarray(column, dtype=np.int64))
        index = self.builder.cast(
            self.builder.node("Gather", self.name, position, axis=1), TensorProto.INT64
        )
        table = self.builder.constant(values.astype(self.dtype))
        return self._same(self.builder.node("Gather", table, index, axis=0), values.shape[1])

    def joined(self, parts: list[Block]) -> Block:
        """Blocks side by side."""
        return self._same(
            self.builder.node("Concat", *(p.name for p in parts), axis=1),
            sum(p.width for p in parts),
        )

    def as_dtype(self, dtype: Dtype) -> Block:
        """The block in another precision."""
        if dtype == self.dtype:
            return self
        return Block(self.builder, self.builder.cast(self.name, ELEMENT[dtype]), self.width, dtype)

    def _operand(self, value: Operand) -> Block:
        if isinstance(value, Block):
            return value.as_dtype(self.dtype)
        array = np.asarray(value, dtype=self.dtype)
        return self._same(self.builder.constant(array), array.shape[-1] if array.ndim else 1)

    def _same(self, name: str, width: int) -> Block:
        return Block(self.builder, name, width, self.dtype)


def convert_piece(
    path: str, step: Any, width: int, dtype: Dtype, options: dict[int, Any]
) -> ModelProto:
    """One fitted step as a graph from `rows` to its outputs.

    Raises:
        ExportError: it cannot be converted to standard ONNX operators.
    """
    if why_not(step) is not None:
        raise _without_conversion(path, step)
    register_all(step)
    tensor = (FloatTensorType if dtype == "float32" else DoubleTensorType)([None, width])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # skl2onnx's deprecations do not concern this model
            model: ModelProto = convert_sklearn(
                step, initial_types=[("rows", tensor)], target_opset=OPSET, options=options
            )
    except ExportError as error:
        raise ExportError(f"step {path!r} ({type(step).__name__}): {error.reason}") from error
    except (MissingConverter, MissingShapeCalculator) as error:
        raise _without_conversion(path, step) from error
    except Exception as error:  # skl2onnx raises everything, from its own types to AttributeError
        raise ExportError(
            f"step {path!r} ({type(step).__name__}) cannot be converted to ONNX: the converter, "
            f"skl2onnx {version('skl2onnx')}, fails on it{plain(error, 200)}; change its settings, "
            f"or {_instead(step)}"
        ) from error
    if foreign := sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in OPSET}
    ):
        raise ExportError(
            f"step {path!r} ({type(step).__name__}) cannot be converted to ONNX: its conversion "
            f"needs an operator that the standard does not have ({', '.join(foreign)}); change "
            f"its settings, or {_instead(step)}"
        )
    return model


def _without_conversion(path: str, step: Any) -> ExportError:
    why, instead = why_not(step) or (
        "no conversion of this class, or of one inside it, is known",
        _instead(step),
    )
    if hasattr(step, "predict") and _LOG_IT not in instead:
        instead = f"{instead}, or {_LOG_IT}"
    return ExportError(
        f"step {path!r} ({type(step).__name__}) cannot be converted to ONNX: {why}; {instead}"
    )


_LOG_IT = "convert the model to ONNX yourself and log it with mlflow.onnx.log_model"


def _instead(step: Any) -> str:
    """What to do if a step or an estimator has no conversion."""
    if hasattr(step, "predict"):
        return f"use another estimator of scikit-learn, or {_LOG_IT}"
    return "use another step of scikit-learn, or do its work before the model is called"
