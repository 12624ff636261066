"""Converts a dissected model to the graph of docs/bundle-format.md, which takes one matrix of
packed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper
from onnx.checker import ValidationError

from model_export.convert.block import ELEMENT, Block, Dtype
from model_export.convert.estimators import Reader
from model_export.convert.graph import GraphBuilder, Mark
from model_export.convert.onnx_graph import served_graph
from model_export.errors import ExportError, plain
from model_export.registry.onnx_model import OnnxModel
from model_export.study.nulls import reach_the_estimator

if TYPE_CHECKING:
    from onnx import ModelProto

    from model_export.study.anatomy import Anatomy
    from model_export.study.answers import Answers
    from model_export.study.schema import Schema


def convert_model(anatomy: Anatomy, schema: Schema, answers: Answers, dtype: Dtype) -> ModelProto:
    """Convert the model to one graph.

    Args:
        anatomy: from `dissect`.
        schema: with categories, from `find_categories`.
        answers: from `describe_answers`.
        dtype: of the graph's `rows` input, and of the arithmetic before the final estimator.

    Raises:
        ExportError: names the step that cannot be converted to ONNX.
    """
    if isinstance(anatomy.final[1], OnnxModel):
        return served_graph(anatomy.final[1], answers, dtype)
    builder = GraphBuilder()
    outputs = _answered(builder, anatomy, schema, answers, dtype)
    return _built(builder, schema, dtype, outputs)


def traced_model(
    anatomy: Anatomy, schema: Schema, answers: Answers, dtype: Dtype
) -> tuple[ModelProto, list[Mark]]:
    """Convert the model as `convert_model` does, with other outputs: what every step and every
    estimator reads and answers, as float64. For the search for the step that differs.

    Returns:
        the graph with the outputs `read_0`, `given_0`, `read_1`, …, and what they are; a mark that
        reads a text has no `read`.
    """
    builder = GraphBuilder()
    _answered(builder, anatomy, schema, answers, dtype)
    outputs = []
    for number, mark in enumerate(builder.marks):
        for kind, tensor in (("read", mark.read), ("given", mark.given)):
            if tensor:
                name = f"{kind}_{number}"
                builder.node("Flatten", builder.cast(tensor, TensorProto.DOUBLE), output=name)
                shape = ["N", f"width_of_{name}"]
                outputs.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape))
    return _built(builder, schema, dtype, outputs), builder.marks


def _answered(
    builder: GraphBuilder, anatomy: Anatomy, schema: Schema, answers: Answers, dtype: Dtype
) -> list[Any]:
    builder.nulls = reach_the_estimator(schema, anatomy)
    reader = Reader(anatomy, _columns(builder, schema, dtype), schema)
    if answers.task == "regression":
        return [_value(reader.regressed())]
    return _class_outputs(reader, answers)


def _built(builder: GraphBuilder, schema: Schema, dtype: Dtype, outputs: list[Any]) -> ModelProto:
    rows = helper.make_tensor_value_info("rows", ELEMENT[dtype], ["N", schema.width])
    try:
        return builder.build([rows], outputs)
    except ValidationError as error:
        raise ExportError(
            f"the joined graph is not valid ONNX{plain(error, 300)}: use other settings of the "
            "steps, or another estimator"
        ) from error


def _columns(builder: GraphBuilder, schema: Schema, dtype: Dtype) -> Block:
    """The graph's input without the tokens of texts: a text's column holds its first one."""
    block = Block(builder, "rows", schema.width, dtype)
    if schema.width == len(schema.columns):
        return block
    starts = np.cumsum([0, *(column.slots for column in schema.columns)])[:-1]
    return block.columns(tuple(starts.tolist()))


def _value(value: Block) -> Any:
    targets = value.width
    shape: list[str | int] = ["N", targets] if targets > 1 else ["N"]
    flat = np.asarray([-1, targets] if targets > 1 else [-1], dtype=np.int64)
    value.builder.node("Reshape", value.name, value.builder.constant(flat), output="value")
    return helper.make_tensor_value_info("value", ELEMENT[value.dtype], shape)


def _class_outputs(reader: Reader, answers: Answers) -> list[Any]:
    answer = reader.classified()
    builder = reader.block.builder
    builder.node("Identity", answer.label, output="label")
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
    if "probabilities" not in answers.outputs:
        return outputs
    if answer.probabilities is None:
        raise ExportError(
            f"step {reader.path!r} ({type(reader.estimator).__name__}) gives probabilities that "
            "cannot be converted to ONNX: use another estimator"
        )
    found = answer.probabilities
    builder.node("Identity", found.name, output="probabilities")
    outputs.append(
        helper.make_tensor_value_info(
            "probabilities", ELEMENT[found.dtype], ["N", len(answers.classes)]
        )
    )
    return outputs
