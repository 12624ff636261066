"""Converts a dissected model to the graph of docs/bundle-format.md, which takes one matrix of
packed rows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper
from onnx.checker import ValidationError
from skl2onnx._supported_operators import get_model_alias, sklearn_operator_name_map
from skl2onnx.common._registration import get_converter
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.multiclass import OneVsOneClassifier
from sklearn.svm import SVR, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_export.convert.block import ELEMENT, Block, Dtype, convert_piece
from model_export.convert.boosters.register import is_boosted, register
from model_export.convert.forests import sum_undivided
from model_export.convert.graph import GraphBuilder
from model_export.convert.layout import lay_out
from model_export.convert.onnx_graph import served_graph
from model_export.convert.text import counts, weighted
from model_export.errors import ExportError, sentence
from model_export.registry.onnx_model import OnnxModel
from model_export.study.categories import tables

if TYPE_CHECKING:
    from onnx import ModelProto

    from model_export.study.anatomy import Anatomy, Branch
    from model_export.study.answers import Answers
    from model_export.study.decision import Threshold
    from model_export.study.schema import Schema

TREES = (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_FLOAT32_ONLY = (*TREES, SVR, NuSVR)
"""scikit-learn's trees cast their input to float32 before they compare, so the graph does too;
SVMRegressor has no float64 kernel in ONNX Runtime."""


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
    block = _columns(builder, schema, dtype)
    parts = [_branch(block, branch, schema) for branch in anatomy.branches]
    features = parts[0] if len(parts) == 1 else block.joined(parts)
    for step in anatomy.steps:
        features = features.through(step)
    outputs = _answer(features, anatomy, answers)
    rows = helper.make_tensor_value_info("rows", ELEMENT[dtype], ["N", schema.width])
    try:
        return builder.build([rows], outputs)
    except ValidationError as error:
        raise ExportError(f"the joined graph is not valid ONNX: {sentence(error, 300)}") from error


def _columns(builder: GraphBuilder, schema: Schema, dtype: Dtype) -> Block:
    """The graph's input without the tokens of texts: a text's column holds its first one."""
    block = Block(builder, "rows", schema.width, dtype)
    starts = np.cumsum([0, *(column.slots for column in schema.columns)])[:-1]
    return block.columns(tuple(starts.tolist()))


def _terms(rows: Block, branch: Branch, schema: Schema) -> Block:
    """The features of a branch of text."""
    builder, (i,), (_, vectorizer) = rows.builder, branch.columns, branch.encode[0]
    text = schema.columns[i].text
    start = sum(column.slots for column in schema.columns[:i])
    counted = counts(builder, "rows", start, text, vectorizer)  # type: ignore[arg-type]
    if rows.dtype == "float64":
        counted = builder.cast(counted, ELEMENT[rows.dtype])
    name = weighted(builder, counted, rows.dtype, vectorizer)
    return Block(builder, name, len(vectorizer.vocabulary_), rows.dtype)


def _branch(rows: Block, branch: Branch, schema: Schema) -> Block:
    if branch.vectorizer is not None:
        block = _terms(rows, branch, schema)
    elif branch.encode:
        looked_up = [rows.looked_up(table.column, table.values) for table in tables(branch, schema)]
        block = looked_up[0]
        for other in looked_up[1:]:
            block = block.plus(other)
    else:
        block = rows.columns(branch.columns)
    for step in branch.steps:
        block = block.through(step)
    return block


def _answer(features: Block, anatomy: Anatomy, answers: Answers) -> list[Any]:
    path, estimator = anatomy.final
    features = features.as_dtype(
        "float32" if isinstance(estimator, _FLOAT32_ONLY) else features.dtype
    )
    if answers.task == "regression":
        model = convert_piece(path, estimator, features.width, features.dtype, {})
        if isinstance(estimator, TREES):
            lay_out(model)
        (value,) = features.builder.embed(model, features.name)
        return [_value_output(features.builder, model, value)]
    return _class_outputs(features, path, estimator, answers, anatomy.threshold)


def _value_output(builder: GraphBuilder, model: ModelProto, value: str) -> Any:
    tensor = model.graph.output[0].type.tensor_type
    targets = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else 1
    shape: list[str | int] = ["N", targets] if targets > 1 else ["N"]
    builder.node(
        "Reshape",
        value,
        builder.constant(np.asarray([-1, targets] if targets > 1 else [-1])),
        output="value",
    )
    return helper.make_tensor_value_info("value", tensor.elem_type, shape)


def _class_outputs(
    features: Block, path: str, estimator: Any, answers: Answers, threshold: Threshold | None
) -> list[Any]:
    builder = features.builder
    indexed, is_indexed = _with_index_labels(estimator)
    model = convert_piece(
        path, indexed, features.width, features.dtype, _classifier_options(indexed)
    )
    trees = len(estimator.estimators_) if isinstance(estimator, _FORESTS) else None
    if trees is not None:
        sum_undivided(model, trees)
    if isinstance(estimator, TREES):
        lay_out(model)
    label, scores, *_ = builder.embed(model, features.name)
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
    if "probabilities" in answers.outputs:
        outputs.append(
            _probabilities(builder, model, scores, len(answers.classes), divided_by=trees)
        )
    if threshold is not None:
        _label_by_threshold(features, path, indexed, threshold, _scores_type(model))
    elif trees is not None and len(answers.classes) == 2:
        # The runtime decides between two classes by comparing one of them with 0.5, which is wrong
        # for undivided sums.
        builder.node("ArgMax", scores, axis=1, keepdims=0, output="label")
    else:
        if not is_indexed:
            label = _label_index(builder, label, answers.classes)
        _flat_label(builder, model, label, estimator)
    return outputs


def _flat_label(builder: GraphBuilder, model: ModelProto, label: str, estimator: Any) -> None:
    """Output the label as [N]."""
    # skl2onnx declares the label of a OneVsOneClassifier as [N], but its graph answers [N, 1].
    if len(model.graph.output[0].type.tensor_type.shape.dim) == 1 and not isinstance(
        estimator, OneVsOneClassifier
    ):
        builder.node("Identity", label, output="label")
    else:
        builder.node("Reshape", label, builder.constant(np.asarray([-1])), output="label")


def _label_by_threshold(
    features: Block, path: str, estimator: Any, threshold: Threshold, probabilities: int
) -> None:
    """Compare the positive class's score with the threshold: at or above it is the positive class.

    Args:
        features: the estimator's input.
        path: of the estimator.
        estimator: with labels 0 and 1.
        threshold: the rule.
        probabilities: element type of the tensor `probabilities`.
    """
    builder = features.builder
    if threshold.method == "predict_proba":
        scores, column, element = "probabilities", threshold.positive, probabilities
    else:
        options = _classifier_options(estimator, raw_scores=True)
        if not options.get(id(estimator), {}).get("raw_scores"):
            kind = type(estimator).__name__
            raise ExportError(
                f"step {path!r}: the label depends on the decision function of {kind}, which "
                "skl2onnx cannot convert"
            )
        model = convert_piece(path, estimator, features.width, features.dtype, options)
        scores, column, element = builder.embed(model, features.name)[1], -1, _scores_type(model)
    score = builder.node("Gather", scores, builder.constant(np.asarray(column)), axis=1)
    if threshold.method == "decision_function" and threshold.positive == 0:
        score = builder.node("Neg", score)
    # In the type of the scores, so that a forest's 0.3 reaches a threshold of 0.3: both are rounded
    # in the same way.
    value = np.asarray(threshold.value, dtype=helper.tensor_dtype_to_np_dtype(element))
    reached = builder.node("GreaterOrEqual", score, builder.constant(value))
    if threshold.positive == 0:
        reached = builder.node("Not", reached)
    builder.cast(reached, TensorProto.INT64, output="label")


def _scores_type(model: ModelProto) -> int:
    return int(model.graph.output[1].type.tensor_type.elem_type)


def _probabilities(
    builder: GraphBuilder, model: ModelProto, scores: str, classes: int, *, divided_by: int | None
) -> Any:
    element = _scores_type(model)
    if divided_by is None:
        builder.node("Identity", scores, output="probabilities")
    else:
        builder.node(
            "Div",
            scores,
            builder.constant(np.asarray(divided_by, dtype=np.float32)),
            output="probabilities",
        )
    return helper.make_tensor_value_info("probabilities", element, ["N", classes])


def _classifier_options(estimator: Any, *, raw_scores: bool = False) -> dict[int, Any]:
    """Options for skl2onnx: no ZipMap, which would make a dictionary per row, and decisions instead
    of probabilities if `raw_scores`.

    Some classifiers take only one of the options or none, and skl2onnx refuses unknown options.
    """
    register(estimator)
    allowed = (
        get_converter(get_model_alias(type(estimator))).get_allowed_options()
        if type(estimator) in sklearn_operator_name_map
        else {}
    )
    wanted = {"zipmap": False, **({"raw_scores": True} if raw_scores else {})}
    known = {name: value for name, value in wanted.items() if name in (allowed or {})}
    return {id(estimator): known} if known else {}


def _with_index_labels(estimator: Any) -> tuple[Any, bool]:
    """A shallow copy with the labels 0, 1, …, so that the graph answers indices without making a
    string per row; False and the estimator itself if its labels cannot be replaced."""
    if is_boosted(estimator):
        return estimator, True
    indexed = copy.copy(estimator)
    indices = np.arange(len(estimator.classes_))
    try:
        indexed.classes_ = indices
        if hasattr(indexed, "flatten_transform"):
            # Of VotingClassifier: skl2onnx accepts only False, and predicting does not use it.
            indexed.flatten_transform = False
    except AttributeError:  # `classes_` is computed
        if not hasattr(indexed, "label_binarizer_"):
            return estimator, False
        indexed.label_binarizer_ = copy.copy(indexed.label_binarizer_)  # of OneVsRestClassifier
        indexed.label_binarizer_.classes_ = indices
    return indexed, True


def _label_index(builder: GraphBuilder, label: str, classes: tuple[Any, ...]) -> str:
    indices = list(range(len(classes)))
    if isinstance(classes[0], str):
        return builder.node(
            "LabelEncoder",
            label,
            domain="ai.onnx.ml",
            keys_strings=list(classes),
            values_int64s=indices,
        )
    if not all(float(known).is_integer() for known in classes):
        raise ExportError(
            f"the labels {classes[:3]} are fractions, which the converted model cannot answer: "
            "train with strings"
        )
    return builder.node(
        "LabelEncoder",
        label,
        domain="ai.onnx.ml",
        keys_int64s=[int(c) for c in classes],
        values_int64s=indices,
    )
