"""Unwraps estimators that only wrap another one: threshold classifiers, searches, frozen models.

scikit-learn's threshold classifiers answer the inner model's probabilities, but choose the label by
their own threshold. A converter that takes the inner model's label instead serves wrong labels with
right probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from model_export.errors import ExportError

_THRESHOLDS = (FixedThresholdClassifier, TunedThresholdClassifierCV)


@dataclass(frozen=True)
class Threshold:
    """The rule of a threshold classifier: the positive class if its score is at least `value`."""

    method: Literal["predict_proba", "decision_function"]
    """The method that gives the score."""
    positive: int
    """Index of the positive class."""
    value: float

    def scores(self, answers: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """float64[N]: the scores to compare with `value`.

        Args:
            answers: of the estimator's `method`: probabilities [N, 2], or decisions [N].
        """
        found = np.asarray(answers, dtype=np.float64)
        if self.method == "predict_proba":
            return np.asarray(found[:, self.positive])
        return found if self.positive == 1 else -found


def unwrapped(estimator: Any) -> Any:
    """The estimator inside a wrapper; any other estimator as it is.

    Raises:
        ExportError: a search that kept no estimator.
    """
    if isinstance(estimator, BaseSearchCV):
        if not hasattr(estimator, "best_estimator_"):
            raise ExportError(
                f"the {type(estimator).__name__} kept no best estimator: train it with "
                "refit=True, or log the estimator that it chose"
            )
        return estimator.best_estimator_
    if isinstance(estimator, _THRESHOLDS):
        return getattr(estimator, "estimator_", estimator.estimator)
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def find_threshold(estimator: Any) -> Threshold | None:
    """The rule of the outermost threshold classifier; None if there is none."""
    while True:
        if isinstance(estimator, _THRESHOLDS):
            return _threshold(estimator)
        inner = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else unwrapped(estimator)
        if inner is estimator or inner is None or isinstance(inner, str):
            return None
        estimator = inner


def _threshold(estimator: Any) -> Threshold:
    inner = unwrapped(estimator)
    method = estimator.response_method
    if method == "auto":
        method = "predict_proba" if hasattr(inner, "predict_proba") else "decision_function"
    value, label = _chosen(estimator)
    if isinstance(value, str):  # auto
        value = 0.5 if method == "predict_proba" else 0.0
    classes = np.asarray(estimator.classes_).tolist()
    return Threshold(method, 1 if label is None else classes.index(label), float(value))


def _chosen(estimator: Any) -> tuple[Any, Any]:
    """The threshold and the positive label."""
    if isinstance(estimator, FixedThresholdClassifier):
        return estimator.threshold, estimator.pos_label
    # scikit-learn stores the positive label nowhere else.
    return estimator.best_threshold_, estimator._curve_scorer._get_pos_label()  # noqa: SLF001
