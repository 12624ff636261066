"""Four ways from a record to a label with scikit-learn, dearest first: column by column, pyfunc,
the pipeline itself, numpy."""

from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from baseline.encoding import Encoding
from baseline.switches import Switches

Predict = Callable[[dict[str, Any]], dict[str, Any]]


def predictor(switches: Switches, uri: str) -> Predict:
    """The way that the switches name, for the model at an MLflow URI; loads it."""
    pyfunc = mlflow.pyfunc.load_model(uri)
    pipeline = pyfunc.get_raw_model()
    classifier = pipeline[-1] if hasattr(pipeline, "steps") else pipeline
    if switches.one_job and hasattr(classifier, "n_jobs"):
        classifier.n_jobs = 1
    match switches.predictor:
        case "columns":
            return _column_by_column(classifier, Encoding.of(pipeline))
        case "pyfunc":
            return lambda record: _answer(pyfunc.predict(_frame(record)))
        case "pipeline":
            return _by_pipeline(pipeline)
        case "numpy":
            encoding = Encoding.of(pipeline)
            return lambda record: _answer(classifier.predict(encoding.row(record)))
    raise ValueError(f"predictor {switches.predictor} is not scikit-learn's")


def _column_by_column(classifier: Any, encoding: Encoding) -> Predict:
    """As a notebook becomes a handler: a frame of one row, each column converted, an indicator
    inserted per category, then reordered."""

    def predict(record: dict[str, Any]) -> dict[str, Any]:
        frame = pd.DataFrame([record])
        for column in encoding.columns(record):
            if column.categories is None:
                frame[column.name] = column.scaled(
                    pd.to_numeric(frame[column.name]).fillna(column.missing)
                )
            else:
                frame[column.name] = frame[column.name].fillna(column.missing)
                for category in column.categories:
                    frame[f"{column.name}_{category}"] = (frame[column.name] == category).astype(
                        int
                    )
        return _answer(classifier.predict(frame[encoding.names(record)].to_numpy()))

    return predict


def _by_pipeline(pipeline: Any) -> Predict:
    named = hasattr(pipeline, "feature_names_in_")

    def predict(record: dict[str, Any]) -> dict[str, Any]:
        frame = _frame(record)
        return _answer(pipeline.predict(frame if named else frame.to_numpy()))

    return predict


def _frame(record: dict[str, Any]) -> pd.DataFrame:
    """A frame of one row, with NaN for null: an imputer passes by the None that a column of objects
    keeps."""
    frame = pd.DataFrame([record])
    return frame.replace({None: np.nan}) if None in record.values() else frame


def _answer(labels: Any) -> dict[str, Any]:
    return {"prediction": np.asarray(labels).tolist()[0]}
