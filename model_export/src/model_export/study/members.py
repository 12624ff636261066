"""Finds the fitted estimators that another estimator asks, and removes wrappers that only pass on
another estimator's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import RANSACRegressor
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.semi_supervised import SelfTrainingClassifier

from model_export.study.decision import unwrapped as _without_search

Member = tuple[str, Any]
"""A name, and the fitted estimator."""

_NAMED = (VotingClassifier, VotingRegressor, StackingClassifier, StackingRegressor)
_NUMBERED = (
    OneVsOneClassifier,
    OneVsRestClassifier,
    OutputCodeClassifier,
    MultiOutputRegressor,
)
_DELEGATING = (RANSACRegressor, SelfTrainingClassifier)
"""These answer what their `estimator_` answers."""


def unwrapped(estimator: Any) -> Any:
    """The estimator inside a wrapper; any other estimator as it is.

    Raises:
        ExportError: a search that kept no estimator.
    """
    if isinstance(estimator, _DELEGATING):
        return estimator.estimator_
    return _without_search(estimator)


def fitted_inside(estimator: Any) -> list[tuple[Any, Any]]:
    """The fitted estimators in an ensemble's `estimators_`, each with the features that it reads;
    None: all."""
    found = getattr(estimator, "estimators_", ())
    # NumPy makes an array of a list of Pipelines or forests, which have items, step by step.
    each = found.ravel().tolist() if isinstance(found, np.ndarray) else list(found)
    columns = getattr(estimator, "estimators_features_", [None] * len(each))
    return list(zip(each, columns, strict=True))


def members(estimator: Any) -> list[Member]:
    """The estimators whose answers this one combines, all of which read its columns; empty if it
    combines none, or in a way that is not known here."""
    if isinstance(estimator, CalibratedClassifierCV):
        fitted = estimator.calibrated_classifiers_
        return [(f"fold {i}", one.estimator) for i, one in enumerate(fitted)]
    if isinstance(estimator, TransformedTargetRegressor):
        return [("regressor", estimator.regressor_)]
    if isinstance(estimator, _NAMED):
        names = [name for name, given in estimator.estimators if not _is_dropped(given)]
        return list(zip(names, estimator.estimators_, strict=True))
    if isinstance(estimator, _NUMBERED) or _asks_whole_rows(estimator):
        return [(str(i), one) for i, one in enumerate(estimator.estimators_)]
    return []


def _is_dropped(estimator: Any) -> bool:
    return estimator is None or (isinstance(estimator, str) and estimator == "drop")


def _asks_whole_rows(estimator: Any) -> bool:
    """True for bagging whose estimators read all columns, unless they are trees, of which there
    may be thousands."""
    if not isinstance(estimator, BaggingClassifier | BaggingRegressor):
        return False
    fitted: Any = estimator
    everything = np.arange(fitted.n_features_in_)
    return not hasattr(fitted.estimators_[0], "tree_") and all(
        np.array_equal(columns, everything) for columns in fitted.estimators_features_
    )
