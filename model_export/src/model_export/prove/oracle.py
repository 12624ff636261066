"""Gets the registered model's answers once, for every graph to be compared with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from model_export.errors import TRAIN_AGAIN, ExportError, is_memory_error, plain
from model_export.prove.distinct import Distinct
from model_export.prove.function import predict
from model_export.prove.neighbours import Neighbours
from model_export.prove.refusals import Refusals
from model_export.study.answers import is_constant
from model_export.study.rows import to_model_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.prove.samples import Group, Sample
    from model_export.registry.client import FetchedModel
    from model_export.study.answers import Answers
    from model_export.study.arrays import Flags, Floats, Ints, Matrix
    from model_export.study.decision import Threshold
    from model_export.study.schema import Schema

Basis = Literal["probabilities", "decision", "threshold", "nothing"]
"""What the margin of a label is computed from."""

_CLEAR = 1e-5
"""If the label follows the probabilities, the most probable class must be the label wherever it
leads by more than this."""


@dataclass(frozen=True)
class Truth:
    """The rows and what the registered model answers for them."""

    sample: Sample
    """Without the rows that the registered model raises on."""
    refused: int
    """Rows left out because the registered model raises on them."""
    label: Ints
    """int64[N], indices into the classes; empty for a regressor."""
    scores: Floats
    """float64[N, C] probabilities, [N, K] values of a regressor, or [N, 0] for a classifier without
    probabilities."""
    margin: Floats
    """float64[N]: by how much the best class leads; infinite where that is unknown."""
    repeated: int = 0
    """Rows left out because they were drawn before."""
    tied: Flags | None = None
    """bool[N]: rows with several right choices of neighbours; None for a model without them."""

    @property
    def size(self) -> int:
        """Rows in all."""
        return len(self.margin)

    def rows_of(self, name: str) -> int:
        """Number of rows in the group of that name."""
        return sum(group.count for group in self.sample.groups if group.name == name)

    def ties(self, band: float) -> Flags:
        """bool[N]: rows whose two best classes lie within the tie band, so that either is right."""
        return np.asarray(self.margin < band)

    def clear(self, band: float) -> Flags:
        """bool[N]: rows whose best class leads by the tie band or more, and whose neighbours are
        known. A margin of NaN is neither a tie nor clear."""
        clear = np.asarray(self.margin >= band)
        return clear if self.tied is None else clear & ~self.tied


class Oracle:
    """The registered model as a function from packed rows to class indices, scores and margins.

    `mlflow.pyfunc` answers labels and values, the estimator inside it probabilities and decisions.
    """

    def __init__(
        self,
        fetched: FetchedModel,
        schema: Schema,
        answers: Answers,
        threshold: Threshold | None = None,
    ) -> None:
        """Keep the model, the schema of its rows, the kind of its answers, and the rule of a
        threshold classifier."""
        self._fetched, self._schema, self._answers, self._threshold = (
            fetched,
            schema,
            answers,
            threshold,
        )
        self._index = pd.Index(np.asarray(answers.classes, dtype=object))
        self._neighbours = Neighbours(fetched.estimator)
        self._refusals = Refusals()
        self._basis: Basis = "nothing"
        if threshold is not None:
            self._basis = "threshold"
        elif "probabilities" in answers.outputs and not is_constant(fetched.estimator):
            self._basis = "probabilities"
        elif hasattr(fetched.estimator, "decision_function"):
            self._basis = "decision"

    def labels(self, rows: Matrix) -> Ints:
        """int64[N]: the estimator's label of each row, −1 where it raises.

        Skips MLflow's check of every column, which for thousands of columns takes longer than the
        prediction. These labels only guide the search for rows; `ask` asks for them again.
        """
        found = np.full(len(rows), -1, dtype=np.int64)
        for positions, label in self._pieces(rows, self._own_label):
            found[positions] = label
        return found

    def leads(self, rows: Matrix) -> Floats:
        """float64[N]: by how much each label leads, in the unit of the scores it is chosen by; NaN
        where the model raises."""
        found = np.full(len(rows), np.nan)
        for positions, (lead, _) in self._pieces(rows, self._own_lead):
            found[positions] = lead
        return found

    def judge_by_probabilities(self, rows: Matrix) -> None:
        """Check whether the label is the most probable class. If not (as for an SVC with
        `probability=True`), compute margins from decisions.

        Args:
            rows: on both sides of changes of the label.
        """
        if self._basis != "probabilities":
            return
        for positions, scores in self._pieces(rows, self._probabilities):
            label = self.labels(rows[positions])
            if ((scores.argmax(axis=1) != label) & (_lead(scores) > _CLEAR) & (label >= 0)).any():
                self._basis = (
                    "decision"
                    if hasattr(self._fetched.estimator, "decision_function")
                    else "nothing"
                )
                return

    def answer_some(self, rows: Matrix) -> None:
        """Answer as for the proof, to measure how long it takes."""
        self._pieces(rows, self._answer)

    def ask(
        self,
        sample: Sample,
        advance: Callable[[int], None],
        more: Callable[[int], Group] | None = None,
    ) -> Truth:
        """Ask for every row once; a row that was drawn again is left out.

        Args:
            sample: the rows.
            advance: called with the number of rows in each finished chunk, those left out included.
            more: makes a group of so many rows, in place of those that were drawn again.

        Raises:
            ExportError: the model raises on rows that it should know, or answers a label that is
                not one of its classes.
        """
        distinct = Distinct()
        parts: list[AnswersOfRows] = []
        kept = [
            self._ask_group(sample, number, distinct, parts, advance)
            for number in range(len(sample.groups))
        ]
        if more is not None and distinct.repeated:
            sample = sample.plus(more(distinct.repeated))
            kept.append(self._ask_group(sample, len(kept), distinct, parts, advance))
        names = AnswersOfRows.__slots__
        label, scores, margin, magnitude, tied = (
            np.concatenate([getattr(part, name) for part in parts]) for name in names
        )
        refused = sample.size - len(margin) - distinct.repeated
        margin = margin / _scale(magnitude)
        known = tied if self._neighbours else None
        kept_rows = sample.keeping(kept)
        return Truth(kept_rows, refused, label, scores, margin, distinct.repeated, known)

    def alternatives(self, rows: Matrix, most: int) -> tuple[Ints, AnswersOfRows | None]:
        """The right answers to rows with several choices of neighbours, as `Neighbours` gives
        them; at most so many."""

        def ask(given: Any) -> tuple[Ints, AnswersOfRows | None]:
            return self._neighbours.alternatives(given, self._own_answer, most)

        found: tuple[Ints, AnswersOfRows | None] = self._asked(rows, ask)
        return found

    def _ask_group(
        self,
        sample: Sample,
        number: int,
        distinct: Distinct,
        parts: list[AnswersOfRows],
        advance: Callable[[int], None],
    ) -> Flags | None:
        """Append the answers for one group's rows to `parts`; returns which rows they are for, None
        for all."""
        group = sample.groups[number]
        flags = np.zeros(group.size, dtype=np.bool_)
        done = 0
        for rows in sample.of(number):
            new = np.flatnonzero(distinct.first(rows))
            pieces = self._pieces(
                rows[new], self._answer, refusals=group.may_be_refused, name=group.name
            )
            if pieces:
                positions, part = _joined(pieces)
                parts.append(part)
                flags[done + new[positions]] = True
            done += len(rows)
            advance(len(rows))
        return None if flags.all() else flags

    def _pieces(
        self, rows: Matrix, ask: Callable[[Any], Any], *, refusals: bool = True, name: str = ""
    ) -> list[tuple[Ints, Any]]:
        """The positions and the answers of each answered piece of the rows: usually all rows are
        one piece. Rows on which the model raises are left out."""
        if not len(rows):
            return []
        try:
            return [(np.arange(len(rows)), self._asked(rows, ask))]
        except ExportError:
            raise
        except Exception as error:  # the estimator may raise anything
            if is_memory_error(error):
                raise
            if not refusals:
                raise ExportError(
                    f"the registered model fails on the rows {name!r}{plain(error, 300)}: "
                    f"{self._way_out(error)}"
                ) from error
        return self._refusals.pieces(rows, partial(self._asked, ask=ask))

    def _way_out(self, error: Exception) -> str:
        """What to do if the model fails. One of another scikit-learn may lack attributes that the
        installed version reads."""
        if self._fetched.other_version:
            return TRAIN_AGAIN
        if "feature names" in str(error).lower():
            return "log the model with the signature of the table that it was trained on"
        if "dtype bool" in str(error):  # scikit-learn's imputers
            return "train it on 0 and 1 in place of booleans, such as of table.astype(float)"
        return (
            "put a step before it that limits or imputes them, such as a FunctionTransformer of "
            "numpy.clip, or train it on such rows"
        )

    def _asked(self, rows: Matrix, ask: Callable[[Any], Any]) -> Any:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these rows cause overflows and unknown categories
            return ask(to_model_input(rows, self._schema))

    def _own_label(self, rows: Any) -> Ints:
        return self._indices(np.asarray(self._fetched.estimator.predict(rows)))

    def _own_lead(self, rows: Any) -> tuple[Floats, Floats]:
        return self._margin(rows, self._scores(rows))

    def _indices(self, predicted: np.ndarray[Any, Any]) -> Ints:
        label = np.asarray(self._index.get_indexer(predicted.ravel().tolist()), dtype=np.int64)
        if (label < 0).any():
            raise ExportError(
                f"the model answers {predicted.ravel().tolist()[int(np.argmax(label < 0))]!r}, "
                "which is not one of its classes: use an estimator whose labels are its classes_"
            )
        return label

    def _probabilities(self, rows: Any) -> Floats:
        found = np.asarray(self._fetched.estimator.predict_proba(rows), dtype=np.float64)
        classes = len(self._answers.classes)
        if found.shape != (len(rows), classes):
            raise ExportError(
                f"the registered model answers {found.shape[-1]} probabilities per row and has "
                f"{classes} {'class' if classes == 1 else 'classes'}: train it on rows of two or "
                "more classes, or use an estimator that answers one probability per class"
            )
        return found

    def _scores(self, rows: Any) -> Floats:
        """Probabilities, or [N, 0] if the model answers none."""
        if "probabilities" in self._answers.outputs:
            return self._probabilities(rows)
        return np.empty((len(rows), 0))

    def _answer(self, rows: Any) -> AnswersOfRows:
        found = self._with_scores(rows, predict(self._fetched, rows))
        if not self._neighbours:
            return found
        return replace(found, tied=self._neighbours.tied(rows, self._fetched.estimator.predict))

    def _own_answer(self, rows: Any) -> AnswersOfRows:
        return self._with_scores(rows, np.asarray(self._fetched.estimator.predict(rows)))

    def _with_scores(self, rows: Any, predicted: np.ndarray[Any, Any]) -> AnswersOfRows:
        if self._answers.task == "regression":
            values = predicted.reshape(len(rows), -1).astype(np.float64)
            return AnswersOfRows(
                np.empty(0, dtype=np.int64), values, np.full(len(rows), np.inf), np.empty(0)
            )
        scores = self._scores(rows)
        return AnswersOfRows(self._indices(predicted), scores, *self._margin(rows, scores))

    def _margin(self, rows: Any, scores: Floats) -> tuple[Floats, Floats]:
        """By how much the label leads, and the magnitude of the decisions that it was chosen by;
        empty if it was chosen by probabilities, which need no scale."""
        unscaled = np.empty(0)
        if self._basis == "probabilities":
            return _lead(scores), unscaled
        if self._basis == "nothing":
            return np.full(len(rows), np.inf), unscaled
        if self._threshold is not None:
            return self._threshold_margin(self._threshold, rows, scores)
        decision = np.asarray(self._fetched.estimator.decision_function(rows), dtype=np.float64)
        return (
            (np.abs(decision), np.abs(decision))
            if decision.ndim == 1
            else (_lead(decision), np.abs(decision).max(axis=1))
        )

    def _threshold_margin(
        self, threshold: Threshold, rows: Any, scores: Floats
    ) -> tuple[Floats, Floats]:
        by_probability = threshold.method == "predict_proba"
        found = threshold.scores(
            scores if by_probability else self._fetched.estimator.decision_function(rows)
        )
        margin = np.abs(found - threshold.value)
        return margin, np.empty(0) if by_probability else np.abs(found)


@dataclass(frozen=True, slots=True)
class AnswersOfRows:
    """Answers for some rows."""

    label: Ints
    scores: Floats
    margin: Floats
    magnitude: Floats
    """Of decisions; empty if the margin is one of probabilities."""
    tied: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """As in `Truth`; empty if there are no neighbours."""


def _joined(pieces: list[tuple[Ints, AnswersOfRows]]) -> tuple[Ints, AnswersOfRows]:
    """The answers of all pieces, by position."""
    positions = np.concatenate([where for where, _ in pieces])
    order = np.argsort(positions)

    def column(name: str) -> Any:
        values = np.concatenate([getattr(part, name) for _, part in pieces])
        return values[order] if len(values) else values

    return positions[order], AnswersOfRows(*map(column, AnswersOfRows.__slots__))


def _scale(magnitude: Floats) -> float:
    """The divisor of margins: the usual size of decisions, at least 1; 1 for probabilities."""
    finite = magnitude[np.isfinite(magnitude)]
    return max(1.0, float(np.median(finite))) if len(finite) else 1.0


def _lead(scores: Floats) -> Floats:
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    best = np.partition(scores, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _quiet() -> Any:
    return np.errstate(all="ignore")
