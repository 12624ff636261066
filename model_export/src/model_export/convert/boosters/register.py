"""Gives skl2onnx a converter for boosted trees, so that they are converted wherever they stand: at
the end of a Pipeline, in a VotingClassifier, under a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx._supported_operators import update_registered_converter
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
)
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from model_export.convert.boosters import catboost, hist_gradient, lightgbm, xgboost
from model_export.registry.native import NativeBooster

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.convert.boosters.ensemble import Ensemble

_READERS: dict[str, Callable[[Any], Ensemble]] = {
    "catboost": catboost.read,
    "lightgbm": lightgbm.read,
    "xgboost": xgboost.read,
}
_HIST = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_TREES_OPSET = 3
_registered = set[type]()


def read(estimator: Any) -> Ensemble | None:
    """The trees of a fitted model of boosted trees; None for any other estimator.

    Raises:
        ExportError: they cannot be converted.
    """
    model = estimator.booster if isinstance(estimator, NativeBooster) else estimator
    if isinstance(model, _HIST):
        return hist_gradient.read(model)
    reader = _READERS.get(_package(model))
    return reader(model) if reader else None


def is_boosted(estimator: Any) -> bool:
    """Whether this is a model of boosted trees."""
    return isinstance(estimator, (*_HIST, NativeBooster)) or _package(estimator) in _READERS


def _package(model: Any) -> str:
    return type(model).__module__.partition(".")[0]


def register(estimator: Any) -> None:
    """Register the conversion of models of this estimator's class with skl2onnx, if they are
    boosted trees."""
    kind = type(estimator)
    if is_boosted(estimator) and kind not in _registered:
        options = {"zipmap": [False, True]} if _is_classifier(estimator) else None
        if options and hasattr(estimator, "decision_function"):
            # skl2onnx calibrates raw scores wherever there are any, scikit-learn where the model
            # has a decision function.
            options["raw_scores"] = [True, False]
        update_registered_converter(
            kind,
            _alias(estimator),
            _shapes,
            _convert,
            parser=_parse,
            options=options,
            overwrite=True,
        )
        _registered.add(kind)


def _is_classifier(model: Any) -> bool:
    """CatBoost's regressors have classes, too: none."""
    return len(getattr(model, "classes_", ())) > 0


def _alias(estimator: Any) -> str:
    """skl2onnx's name for the class."""
    return f"Boosted{_package(estimator).title()}{type(estimator).__name__}"


def _parse(scope: Any, model: Any, inputs: Any, **_: Any) -> Any:
    """Declare the outputs: CatBoost's classes are none of scikit-learn's, by which skl2onnx would
    know what they answer."""
    operator = scope.declare_local_operator(_alias(model), model)
    operator.inputs = inputs
    names = ("label", "probabilities") if _is_classifier(model) else ("variable",)
    for name in names:
        kind = Int64TensorType() if name == "label" else FloatTensorType()
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    double = isinstance(operator.inputs[0].type, DoubleTensorType)
    scores = DoubleTensorType if double else FloatTensorType
    if _is_classifier(model):
        operator.outputs[0].type = Int64TensorType([rows])
        operator.outputs[1].type = scores([rows, len(model.classes_)])
    else:
        ensemble = read(model)
        operator.outputs[0].type = scores([rows, len(ensemble.base) if ensemble else 1])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    model = operator.raw_operator
    ensemble = read(model)
    assert ensemble is not None  # noqa: S101  only such classes are registered
    graph = _Graph(scope, container, operator.inputs[0].type.shape[1])
    sums = _sums(graph, operator.inputs[0], ensemble)
    # Steps of a graph in float64 expect it of this one, too.
    double = isinstance(operator.inputs[0].type, DoubleTensorType)
    element = TensorProto.DOUBLE if double else TensorProto.FLOAT
    names = [output.full_name for output in operator.outputs]
    if not _is_classifier(model):
        graph.add("Cast", _linked(graph, sums, ensemble), to=element, output=names[0])
        return
    raw = bool(container.get_options(model, {}).get("raw_scores"))
    _label(graph, sums, len(ensemble.base), names[0])
    scores = sums if raw else _linked(graph, sums, ensemble)
    if len(ensemble.base) == 1:
        opposite = (
            graph.add("Neg", scores) if raw else graph.add("Sub", graph.constant(1.0), scores)
        )
        scores = graph.add("Concat", opposite, scores, axis=1)
    graph.add("Cast", scores, to=element, output=names[1])


class _Graph:
    """Adds nodes to a graph of skl2onnx."""

    def __init__(self, scope: Any, container: Any, width: int) -> None:
        self._scope, self._container, self._width = scope, container, width

    def add(self, op: str, *inputs: str, output: str = "", domain: str = "", **given: Any) -> str:
        """Add a node; returns the name of its output."""
        name = output or self._scope.get_unique_variable_name(op.lower())
        version = _TREES_OPSET if domain else self._container.target_opset_any_domain("")
        self._container.add_node(
            op,
            list(inputs),
            name,
            op_domain=domain,
            op_version=version,
            name=self._scope.get_unique_operator_name(op),
            **given,
        )
        return name

    def constant(self, values: Any, element: int = TensorProto.FLOAT) -> str:
        """Add a constant."""
        array = np.asarray(values)
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, element, array.shape, array.ravel().tolist())
        return name

    def mask(self, columns: tuple[int, ...]) -> str:
        """bool[F]: true for these columns."""
        return self.constant(np.isin(np.arange(self._width), columns), TensorProto.BOOL)


def _sums(graph: _Graph, source: Any, ensemble: Ensemble) -> str:
    """float32[N, K]: the sums of the leaves."""
    double = isinstance(source.type, DoubleTensorType) and ensemble.adds_in_float64
    element = TensorProto.DOUBLE if double else TensorProto.FLOAT
    features = source.full_name
    if ensemble.compares_in_float32:
        features = graph.add("Cast", features, to=TensorProto.FLOAT)
    features = graph.add("Cast", features, to=element)
    features = _prepared(graph, features, ensemble, element)
    sums = graph.add(
        "TreeEnsembleRegressor",
        features,
        domain="ai.onnx.ml",
        **ensemble.attributes(double=double),
    )
    if ensemble.divided_by == 1.0:
        return sums
    sums = graph.add("Div", sums, graph.constant(ensemble.divided_by))
    return graph.add("Add", sums, graph.constant(ensemble.base)) if ensemble.base.any() else sums


def _prepared(graph: _Graph, features: str, ensemble: Ensemble, element: int) -> str:
    """What the library does to the values before it compares them."""
    if ensemble.missing is not None:
        given = graph.add("Equal", features, graph.constant(ensemble.missing, element))
        features = graph.add("Where", given, graph.constant(np.nan, element), features)
    if ensemble.zero_is_missing:
        near = graph.add(
            "LessOrEqual", graph.add("Abs", features), graph.constant(lightgbm.ZERO, element)
        )
        given = graph.add("And", near, graph.mask(ensemble.zero_is_missing))
        features = graph.add("Where", given, graph.constant(np.nan, element), features)
    if ensemble.whole:
        negative = graph.add("Less", features, graph.constant(0.0, element))
        cut = graph.add(
            "Where", negative, graph.constant(-1.0, element), graph.add("Floor", features)
        )
        features = graph.add("Where", graph.mask(ensemble.whole), cut, features)
    return features


def _linked(graph: _Graph, sums: str, ensemble: Ensemble) -> str:
    """The answer that the sums stand for."""
    if ensemble.link == "softmax":
        return graph.add("Softmax", sums, axis=1)
    if ensemble.link == "square":
        return graph.add("Mul", sums, graph.add("Abs", sums))
    names = {"exp": "Exp", "sigmoid": "Sigmoid"}
    return graph.add(names[ensemble.link], sums) if ensemble.link in names else sums


def _label(graph: _Graph, sums: str, outputs: int, name: str) -> None:
    """int64[N]: the index of the class."""
    if outputs > 1:
        graph.add("ArgMax", sums, axis=1, keepdims=0, output=name)
        return
    positive = graph.add("Greater", sums, graph.constant(0.0))
    whole = graph.add("Cast", positive, to=TensorProto.INT64)
    graph.add("Reshape", whole, graph.constant([-1], TensorProto.INT64), output=name)


def register_all(step: Any) -> None:
    """`register` for the step and every estimator inside it."""
    register(step)
    for value in vars(step).values() if hasattr(step, "__dict__") else ():
        for inner in _estimators(value):
            register_all(inner)


def _estimators(value: Any) -> list[Any]:
    if isinstance(value, BaseEstimator):
        return [value]
    if isinstance(value, dict):
        return [each for item in value.values() for each in _estimators(item)]
    if isinstance(value, list | tuple) or (
        isinstance(value, np.ndarray) and value.dtype == np.dtype(object)
    ):
        return [each for item in value for each in _estimators(item)]
    return [value] if type(value).__name__ == "_CalibratedClassifier" else []
