"""Converts a single fitted estimator, which reads a block of numbers and combines no others."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from onnx import TensorProto, helper
from skl2onnx._supported_operators import get_model_alias, sklearn_operator_name_map
from skl2onnx.common._registration import get_converter
from sklearn.cross_decomposition._pls import _PLS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearClassifierMixin, LinearModel
from sklearn.linear_model._ridge import _RidgeClassifierMixin
from sklearn.svm import SVR, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_export.convert import neighbours
from model_export.convert.block import Block, Dtype, convert_piece
from model_export.convert.boosters.register import is_boosted, register
from model_export.convert.forests import exact as exact_trees
from model_export.convert.forests import send_nulls, sum_undivided
from model_export.convert.layout import lay_out
from model_export.convert.steps.functions import expit
from model_export.convert.steps.kernels import weighted_kernel
from model_export.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto

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
_VOTING_TREES = (DecisionTreeClassifier, *_FORESTS)
_AVERAGED_TREES = (DecisionTreeRegressor, RandomForestRegressor, ExtraTreesRegressor)
_FLOAT32_ONLY = (*TREES, SVR, NuSVR)
"""scikit-learn's trees cast their input to float32 before they compare, so the graph does too;
SVMRegressor has no float64 kernel in ONNX Runtime, so in float64 it is not used."""
_METHODS = ("predict", "predict_proba", "decision_function", "transform", "_predict_proba_lr")
"""A subclass that overrides none of these answers as its base class does."""


@dataclass(frozen=True)
class Classified:
    """A classifier's answers inside the graph."""

    label: str
    """int64[N]: the index of the class."""
    probabilities: Block | None
    """[N, C]; None if it has none."""


def known_class(estimator: Any) -> Any:
    """A subclass that changes training only (such as imbalanced-learn's BalancedRandomForest) as
    an estimator of its base class; any other estimator as it is."""
    kind = type(estimator)
    if kind in sklearn_operator_name_map or is_boosted(estimator):
        return estimator
    for base in kind.__mro__[1:]:
        if base in sklearn_operator_name_map:
            if any(_static(kind, name) is not _static(base, name) for name in _METHODS):
                return estimator
            same = copy.copy(estimator)
            same.__class__ = base
            return same
    return estimator


def _static(kind: type, name: str) -> Any:
    return inspect.getattr_static(kind, name, None)


def classify(features: Block, path: str, estimator: Any, *, exact: bool) -> Classified:
    """A classifier's label and probabilities.

    Args:
        features: that it reads.
        path: of the estimator.
        estimator: fitted.
        exact: compute linear models, trees and forests in float64, because another estimator goes
            on with the answer.
    """
    estimator = known_class(estimator)
    if (exact or features.dtype == "float64") and _is_linear(estimator):
        linear = _classify_linear(features, estimator)
        if linear is not None:
            return linear
    if neighbours.is_known(estimator):
        found = neighbours.shares(features, estimator)
        return Classified(found.best(), found)
    if exact and isinstance(estimator, _VOTING_TREES):
        found = exact_trees(features, estimator)
        return Classified(found.best(), found)
    features = _in_own_precision(features, estimator)
    indexed, is_indexed = _with_index_labels(estimator)
    model = convert_piece(
        path, indexed, features.width, features.dtype, classifier_options(indexed)
    )
    trees = len(estimator.estimators_) if isinstance(estimator, _FORESTS) else None
    if trees is not None:
        sum_undivided(model, trees)
    if isinstance(estimator, TREES):
        _prepare(features, model, estimator)
    label, *scores = features.builder.embed(model, features.name)
    given = _scores(features, model, scores, estimator)
    if trees is not None and given is not None:
        if len(estimator.classes_) == 2:
            # The runtime decides between two classes by comparing one of them with 0.5, which is
            # wrong for undivided sums.
            label = given.best()
        given = given / float(trees)
    elif not is_indexed:
        label = _label_index(features, label, estimator.classes_)
    return Classified(flat(features, label), given)


def _prepare(features: Block, model: ModelProto, estimator: Any) -> None:
    if features.builder.nulls:
        send_nulls(model, estimator)
    lay_out(model)


def _in_own_precision(features: Block, estimator: Any) -> Block:
    return features.as_dtype("float32") if isinstance(estimator, _FLOAT32_ONLY) else features


def _scores(features: Block, model: ModelProto, scores: list[str], estimator: Any) -> Block | None:
    if not hasattr(estimator, "predict_proba") or not scores:
        return None
    return Block(features.builder, scores[0], len(estimator.classes_), dtype_of(model, 1))


def dtype_of(model: ModelProto, output: int) -> Dtype:
    """The precision of one of a graph's outputs."""
    element = model.graph.output[output].type.tensor_type.elem_type
    return cast("Dtype", np.dtype(helper.tensor_dtype_to_np_dtype(element)).name)


def flat(features: Block, label: str) -> str:
    """The label as [N]: skl2onnx answers [N] or [N, 1]."""
    return features.builder.node(
        "Reshape", label, features.builder.constant(np.asarray([-1], dtype=np.int64))
    )


def _is_linear(estimator: Any) -> bool:
    kind = type(estimator)
    predicts = [_static(one, "predict") for one in (LinearClassifierMixin, _RidgeClassifierMixin)]
    return (
        isinstance(estimator, LinearClassifierMixin)
        and _static(kind, "decision_function")
        is _static(LinearClassifierMixin, "decision_function")
        and any(_static(kind, "predict") is one for one in predicts)
    )


def _linear(features: Block, estimator: Any) -> Block:
    """[N, K]: the scores of a linear model."""
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    offset = np.atleast_1d(np.asarray(estimator.intercept_, dtype=np.float64)).reshape(1, -1)
    return features.as_dtype("float64").times(weights.T) + offset


def _classify_linear(features: Block, estimator: Any) -> Classified | None:
    """None if its probabilities are none that are known here."""
    scores = _linear(features, estimator)
    label = scores.best() if scores.width > 1 else above(scores, 0.0)
    if not hasattr(estimator, "predict_proba"):
        return Classified(label, None)
    if not isinstance(estimator, LogisticRegression | LinearDiscriminantAnalysis):
        return None
    if scores.width > 1:
        return Classified(label, scores.apply("Softmax", axis=1))
    return Classified(label, both(expit(scores)))


def both(positive: Block) -> Block:
    """[N, 2] from the probability [N, 1] of the second class."""
    return positive.joined([1.0 - positive, positive])


def above(score: Block, limit: float) -> str:
    """int64[N]: 1 where the score [N, 1] is larger."""
    return flat(score, score.builder.cast(score.test("Greater", limit), TensorProto.INT64))


def decide(features: Block, path: str, estimator: Any) -> Block:
    """A classifier's decision function: [N, 1] for two classes, [N, C] for more.

    Raises:
        ExportError: it cannot be converted.
    """
    estimator = known_class(estimator)
    if _is_linear(estimator):
        return _linear(features, estimator)
    indexed, _ = _with_index_labels(estimator)
    options = classifier_options(indexed, raw_scores=True)
    if not options.get(id(indexed), {}).get("raw_scores"):
        raise ExportError(
            f"step {path!r}: the answer depends on the decision function of "
            f"{type(estimator).__name__}, which cannot be converted: use an estimator with "
            "predict_proba, or a linear one"
        )
    features = _in_own_precision(features, estimator)
    model = convert_piece(path, indexed, features.width, features.dtype, options)
    scores = features.builder.embed(model, features.name)[1]
    dtype, classes = dtype_of(model, 1), len(estimator.classes_)
    if classes > 2:
        return Block(features.builder, scores, classes, dtype)
    last = features.builder.constant(np.asarray([-1], dtype=np.int64))
    return Block(features.builder, features.builder.node("Gather", scores, last, axis=1), 1, dtype)


def regress(features: Block, path: str, estimator: Any, *, exact: bool) -> Block:
    """A regressor's values, [N, K].

    Args:
        features: that it reads.
        path: of the estimator.
        estimator: fitted.
        exact: compute linear models, trees and forests in float64, because another estimator goes
            on with the answer.
    """
    estimator = known_class(estimator)
    if isinstance(estimator, _PLS):
        centred = features.as_dtype("float64") - estimator._x_mean  # noqa: SLF001  no public name
        return _linear(centred, estimator)
    if neighbours.is_known(estimator):
        return neighbours.values(features, estimator)
    if exact and isinstance(estimator, LinearModel) and _predicts_linearly(estimator):
        return _linear(features, estimator)
    if exact and isinstance(estimator, _AVERAGED_TREES):
        return exact_trees(features, estimator)
    wide = exact or features.dtype == "float64"
    if wide and isinstance(estimator, SVR | NuSVR) and isinstance(estimator.kernel, str):
        return _support_vectors(features, path, estimator)
    features = _in_own_precision(features, estimator)
    model = convert_piece(path, estimator, features.width, features.dtype, {})
    if isinstance(estimator, TREES):
        _prepare(features, model, estimator)
    (value,) = features.builder.embed(model, features.name)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    # Of trees skl2onnx leaves the number of targets open.
    known = dims[1].dim_value if len(dims) == 2 else 1
    targets = max(1, known, int(getattr(estimator, "n_outputs_", 1)))
    shape = features.builder.constant(np.asarray([-1, targets], dtype=np.int64))
    value = features.builder.node("Reshape", value, shape)
    return Block(features.builder, value, targets, dtype_of(model, 0))


def _support_vectors(features: Block, path: str, estimator: Any) -> Block:
    """[N, 1]: an SVR or NuSVR in float64, for which ONNX Runtime has no operator."""
    rows, weights = (
        np.asarray(v.toarray() if hasattr(v, "toarray") else v, dtype=np.float64)
        for v in (estimator.support_vectors_, estimator.dual_coef_)
    )
    gamma = float(estimator._gamma)  # noqa: SLF001  no public name
    found = weighted_kernel(features, path, estimator, rows, weights.T, gamma=gamma)
    return found + float(estimator.intercept_[0])


def _predicts_linearly(estimator: Any) -> bool:
    return _static(type(estimator), "predict") is _static(LinearModel, "predict")


def classifier_options(estimator: Any, *, raw_scores: bool = False) -> dict[int, Any]:
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
    try:
        indexed.classes_ = np.arange(len(estimator.classes_))
    except AttributeError:  # `classes_` is computed
        return estimator, False
    return indexed, True


def _label_index(features: Block, label: str, classes: Any) -> str:
    known = np.asarray(classes).tolist()
    indices = list(range(len(known)))
    keys: dict[str, Any] = {"keys_int64s": known}
    if isinstance(known[0], str):
        keys = {"keys_strings": known}
    elif not all(float(one).is_integer() for one in known):
        raise ExportError(
            f"the labels {known[:3]} are fractions, which the graph of "
            "this classifier cannot answer: train with strings or integers"
        )
    else:
        keys = {"keys_int64s": [int(one) for one in known]}
    return features.builder.node(
        "LabelEncoder", label, domain="ai.onnx.ml", values_int64s=indices, **keys
    )
