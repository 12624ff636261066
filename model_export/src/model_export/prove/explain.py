"""Says why a proof failed: a row with both answers, the step at which the values first differ, the
cause, and what to do."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from model_export.errors import MORE, REASON_CHARACTERS, TRAIN_AGAIN, shorten
from model_export.prove import causes
from model_export.prove.causes import Cause
from model_export.prove.compare import difference
from model_export.prove.domain import magnitudes, usual_magnitude
from model_export.prove.thresholds import tree_splits
from model_export.prove.trace import follow
from model_export.study.rows import to_json

if TYPE_CHECKING:
    from model_export.prove.prove import Proof
    from model_export.prove.trace import Trace
    from model_export.study.arrays import Floats, Ints, Matrix
    from model_export.study.study import StudiedModel

_MOST_CHARACTERS = 5_000
"""Longest row that is shown."""
_OF_OTHER_VERSION = ("converter", "unknown")
"""Causes that a model trained with another scikit-learn has because of that."""
_MOST_ROWS = 5_000
"""Rows that differ among which the one to show is chosen."""


def has_trees(studied: StudiedModel) -> bool:
    """True for trees and ensembles of them."""
    return next(tree_splits(studied.anatomy.final[1]), None) is not None


@dataclass(frozen=True)
class Explanation:
    """A failed proof in words."""

    studied: StudiedModel
    proof: Proof
    no_float64: str | None = None
    """Why there is no graph in float64, if one was tried."""

    @property
    def text(self) -> str:
        """All that is known, the row included, in several lines."""
        where = f"\n{self._cause.where}" if self._cause.where else ""
        return f"{self._counts}\n{self._shown}{where}\ncause: {self._cause.text}; {self._end}"

    @property
    def reason(self) -> str:
        """In one line, without the row, which may be private data."""
        end = f"; {self._end}"
        start = shorten(f"{self._counts} cause: {self._cause.text}", REASON_CHARACTERS - len(end))
        return start + end

    @property
    def _counts(self) -> str:
        comparison, size = self.proof.comparison, self.proof.truth.size
        largest = f"{comparison.max_abs_diff:.3g} (allowed {comparison.tolerance:.0e})"
        start = "refused: the graph's answers are not the registered model's:"
        if self.studied.answers.task == "regression":
            differ = int(comparison.failing.sum())
            return f"{start} {differ:,} of {size:,} values differ, by up to {largest}."
        chances = f"; the largest difference of a probability is {largest}"
        return (
            f"{start} {comparison.mismatches:,} of {size:,} labels differ outside the tie band, "
            f"{comparison.unsteady_labels:,} change with the batch"
            f"{chances if 'probabilities' in self.studied.answers.outputs else ''}."
        )

    @cached_property
    def _index(self) -> int:
        """The row to show: one near to the data, because rows far from it could be excluded by a
        limit; of those the wrong label that leads by most, otherwise the largest difference."""
        comparison, truth = self.proof.comparison, self.proof.truth
        failing = np.flatnonzero(comparison.failing)
        if not len(failing):
            return comparison.worst
        some = np.unique(np.append(failing[:_MOST_ROWS], comparison.worst))
        some = some[comparison.failing[some]]
        size = magnitudes(truth.sample.take(some), self.studied.schema)
        near = some[size <= max(usual_magnitude(self.studied), float(size.min()))]
        if comparison.mismatches and len(truth.label):
            wrong = near[comparison.label[near] != truth.label[near]]
            if len(wrong):
                return int(wrong[np.argmax(np.nan_to_num(truth.margin[wrong], posinf=1e300))])
        relative = self.studied.answers.task == "regression"
        apart = difference(comparison.scores[near], truth.scores[near], relative=relative)
        return int(near[np.argmax(apart)])

    @cached_property
    def _row(self) -> Matrix:
        """float64[1, F]."""
        return self.proof.truth.sample.take([self._index])

    @property
    def _shown(self) -> str:
        """The row as a client would write it, with both answers."""
        i, truth, mine = self._index, self.proof.truth, self.proof.comparison
        row = json.dumps(to_json(self._row[0], self.studied.schema), ensure_ascii=False)
        cut = row if len(row) <= _MOST_CHARACTERS else f"{row[:_MOST_CHARACTERS]} …"
        return (
            f"worst row ({truth.sample.group_of(i)}): {cut}\n"
            f"  registered model: {self._answer(truth.label, truth.scores)}\n"
            f"  {self.proof.candidate.dtype} graph: {self._answer(mine.label, mine.scores)}"
        )

    def _answer(self, label: Ints, scores: Floats) -> str:
        numbers = ", ".join(f"{score:.9g}" for score in scores[self._index])
        if self.studied.answers.task == "regression":
            return numbers
        answer = repr(self.studied.answers.classes[int(label[self._index])])
        return f"{answer} ({numbers})" if numbers else answer

    @cached_property
    def _cause(self) -> Cause:
        comparison = self.proof.comparison
        if comparison.unsteady_labels:
            return causes.unsteady()
        dtype = self.proof.candidate.dtype
        traced = follow(self.studied, dtype, self._row)
        found = causes.find(self.studied, traced, self._exact(traced), self._row)
        return found.beyond_domain(self.studied, self._row) if self._is_far else found

    def _exact(self, traced: Trace | None) -> Trace | None:
        """The same row in a float64 graph; None if that is the one that fails, or there is none."""
        if traced is None or traced.dtype == "float64" or self.no_float64:
            return None
        return follow(self.studied, "float64", self._row)

    @property
    def _is_far(self) -> bool:
        """True if even the row nearest to the data is far from it."""
        size = float(magnitudes(self._row, self.studied.schema)[0])
        return 0.0 < usual_magnitude(self.studied) < size

    @property
    def _end(self) -> str:
        """What to do, and where more is said."""
        ways = [self._cause.advice(self.proof.candidate.dtype, tried=self.no_float64 is not None)]
        if other := self.studied.fetched.other_version:
            again = f"it was {other}, which may answer otherwise: {TRAIN_AGAIN}"
            if self._cause.kind in _OF_OTHER_VERSION:
                return f"{again} {MORE}"
            ways = [again, f"or {ways[0]}"]
        comparison = self.proof.comparison
        only_scores = not comparison.mismatches and not comparison.unsteady_labels
        if only_scores and math.isfinite(comparison.max_abs_diff):
            what = "values" if self.studied.answers.task == "regression" else "probabilities"
            bound = rounded_up(comparison.max_abs_diff)
            ways.append(
                f"or, as only {what} differ, allow the difference with --accept-parity {bound}"
            )
        return f"{', '.join(ways)} {MORE}"


def rounded_up(difference_: float) -> str:
    """The number with one digit that is not smaller: 0.00123 → 0.002."""
    exponent = math.floor(math.log10(difference_))
    lead = math.ceil(round(difference_ / 10.0**exponent, 9))
    return f"{lead * 10.0**exponent:.0e}" if exponent < -3 else f"{lead * 10.0**exponent:.6g}"
