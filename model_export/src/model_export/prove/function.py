"""Calls the function that a registered pyfunc was saved with, and checks that it answers as its
estimator does."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.errors import ExportError, plain
from model_export.registry.client import has_pandas_categories
from model_export.registry.onnx_model import OnnxModel
from model_export.study.rows import to_model_input

if TYPE_CHECKING:
    from model_export.registry.client import FetchedModel
    from model_export.study.arrays import Matrix
    from model_export.study.schema import Schema

_PREDICT = "predict"


def predict_function(fetched: FetchedModel) -> str:
    """The function that the registered pyfunc calls: `predict`, or the one it was saved with as
    `pyfunc_predict_fn`."""
    return str(
        fetched.pyfunc.metadata.flavors.get("python_function", {}).get("predict_fn", _PREDICT)
    )


def predict(fetched: FetchedModel, rows: Any) -> np.ndarray[Any, Any]:
    """Labels or values: from `mlflow.pyfunc` if it answers them, otherwise from its estimator."""
    # Of a table MLflow passes on the columns' names as the texts, so a list goes to the estimator.
    # Of a graph MLflow makes a table, which cannot hold a label next to a matrix.
    is_other = getattr(rows, "ndim", 2) == 1 or isinstance(fetched.estimator, OnnxModel)
    own = is_other or predict_function(fetched) != _PREDICT
    model = fetched.estimator if own else fetched
    return np.asarray(model.predict(rows))


def check_predict_function(fetched: FetchedModel, schema: Schema, rows: Matrix) -> str | None:
    """If the pyfunc calls another function than `predict`, check that it answers as that function
    of its estimator.

    Args:
        fetched: the model.
        schema: of the rows.
        rows: some packed rows.

    Returns:
        one line for the user; None if the function is `predict`, or cannot be asked.

    Raises:
        ExportError: it fails, or answers otherwise.
    """
    function = predict_function(fetched)
    if function == _PREDICT:
        return None
    frame = to_model_input(rows, schema)
    if has_pandas_categories(frame):  # which MLflow refuses
        return None
    given, own = _answers_of_function(fetched, function, frame)
    if given.shape != own.shape or not np.array_equal(given, own, equal_nan=True):
        raise ExportError(
            f"the registered pyfunc does not answer the {function} of the estimator inside it: "
            "log that estimator with mlflow.sklearn.log_model"
        )
    return (
        f"the registered pyfunc answers {function}; served are the estimator's labels (predict) "
        "and probabilities (predict_proba)"
    )


def _answers_of_function(
    fetched: FetchedModel, function: str, frame: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The pyfunc's answers, and those of the estimator's function."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (
                np.asarray(fetched.pyfunc.predict(frame)),
                np.asarray(getattr(fetched.estimator, function)(frame)),
            )
    except Exception as error:  # MLflow's enforcement and the estimator may raise anything
        raise ExportError(
            f"the model's {function} fails on rows of its data{plain(error, 300)}: give --data "
            "with rows that it answers"
        ) from error
