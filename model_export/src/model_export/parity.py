"""The gate: the registered model against the ONNX graph, in the runtime that will serve it.

`ask` gets the registered model's answers once; `compare` holds one graph's answers against them. Nothing here decides what to do
about a difference: `export` does.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pandas as pd

from model_export.errors import ExportError
from model_export.rows import Matrix, to_model_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.convert import Answers, Dtype
    from model_export.registry import Fetched
    from model_export.samples import Group
    from model_export.schema import Schema

TREE_BOUND = 1e-6
"""Of the probabilities of trees, and of their tie band."""
OTHER_BOUND = 1e-5
"""Of other probabilities and their tie band, and of every regressor's values relative to max(1, |value|)."""
BATCH_SIZES = (1, 128)
_CHUNK = 10_000
_BATCHED_ROWS = 1_000

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


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
            if not group.may_be_refused:
                raise ExportError(f"the registered model fails on the rows {group.name!r}: {error}") from error
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
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
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


class Runtime:
    """A graph in ONNX Runtime, set as the server sets it: one thread, no spinning."""

    def __init__(self, model: bytes, dtype: Dtype) -> None:
        """Load the graph.

        Raises:
            ExportError: ONNX Runtime has no kernel for it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ExportError(f"ONNX Runtime cannot load the {dtype} graph: {str(error).splitlines()[0]}") from error
        self._dtype = dtype
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, packed: Matrix) -> list[np.ndarray[Any, Any]]:
        """Answer packed rows: the doubles of the client's JSON, rounded to the graph's dtype as the server rounds them."""
        with np.errstate(over="ignore"):
            return list(self._session.run(None, {"rows": packed.astype(self._dtype)}))

    def run_all(self, packed: Matrix, advance: Callable[[int], None]) -> list[np.ndarray[Any, Any]]:
        """Answer many rows, in chunks."""
        parts = []
        for start in range(0, len(packed), _CHUNK):
            parts.append(self.run(packed[start : start + _CHUNK]))
            advance(len(packed[start : start + _CHUNK]))
        return [np.concatenate([part[i] for part in parts]) for i in range(len(self.outputs))]


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
    worst: int
    """The row to show first: a wrong label that led by most, else the largest difference."""
    unsteady_labels: int
    """Labels that changed with the batch size or the position in the batch."""
    batch_ulps: int
    """Largest difference of one row's scores between batches, in units of the last place."""

    @property
    def passed(self) -> bool:
        """True where a bundle may be written."""
        return self.mismatches == 0 and self.max_abs_diff <= self.tolerance and self.unsteady_labels == 0


def compare(truth: Truth, runtime: Runtime, *, bound: float, tolerance: float, advance: Callable[[int], None]) -> Comparison:
    """Hold a graph against the registered model's answers.

    Args:
        truth: from `ask`.
        runtime: the loaded graph.
        bound: half-open width of the tie band.
        tolerance: largest difference of a probability, or of a value relative to max(1, |value|).
        advance: told of every chunk of rows that is done.
    """
    outputs = runtime.run_all(truth.rows, advance)
    label = outputs[0] if "label" in runtime.outputs else np.empty(0, dtype=np.int64)
    scores = outputs[-1].reshape(len(truth.rows), -1).astype(np.float64) if runtime.outputs != ("label",) else truth.scores
    difference = _difference(scores, truth.scores, relative="value" in runtime.outputs)
    ties = truth.margin < bound
    wrong = label != truth.label if len(label) else np.zeros(len(truth.rows), dtype=np.bool_)
    unsteady, ulps = _batch_invariance(truth.rows, runtime)
    return Comparison(
        label=label,
        scores=scores,
        mismatches=int((wrong & ~ties).sum()),
        ties=int(ties.sum()),
        tie_mismatches=int((wrong & ties).sum()),
        tie_band=bound,
        max_abs_diff=float(difference.max(initial=0.0)),
        tolerance=tolerance,
        worst=_worst(wrong & ~ties, truth.margin, difference),
        unsteady_labels=unsteady,
        batch_ulps=ulps,
    )


def _difference(scores: Floats, truth: Floats, *, relative: bool) -> Floats:
    """float64[N]: the largest difference in each row; infinite where only one of the two is a number."""
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


def _batch_invariance(rows: Matrix, runtime: Runtime) -> tuple[int, int]:
    """Answer 1,000 rows in batches of 1…128, each time in another order; count labels that change, and the ulps that scores move."""
    rng = np.random.default_rng(128)
    chosen = rows[rng.choice(len(rows), min(_BATCHED_ROWS, len(rows)), replace=False)]
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
    """Largest distance between two arrays of one dtype in units of the last place; NaN equals NaN."""
    apart = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not apart.any():
        return 0
    with np.errstate(all="ignore"):
        distance = np.abs(a[apart] - b[apart]) / np.spacing(np.maximum(np.abs(a[apart]), np.abs(b[apart])))
    return int(np.nan_to_num(distance, nan=2**31, posinf=2**31).max())
