"""Finds out what a model answers: labels, with or without probabilities, or values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from model_export.errors import ExportError
from model_export.study import kinds
from model_export.study.members import unwrapped


@dataclass(frozen=True)
class Answers:
    """The kind of a model's answers."""

    task: Literal["classification", "regression"]
    classes: tuple[Any, ...]
    """Labels as JSON can hold them, in the order of the probability columns; empty for a
    regressor."""
    outputs: tuple[str, ...]


def describe_answers(estimator: Any) -> Answers:
    """Find out what the estimator answers.

    Raises:
        ExportError: neither classifier nor regressor, several targets, or labels that JSON would
            change.
    """
    if is_regressor(estimator):
        return Answers("regression", (), ("value",))
    if not is_classifier(estimator):
        raise ExportError(kinds.refusal(estimator))
    if not hasattr(estimator, "classes_"):
        raise ExportError(
            f"the classifier {type(estimator).__name__} has no classes_, so its labels are not "
            "known: fit it before it is logged, or log it as a regressor if it answers numbers"
        )
    if isinstance(estimator.classes_, list) or _has_several_labels(estimator):
        raise ExportError(
            "the classifier answers several targets, and a bundle holds one label per row: train "
            "and register one model per target"
        )
    classes = tuple(map(_label, np.asarray(estimator.classes_).tolist()))
    outputs = ("label", "probabilities") if hasattr(estimator, "predict_proba") else ("label",)
    return Answers("classification", classes, outputs)


def is_constant(estimator: Any) -> bool:
    """True for a DummyClassifier, alone or at the end of a Pipeline: it does not choose between
    classes, not even where two of them are equally likely."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    return isinstance(unwrapped(last), DummyClassifier)


def _has_several_labels(estimator: Any) -> bool:
    """True if each row may get several labels. Such a classifier has the targets as its classes,
    as one list."""
    inner = unwrapped(estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator)
    if inner is not estimator and hasattr(inner, "classes_"):
        return isinstance(inner.classes_, list) or _has_several_labels(inner)
    binarizer = getattr(inner, "label_binarizer_", getattr(inner, "_label_binarizer", None))
    kind = getattr(binarizer, "y_type_", "")
    return str(kind).startswith("multilabel") or getattr(inner, "outputs_2d_", False) is True


def _label(value: Any) -> str | int | float | bool:
    """A label as JSON holds it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return str(value)  # np.str_ is a str, but JSON libraries refuse it
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ExportError(
        f"the label {value!r} is a {type(value).__name__}, which JSON cannot hold: train with "
        "strings, integers, finite numbers or booleans"
    )
