"""The gate: compares an ONNX graph with the registered model, in the runtime that will serve it.

`oracle` gets the registered model's answers once; `compare` compares one graph's answers with them.
`prove` decides what to do about a difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.prove.neighbours import MOST_ANSWERS
from model_export.study.arrays import same_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.prove.oracle import AnswersOfRows, Truth
    from model_export.prove.runtime import Runtime
    from model_export.prove.samples import Sample
    from model_export.study.arrays import Flags, Floats, Ints, Matrix

    Alternatives = Callable[[Matrix, int], tuple[Ints, AnswersOfRows | None]]
    """Of rows, float64[N, F], at most so many right answers: the row of each, and the answers."""

TREE_TOLERANCE = 1e-6
"""Of the probabilities of trees, and of their tie band."""
OTHER_TOLERANCE = 1e-5
"""Of other probabilities and their tie band, and of every regressor's values relative to max(1,
|value|)."""
BATCH_SIZES = (1, 128)
_ROWS_OF_TIES = 500
"""Rows for which the right answers are asked together."""
_BATCHED_ROWS = 1_000
_BATCHED_VALUES = 1_000_000
_ROWS_PER_BATCHED = 90
"""One batched row per so many rows: less than 100, as some of 100,000 rows are left out."""


@dataclass(frozen=True)
class Comparison:
    """How one graph's answers compare with the registered model's."""

    label: Ints
    scores: Floats
    """As in `Truth`, but the graph's."""
    mismatches: int
    """Labels that differ outside the tie band."""
    ties: int
    """Rows whose two best classes lie within the tie band."""
    tie_mismatches: int
    """Labels that differ inside the tie band."""
    tie_band: float
    max_abs_diff: float
    tolerance: float
    failing: Flags
    """bool[N]: rows whose label is wrong outside the tie band, or whose scores differ by more than
    the tolerance."""
    worst: int
    """The row to show first: the wrong label with the largest margin, otherwise the largest
    difference."""
    unsteady_labels: int
    """Labels that changed with the batch size or the position in the batch."""
    batch_ulps: int
    """Largest difference of one row's scores between batches, in ulp (units in the last place)."""
    tied_rows: int = 0
    """Rows with several right choices of neighbours."""
    excused: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """bool[N]: those of them whose two answers differ, and are both right; empty: none."""

    @property
    def tied_differ(self) -> int:
        """How many rows are excused."""
        return int(self.excused.sum())

    @property
    def passed(self) -> bool:
        """True if a bundle may be written."""
        return (
            self.mismatches == 0
            and self.max_abs_diff <= self.tolerance
            and self.unsteady_labels == 0
        )


def compare(
    truth: Truth,
    runtime: Runtime,
    *,
    tie_band: float,
    tolerance: float,
    advance: Callable[[int], None],
    alternatives: Alternatives | None = None,
) -> Comparison:
    """Compare a graph with the registered model's answers.

    Args:
        truth: from `ask`.
        runtime: the loaded graph.
        tie_band: a row is a tie if its label leads by less than this.
        tolerance: largest difference of a probability, or of a value relative to max(1, |value|).
        advance: called with the number of rows in each finished chunk.
        alternatives: for a model of neighbours, the right answers to rows.
    """
    label, scores = _graph_answers(truth, runtime, advance)
    relative = "value" in runtime.outputs
    apart = difference(scores, truth.scores, relative=relative)
    ties = truth.ties(tie_band)
    differs = label != truth.label if len(label) else np.zeros(truth.size, dtype=np.bool_)
    wrong = differs & ~ties
    excused = np.zeros(truth.size, dtype=np.bool_)
    if alternatives is not None and truth.tied is not None:
        places = np.flatnonzero((wrong | (apart > tolerance)) & truth.tied)
        rule = _Both(truth, label, scores, tie_band, tolerance, relative)
        excused[rule.right(places, alternatives)] = True
        wrong, apart = wrong & ~excused, np.where(excused, 0.0, apart)
    unsteady, ulps = _batch_invariance(truth.sample, runtime)
    return Comparison(
        label=label,
        scores=scores,
        mismatches=int(wrong.sum()),
        ties=int(ties.sum()),
        tie_mismatches=int((differs & ties & ~excused).sum()),
        tie_band=tie_band,
        max_abs_diff=float(apart.max(initial=0.0)),
        tolerance=tolerance,
        failing=wrong | (apart > tolerance),
        worst=_worst(wrong, truth.margin, apart),
        unsteady_labels=unsteady,
        batch_ulps=ulps,
        tied_rows=0 if truth.tied is None else int(truth.tied.sum()),
        excused=excused,
    )


@dataclass(frozen=True)
class _Both:
    """Finds rows whose two answers are both right: each of them is one that the registered model
    gives for a choice of neighbours that the distances allow."""

    truth: Truth
    label: Ints
    scores: Floats
    """The graph's, as in `Comparison`."""
    tie_band: float
    tolerance: float
    relative: bool

    def right(self, places: Ints, alternatives: Alternatives) -> Ints:
        """Those of the rows' places where it is so."""
        found: list[int] = []
        left = MOST_ANSWERS
        for start in range(0, len(places), _ROWS_OF_TIES):
            some = places[start : start + _ROWS_OF_TIES]
            owners, answers = alternatives(self.truth.sample.take(some.tolist()), left)
            if answers is None:
                continue
            left -= len(owners)
            of_model = self._is(some[owners], self.truth.label, self.truth.scores, answers)
            of_graph = self._is(some[owners], self.label, self.scores, answers)
            both = np.intersect1d(owners[of_model], owners[of_graph])
            found += some[both].tolist()
        return np.asarray(found, dtype=np.int64)

    def _is(self, at: Ints, label: Ints, scores: Floats, answers: AnswersOfRows) -> Flags:
        """bool[M]: the answer to the row at each of M places is the M-th one of `answers`."""
        apart = difference(scores[at], answers.scores, relative=self.relative)
        same = apart <= self.tolerance
        if len(label):
            same &= (label[at] == answers.label) | (answers.margin < self.tie_band)
        return np.asarray(same)


def _graph_answers(
    truth: Truth, runtime: Runtime, advance: Callable[[int], None]
) -> tuple[Ints, Floats]:
    """Labels and scores as in `Truth`."""
    outputs = runtime.run_all(truth.sample.chunks(), advance)
    label = outputs[0] if "label" in runtime.outputs else np.empty(0, dtype=np.int64)
    if runtime.outputs == ("label",):
        return label, truth.scores
    return label, outputs[-1].reshape(truth.size, -1).astype(np.float64)


def difference(scores: Floats, truth: Floats, *, relative: bool) -> Floats:
    """The largest difference in each row.

    Args:
        scores: [N, K] of the graph or the server.
        truth: [N, K] of the registered model.
        relative: divide each difference by max(1, |truth|).

    Returns:
        float64[N]; infinite where only one of the two is a number.
    """
    if truth.shape[1] == 0:
        return np.zeros(len(truth))
    with np.errstate(all="ignore"):
        apart = np.abs(scores - truth) / (np.maximum(1.0, np.abs(truth)) if relative else 1.0)
    apart = np.where(same_values(scores, truth), 0.0, apart)
    return np.asarray(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(axis=1))


def _worst(wrong: Flags, margin: Floats, apart: Floats) -> int:
    if wrong.any():
        return int(np.argmax(np.where(wrong, np.minimum(margin, np.finfo(np.float64).max), -1.0)))
    return int(np.argmax(apart))


def _batch_invariance(sample: Sample, runtime: Runtime) -> tuple[int, int]:
    """Answer 1,000 rows in batches of 1…128, each time in another order; returns how many labels
    change, and by how many ulp the scores change.

    Models with many columns and proofs of fewer rows get fewer of them, at least 129, so that every
    size makes two batches or more.
    """
    rng = np.random.default_rng(128)
    most = min(
        _BATCHED_ROWS,
        max(
            BATCH_SIZES[1] + 1,
            min(_BATCHED_VALUES // sample.columns, sample.size // _ROWS_PER_BATCHED),
        ),
    )
    chosen = sample.take(rng.choice(sample.size, min(most, sample.size), replace=False))
    alone = _in_batches(chosen, runtime, 1)
    unsteady, ulps = 0, 0
    for size in range(BATCH_SIZES[0] + 1, BATCH_SIZES[1] + 1):
        order = rng.permutation(len(chosen))
        batched = _in_batches(chosen[order], runtime, size)
        for name, one, many in zip(runtime.outputs, alone, batched, strict=True):
            if name == "label":
                unsteady += int((one[order] != many).sum())
            else:
                ulps = max(ulps, _ulps(one[order], many))
    return unsteady, ulps


def _in_batches(rows: Matrix, runtime: Runtime, size: int) -> list[np.ndarray[Any, Any]]:
    parts = [runtime.run(rows[start : start + size]) for start in range(0, len(rows), size)]
    return [np.concatenate([part[i] for part in parts]) for i in range(len(runtime.outputs))]


def _ulps(a: Floats, b: Floats) -> int:
    """Largest distance between two arrays of one dtype in ulp; NaN equals NaN."""
    apart = ~same_values(a, b)
    if not apart.any():
        return 0
    with np.errstate(all="ignore"):
        distance = np.abs(a[apart] - b[apart]) / np.spacing(
            np.maximum(np.abs(a[apart]), np.abs(b[apart]))
        )
    return int(np.nan_to_num(distance, nan=2**31, posinf=2**31).max())
