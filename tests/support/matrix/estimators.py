"""All of scikit-learn's estimators that predict, each with its own defaults where it has them."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import all_estimators

from support.matrix.case import Case, Group, Trained
from support.matrix.data import numbers, values

_CLASSIFIERS = "scikit-learn's classifiers"
_REGRESSORS = "scikit-learn's regressors"
_CLUSTERS = "scikit-learn's clusterers, mixtures and outlier detectors"
_TWO_OF = {
    "StackingClassifier": LogisticRegression,
    "VotingClassifier": LogisticRegression,
    "StackingRegressor": Ridge,
    "VotingRegressor": Ridge,
}
_INSIDE_CLASSIFIER = (
    "ClassifierChain",
    "FixedThresholdClassifier",
    "MultiOutputClassifier",
    "OneVsOneClassifier",
    "OneVsRestClassifier",
    "OutputCodeClassifier",
    "SelfTrainingClassifier",
    "TunedThresholdClassifierCV",
)
_INSIDE_REGRESSOR = ("MultiOutputRegressor", "RegressorChain")
_TWO_CLASSES = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
_POSITIVE = ("ComplementNB", "MultinomialNB", "CategoricalNB")
_TARGETS = ("CCA", "MultiOutputRegressor", "PLSCanonical", "RegressorChain")
_SMALLER: dict[str, Any] = {"n_estimators": 10, "random_state": 0, "cv": 3, "novelty": True}
"""Parameters with which small models are trained quickly, and the same in every run; without
novelty LocalOutlierFactor answers for the rows of its training alone."""
ELSEWHERE = {
    "GridSearchCV": "needs a model and its settings: grid-search",
    "HalvingGridSearchCV": "the same: halving-search",
    "HalvingRandomSearchCV": "the same: halving-search is of its kind",
    "Pipeline": "needs steps: every Pipeline of the matrix",
    "RFE": "needs a model: recursive-elimination",
    "RFECV": "the same: recursive-elimination-cv",
    "RandomizedSearchCV": "the same: random-search",
}
"""Estimators that predict and are not here: why, and the model of the matrix that has them."""


def cases() -> list[Case]:
    """A case for each but those of `ELSEWHERE`."""
    groups = {title: Group(title) for title in (_CLASSIFIERS, _REGRESSORS, _CLUSTERS)}
    for name, kind in all_estimators():
        title = _kind(name, kind)
        if title:
            groups[title].add(name, _trainer(name, kind))
    return [case for group in groups.values() for case in group.cases]


def _kind(name: str, kind: Any) -> str:
    if not hasattr(kind, "predict") or name in ELSEWHERE:
        return ""
    model = _made(name, kind)
    if is_classifier(model):
        return _CLASSIFIERS
    return _REGRESSORS if is_regressor(model) else _CLUSTERS


def _made(name: str, kind: Any) -> Any:
    """An estimator of a class."""
    accepted = inspect.signature(kind).parameters
    given = {key: value for key, value in _SMALLER.items() if key in accepted}
    if name in _TWO_OF:
        given["estimators"] = [("a", _TWO_OF[name]()), ("b", _TWO_OF[name](tol=1e-2))]
    if name in _INSIDE_CLASSIFIER:
        given["estimator"] = LogisticRegression()
    if name in _INSIDE_REGRESSOR:
        given["estimator"] = Ridge()
    if name == "CategoricalNB":
        given["min_categories"] = 12
    if name.endswith("Mixture"):  # by default of one component, which is the same for every row
        given["n_components"] = 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated estimators are registered, too
        return kind(**given)


def _trainer(name: str, kind: Any) -> Callable[[], Trained]:
    def train() -> Trained:
        model = _made(name, kind)
        x, y = _data(name, model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short training: how good a model is, is no matter
            model.fit(x, y)
        return Trained(model, x)

    return train


def _data(name: str, model: Any) -> tuple[Any, Any]:
    if is_classifier(model):
        x, y = numbers(2 if name in _TWO_CLASSES else 3)
        if name in _POSITIVE:
            x = (x - x.min()).round() if name == "CategoricalNB" else x - x.min()
            x = x.clip(upper=11.0).astype(int) if name == "CategoricalNB" else x
        if name in ("ClassifierChain", "MultiOutputClassifier"):
            return x, np.column_stack([y > 0, y > 1]).astype(int)
        return x, y
    if is_regressor(model):
        many = name in _TARGETS or name.startswith("MultiTask")
        x, y = values(1 if name == "IsotonicRegression" else 6, 2 if many else 1)
        return x, y if many else np.abs(y) + 0.1
    return numbers(3)
