"""Converts a dissected model to the packed graph of docs/bundle-format.md: one matrix in, answers out."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto, helper
from onnx.checker import ValidationError
from skl2onnx._supported_operators import get_model_alias, sklearn_operator_name_map
from skl2onnx.common._registration import get_converter
from sklearn.base import is_classifier, is_regressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.svm import SVR, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_export.block import ELEMENT, Block, Dtype, convert_piece
from model_export.categories import tables
from model_export.errors import ExportError, sentence
from model_export.forests import sum_undivided
from model_export.graph import GraphBuilder
from model_export.layout import lay_out

if TYPE_CHECKING:
    from onnx import ModelProto

    from model_export.anatomy import Anatomy, Branch, Step
    from model_export.schema import Schema

TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreesClassifier, ExtraTreesRegressor,
         GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor)  # fmt: skip
_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_FLOAT32_ONLY = (*TREES, SVR, NuSVR)
"""Trees cast what they get to float32 before they compare, so the graph does; SVMRegressor has no float64 kernel in ONNX Runtime."""


@dataclass(frozen=True)
class Answers:
    """What the model answers."""

    task: Literal["classification", "regression"]
    classes: tuple[Any, ...]
    """Labels in the order of the probability columns, as JSON can hold them; empty for a regressor."""
    outputs: tuple[str, ...]


def describe_answers(estimator: Any) -> Answers:
    """Say what the estimator answers.

    Raises:
        ExportError: neither classifier nor regressor, several targets, or labels that JSON would change.
    """
    if is_regressor(estimator):
        return Answers("regression", (), ("value",))
    if not is_classifier(estimator):
        raise ExportError(f"{type(estimator).__name__} is neither a classifier nor a regressor")
    if isinstance(estimator.classes_, list):
        raise ExportError("the classifier has several targets; only one can be served")
    classes = tuple(np.asarray(estimator.classes_).tolist())
    if not all(isinstance(label, str | int | bool) for label in classes):
        raise ExportError(f"labels must be strings, integers or booleans, not {classes[:3]}: train with such labels")
    outputs = ("label", "probabilities") if hasattr(estimator, "predict_proba") else ("label",)
    return Answers("classification", classes, outputs)


def convert(anatomy: Anatomy, schema: Schema, answers: Answers, dtype: Dtype) -> ModelProto:
    """Convert the model to one graph.

    Args:
        anatomy: from `dissect`.
        schema: with categories, from `find_categories`.
        answers: from `describe_answers`.
        dtype: of the graph's `rows` input, and of the arithmetic before the final estimator.

    Raises:
        ExportError: names the step that has no ONNX form.
    """
    builder = GraphBuilder()
    block = Block(builder, "rows", len(schema.columns), dtype)
    parts = [_branch(block, branch, schema) for branch in anatomy.branches]
    features = parts[0] if len(parts) == 1 else block.joined(parts)
    for step in anatomy.steps:
        features = features.through(step)
    outputs = _answer(features, anatomy.final, answers)
    rows = helper.make_tensor_value_info("rows", ELEMENT[dtype], ["N", len(schema.columns)])
    try:
        return builder.build([rows], outputs)
    except ValidationError as error:
        raise ExportError(f"the joined graph is not valid ONNX: {sentence(error, 300)}") from error


def _branch(rows: Block, branch: Branch, schema: Schema) -> Block:
    if branch.encode:
        looked_up = [rows.looked_up(table.column, table.values) for table in tables(branch, schema)]
        block = looked_up[0]
        for other in looked_up[1:]:
            block = block.plus(other)
    else:
        block = rows.columns(branch.columns)
    for step in branch.steps:
        block = block.through(step)
    return block


def _answer(features: Block, final: Step, answers: Answers) -> list[Any]:
    path, estimator = final
    features = features.as_dtype("float32" if isinstance(estimator, _FLOAT32_ONLY) else features.dtype)
    if answers.task == "regression":
        model = convert_piece(path, estimator, features.width, features.dtype, {})
        if isinstance(estimator, TREES):
            lay_out(model)
        (value,) = features.builder.embed(model, features.name)
        return [_value_output(features.builder, model, value)]
    return _class_outputs(features, path, estimator, answers)


def _value_output(builder: GraphBuilder, model: ModelProto, value: str) -> Any:
    tensor = model.graph.output[0].type.tensor_type
    targets = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else 1
    shape: list[str | int] = ["N", targets] if targets > 1 else ["N"]
    builder.node("Reshape", value, builder.constant(np.asarray([-1, targets] if targets > 1 else [-1])), output="value")
    return helper.make_tensor_value_info("value", tensor.elem_type, shape)


def _class_outputs(features: Block, path: str, estimator: Any, answers: Answers) -> list[Any]:
    builder = features.builder
    indexed, is_indexed = _with_index_labels(estimator)
    model = convert_piece(path, indexed, features.width, features.dtype, _classifier_options(indexed))
    is_forest = isinstance(estimator, _FORESTS)
    if is_forest:
        sum_undivided(model, len(estimator.estimators_))
    if isinstance(estimator, TREES):
        lay_out(model)
    label, scores, *_ = builder.embed(model, features.name)
    if is_forest and len(answers.classes) == 2:
        # The runtime decides between two classes by comparing one of them with 0.5, which undivided sums are not made for.
        label = builder.node("ArgMax", scores, axis=1, keepdims=0)
    elif not is_indexed:
        label = _label_index(builder, label, answers.classes)
    if len(model.graph.output[0].type.tensor_type.shape.dim) == 1:
        builder.node("Identity", label, output="label")
    else:
        builder.node("Reshape", label, builder.constant(np.asarray([-1])), output="label")
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
    if "probabilities" in answers.outputs:
        trees = len(estimator.estimators_) if is_forest else None
        outputs.append(_probabilities(builder, model, scores, len(answers.classes), divided_by=trees))
    return outputs


def _probabilities(builder: GraphBuilder, model: ModelProto, scores: str, classes: int, *, divided_by: int | None) -> Any:
    element = model.graph.output[1].type.tensor_type.elem_type
    if divided_by is None:
        builder.node("Identity", scores, output="probabilities")
    else:
        builder.node("Div", scores, builder.constant(np.asarray(divided_by, dtype=np.float32)), output="probabilities")
    return helper.make_tensor_value_info("probabilities", element, ["N", classes])


def _classifier_options(estimator: Any) -> dict[int, Any]:
    """No ZipMap, which would make a dictionary per row; a few classifiers never have one, and skl2onnx refuses the option for them."""
    allowed = get_converter(get_model_alias(type(estimator))).get_allowed_options() if type(estimator) in sklearn_operator_name_map else {}
    return {id(estimator): {"zipmap": False}} if "zipmap" in (allowed or {}) else {}


def _with_index_labels(estimator: Any) -> tuple[Any, bool]:
    """A shallow copy whose labels are 0, 1, …: the graph then answers indices itself, without a string per row."""
    indexed = copy.copy(estimator)
    try:
        indexed.classes_ = np.arange(len(estimator.classes_))
        if hasattr(indexed, "flatten_transform"):  # of VotingClassifier: skl2onnx knows False only, and predicting does not use it
            indexed.flatten_transform = False
    except AttributeError:  # `classes_` is computed, as in OneVsRestClassifier
        return estimator, False
    return indexed, True


def _label_index(builder: GraphBuilder, label: str, classes: tuple[Any, ...]) -> str:
    indices = list(range(len(classes)))
    if isinstance(classes[0], str):
        return builder.node("LabelEncoder", label, domain="ai.onnx.ml", keys_strings=list(classes), values_int64s=indices)
    return builder.node("LabelEncoder", label, domain="ai.onnx.ml", keys_int64s=[int(c) for c in classes], values_int64s=indices)
