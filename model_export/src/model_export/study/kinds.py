"""What an estimator is that is neither a classifier nor a regressor, and what to log instead."""

from __future__ import annotations

from typing import Any

from sklearn.base import is_clusterer, is_outlier_detector
from sklearn.pipeline import Pipeline

_SERVED = "served are classifiers (a label per row) and regressors (numbers per row)"
_ONNX = "convert it to ONNX and log it with mlflow.onnx.log_model"


def refusal(estimator: Any) -> str:
    """Why such a model cannot be exported, and what is possible.

    Args:
        estimator: neither a classifier nor a regressor.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    name = type(last).__name__
    if last is None or isinstance(last, str):
        what, way = "a Pipeline that ends without an estimator", "log a Pipeline with one"
    elif is_outlier_detector(last):
        what = f"an outlier detector ({name}), whose answers are no classes that it learned"
        way = f"train a classifier on its labels, or {_ONNX}"
    elif hasattr(last, "predict") and (is_clusterer(last) or hasattr(last, "n_components")):
        what = f"a clusterer ({name}), whose groups are no classes that it learned"
        way = f"train a classifier on its labels and log that, or {_ONNX}"
    elif is_clusterer(last):
        what = f"a clusterer ({name}) that groups its own training rows only"
        way = "train a classifier on its labels_ and log that"
    elif not hasattr(last, "predict"):
        what = f"a {name}, which has no predict"
        way = (
            "log a Pipeline that ends with a classifier or regressor"
            if hasattr(last, "transform")
            else f"log a classifier or regressor, or {_ONNX}"
        )
    else:
        what = f"a {name}, which says neither that it is a classifier nor a regressor"
        way = f"derive its class from ClassifierMixin or RegressorMixin of scikit-learn, or {_ONNX}"
    return f"the model is {what}: {_SERVED}; {way}"
