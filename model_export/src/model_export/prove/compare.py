"""The gate: the registered model against the ONNX graph, in the runtime that will serve it.

`oracle` gets the registered model's answers once; `compare` holds one graph's answers against them.
Nothing here decides what to do about a difference: `prove` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.prove.oracle import Floats, Ints, Truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.prove.runtime import Runtime
    from model_export.prove.samples import Sample
    from model_export.study.rows import Matrix

TREE_BOUND = 1e-6
"""Of the probabilities of trees, and of their tie band."""
OTHER_BOUND = 1e-5
"""Of other probabilities and their tie band, and of every regressor's values relative to max(1,
|value|)."""
BATCH_SIZES = (1, 128)
_BATCHED_ROWS = 1_000
_BATCHED_VALUES = 1_000_000

Flags = np.ndarray[Any, np.dtype[np.bool_]]


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
    """The row to show first: a wrong label that led by most, else the largest difference."""
    unsteady_labels: int
    """Labels that changed with the batch size or the position in the batch."""
    batch_ulps: int
    """Largest difference of one row's scores between batches, in units of the last place."""

    @property
    def passed(self) -> bool:
        """True where a bundle may be written."""
        return (
            self.mismatches == 0
            and self.max_abs_diff <= self.tolerance
            and self.unsteady_labels == 0
        )


def compare(
    truth: Truth,
    runtime: Runtime,
    *,
    bound: float,
    tolerance: float,
    advance: Callable[[int], None],
) -> Comparison:
    """Hold a graph against the registered model's answers.

    Args:
        truth: from `ask`.
        runtime: the loaded graph.
        bound: half-open width of the tie band.
        tolerance: largest difference of a probability, or of a value relative to max(1, |value|).
        advance: told of every chunk of rows that is done.
    """
    outputs = runtime.run_all(truth.sample.chunks(), advance)
    label = outputs[0] if "label" in runtime.outputs else np.empty(0, dtype=np.int64)
    scores = (
        outputs[-1].reshape(truth.size, -1).astype(np.float64)
        if runtime.outputs != ("label",)
        else truth.scores
    )
    difference = _difference(scores, truth.scores, relative="value" in runtime.outputs)
    ties = truth.margin < bound
    wrong = label != truth.label if len(label) else np.zeros(truth.size, dtype=np.bool_)
    unsteady, ulps = _batch_invariance(truth.sample, runtime)
    return Comparison(
        label=label,
        scores=scores,
        mismatches=int((wrong & ~ties).sum()),
        ties=int(ties.sum()),
        tie_mismatches=int((wrong & ties).sum()),
        tie_band=bound,
        max_abs_diff=float(difference.max(initial=0.0)),
        tolerance=tolerance,
        failing=(wrong & ~ties) | (difference > tolerance),
        worst=_worst(wrong & ~ties, truth.margin, difference),
        unsteady_labels=unsteady,
        batch_ulps=ulps,
    )


def _difference(scores: Floats, truth: Floats, *, relative: bool) -> Floats:
    """float64[N]: the largest difference in each row; infinite where only one of the two is a
    number."""
    if truth.shape[1] == 0:
        return np.zeros(len(truth))
    with np.errstate(all="ignore"):
        apart = np.abs(scores - truth) / (np.maximum(1.0, np.abs(truth)) if relative else 1.0)
    apart = np.where((scores == truth) | (np.isnan(scores) & np.isnan(truth)), 0.0, apart)
    return np.asarray(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(axis=1))


def _worst(wrong: Flags, margin: Floats, difference: Floats) -> int:
    if wrong.any():
        return int(np.argmax(np.where(wrong, np.minimum(margin, np.finfo(np.float64).max), -1.0)))
    return int(np.argmax(difference))


def _batch_invariance(sample: Sample, runtime: Runtime) -> tuple[int, int]:
    """Answer 1,000 rows in batches of 1…128, each time in another order; count labels that change,
    and the ulps that scores move.

    Of models with many columns fewer rows, at least 129: then every batch is asked twice at least.
    """
    rng = np.random.default_rng(128)
    most = min(_BATCHED_ROWS, max(BATCH_SIZES[1] + 1, _BATCHED_VALUES // sample.columns))
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
    """Largest distance between two arrays of one dtype in units of the last place; NaN equals
    NaN."""
    apart = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not apart.any():
        return 0
    with np.errstate(all="ignore"):
        distance = np.abs(a[apart] - b[apart]) / np.spacing(
            np.maximum(np.abs(a[apart]), np.abs(b[apart]))
        )
    return int(np.nan_to_num(distance, nan=2**31, posinf=2**31).max())
