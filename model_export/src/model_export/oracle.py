"""The registered model's own answers, asked once and kept: what every graph is held against."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model_export.errors import ExportError, is_of_memory, sentence
from model_export.rows import Matrix, to_model_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.convert import Answers
    from model_export.registry import Fetched
    from model_export.samples import Group
    from model_export.schema import Schema

CHUNK = 10_000
"""Rows asked at one go."""

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Truth:
    """The rows and what the registered model answers for them."""

    rows: Matrix
    groups: tuple[tuple[str, int], ...]
    """Name and number of rows of each group, in the order of the rows."""
    refused: tuple[str, ...]
    """Groups left out because the registered model raises on them."""
    label: Ints
    """int64[N], indices into the classes; empty for a regressor."""
    scores: Floats
    """float64[N, C] probabilities, [N, K] values of a regressor, or [N, 0] for a classifier without probabilities."""
    margin: Floats
    """float64[N]: by how much the best class leads; infinite where that cannot be said."""

    def group_of(self, row: int) -> str:
        """The name of a row's group."""
        ends = np.cumsum([size for _, size in self.groups])
        return self.groups[int(np.searchsorted(ends, row, side="right"))][0]

    @property
    def threshold_rows(self) -> int:
        """Rows around tree thresholds."""
        return dict(self.groups).get("thresholds", 0)


def ask(fetched: Fetched, schema: Schema, answers: Answers, groups: list[Group], advance: Callable[[int], None]) -> Truth:
    """Ask the registered model: labels and values through `mlflow.pyfunc`, probabilities through the estimator inside it.

    Args:
        fetched: the model.
        schema: of the rows.
        answers: what kind of answers to expect.
        groups: the rows.
        advance: told of every chunk of rows that is done, refused ones included.

    Raises:
        ExportError: the model raises on rows that it should know, or answers something that is none of its classes.
    """
    oracle = _Oracle(fetched, schema, answers)
    kept: list[tuple[Group, tuple[Ints, Floats, Floats]]] = []
    refused = []
    for group in groups:
        try:
            kept.append((group, oracle.answer(group.rows, advance)))
        except Exception as error:  # the estimator may raise anything
            if is_of_memory(error):
                raise
            if not group.may_be_refused:
                raise ExportError(f"the registered model fails on the rows {group.name!r}: {sentence(error, 300)}") from error
            refused.append(group.name)
    label, scores, margin = (np.concatenate([result[i] for _, result in kept]) for i in range(3))
    sizes = tuple((group.name, len(group.rows)) for group, _ in kept)
    return Truth(np.concatenate([group.rows for group, _ in kept]), sizes, tuple(refused), label, scores, margin)


class _Oracle:
    """The registered model as a function from packed rows to indices, scores and margins."""

    def __init__(self, fetched: Fetched, schema: Schema, answers: Answers) -> None:
        self._fetched, self._schema, self._answers = fetched, schema, answers
        self._index = pd.Index(np.asarray(answers.classes, dtype=object))

    def answer(self, rows: Matrix, advance: Callable[[int], None]) -> tuple[Ints, Floats, Floats]:
        parts = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # overflows and unknown categories are what these rows are for
                parts.append(self._chunk(to_model_input(chunk, self._schema)))
            advance(len(chunk))
        label, scores, margin = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return label, scores, margin

    def _chunk(self, rows: Any) -> tuple[Ints, Floats, Floats]:
        predicted = np.asarray(self._fetched.pyfunc.predict(rows))
        if self._answers.task == "regression":
            values = predicted.reshape(len(rows), -1).astype(np.float64)
            return np.empty(0, dtype=np.int64), values, np.full(len(rows), np.inf)
        label = np.asarray(self._index.get_indexer(predicted.ravel().tolist()), dtype=np.int64)
        if (label < 0).any():
            raise ExportError(f"the model answers {predicted[label < 0][0]!r}, which is none of its classes")
        if "probabilities" in self._answers.outputs:
            scores = np.asarray(self._fetched.estimator.predict_proba(rows), dtype=np.float64)
            return label, scores, _lead(scores)
        return label, np.empty((len(rows), 0)), self._decision_margin(rows)

    def _decision_margin(self, rows: Any) -> Floats:
        if not hasattr(self._fetched.estimator, "decision_function"):
            return np.full(len(rows), np.inf)
        decision = np.asarray(self._fetched.estimator.decision_function(rows), dtype=np.float64)
        return np.abs(decision) if decision.ndim == 1 else _lead(decision)


def _lead(scores: Floats) -> Floats:
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    best = np.partition(scores, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])
