"""A matrix of numbers inside the graph, and the operations that convert fitted steps on it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.convert import convert_sklearn
from sklearn.impute import SimpleImputer

from model_export.convert.boosters.register import register_all
from model_export.convert.graph import OPSET, GraphBuilder
from model_export.errors import ExportError, sentence

if TYPE_CHECKING:
    from onnx import ModelProto

    from model_export.study.anatomy import Step

Dtype = Literal["float32", "float64"]
ELEMENT = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


@dataclass(frozen=True)
class Block:
    """A matrix of numbers inside the graph, [N, width]."""

    builder: GraphBuilder
    name: str
    width: int
    dtype: Dtype

    def through(self, step: Step) -> Block:
        """The block after one fitted transformer."""
        path, transformer = step
        if self.dtype == "float64" and _fills_nan(transformer):
            return self._filled(transformer.statistics_)
        model = convert_piece(path, transformer, self.width, self.dtype, {})
        (name,) = self.builder.embed(model, self.name)
        return Block(self.builder, name, _width_after(path, transformer, self.width), self.dtype)

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

    def plus(self, other: Block) -> Block:
        """The sum of two blocks of one shape."""
        return self._same(self.builder.node("Add", self.name, other.name), self.width)

    def as_dtype(self, dtype: Dtype) -> Block:
        """The block in another precision."""
        if dtype == self.dtype:
            return self
        return Block(self.builder, self.builder.cast(self.name, ELEMENT[dtype]), self.width, dtype)

    def _filled(self, statistics: np.ndarray[Any, Any]) -> Block:
        fill = self.builder.constant(np.asarray(statistics, dtype=self.dtype))
        return self._same(
            self.builder.node("Where", self.builder.node("IsNaN", self.name), fill, self.name),
            self.width,
        )

    def _same(self, name: str, width: int) -> Block:
        return Block(self.builder, name, width, self.dtype)


def _fills_nan(transformer: Any) -> bool:
    """True for an imputer that only replaces NaN. ONNX Runtime's Imputer has no float64 kernel, so
    the graph uses IsNaN and Where instead."""
    if not isinstance(transformer, SimpleImputer) or transformer.add_indicator:
        return False
    return (
        bool(np.isnan(transformer.missing_values)) and not np.isnan(transformer.statistics_).any()
    )


def convert_piece(
    path: str, step: Any, width: int, dtype: Dtype, options: dict[int, Any]
) -> ModelProto:
    """One fitted step as a graph from `rows` to its outputs.

    Raises:
        ExportError: it cannot be converted to standard ONNX operators.
    """
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
    except Exception as error:  # skl2onnx raises everything, from its own types to AttributeError
        raise ExportError(
            f"step {path!r} ({type(step).__name__}) cannot be converted to ONNX: "
            f"{sentence(error, 200)}"
        ) from error
    if foreign := sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in OPSET}
    ):
        raise ExportError(
            f"step {path!r} ({type(step).__name__}) needs {', '.join(foreign)}: no operator of "
            "ONNX itself"
        )
    return model


def _width_after(path: str, transformer: Any, width: int) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing column names: only the width matters
            return int(transformer.transform(np.zeros((1, width))).shape[1])
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ExportError(
            f"step {path!r} ({type(transformer).__name__}) does not turn a matrix into a matrix: "
            f"{sentence(error, 200)}"
        ) from error
