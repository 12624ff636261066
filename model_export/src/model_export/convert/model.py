"""Converts a dissected model to the graph of docs/bundle-format.md, which takes one matrix of
packed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper
from onnx.checker import ValidationError

from model_export.convert.block import ELEMENT, Block, Dtype
from model_export.convert.estimators import Reader
from model_export.convert.graph import GraphBuilder
from model_export.errors import ExportError, sentence

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
    builder = GraphBuilder()
    block = Block(builder, "rows", len(schema.columns), dtype)
    reader = Reader(anatomy, block, schema)
    outputs = (
        [_value(reader.regressed())]
        if answers.task == "regression"
        else _class_outputs(reader, answers)
    )
    rows = helper.make_tensor_value_info("rows", ELEMENT[dtype], ["N", len(schema.columns)])
    try:
        return builder.build([rows], outputs)
    except ValidationError as error:
        raise ExportError(f"the joined graph is not valid ONNX: {sentence(error, 300)}") from error


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
            f"step {reader.path!r}: the probabilities of {type(reader.estimator).__name__} cannot "
            "be converted: use another estimator"
        )
    found = answer.probabilities
    builder.node("Identity", found.name, output="probabilities")
    outputs.append(
        helper.make_tensor_value_info(
            "probabilities", ELEMENT[found.dtype], ["N", len(answers.classes)]
        )
    )
    return outputs
