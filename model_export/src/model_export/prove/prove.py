"""Proves a converted model, and tries float64 if the proof in float32 fails."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.convert.convert import Candidate, convert
from model_export.errors import ExportError, shorten
from model_export.prove.boundary import find, no_boundary
from model_export.prove.compare import OTHER_TOLERANCE, TREE_TOLERANCE, Comparison, compare
from model_export.prove.domain import largest_safe_limit
from model_export.prove.draw import GATE_ROWS, draw
from model_export.prove.oracle import Oracle, Truth, predict_function
from model_export.prove.ranges import find_ranges
from model_export.prove.runtime import Runtime
from model_export.prove.samples import RowSampler
from model_export.prove.thresholds import Affine, threshold_neighbours, trace, tree_splits
from model_export.study.rows import to_json

if TYPE_CHECKING:
    from model_export.report import Reporter
    from model_export.study.arrays import Floats, Ints
    from model_export.study.study import StudiedModel


@dataclass(frozen=True)
class Proof:
    """A candidate with the gate's verdict."""

    candidate: Candidate
    truth: Truth
    comparison: Comparison
    accepted: float | None
    """The tolerance given by hand; None: the model kind's own."""
    seconds: float
    reference: str
    """What the graph was compared with, for the manifest."""
    why: str
    """Why this precision."""
    limit: float | None
    """Proven for numbers within ± this; None: for all numbers of float32."""


class GateError(ExportError):
    """The graph's answers are not the registered model's."""

    def __init__(self, studied: StudiedModel, proof: Proof) -> None:
        """Say how many answers differ, and show the worst row with both answers."""
        self.proof = proof
        c = proof.comparison
        counts = (
            f"refused: {c.mismatches} of {proof.truth.size:,} labels differ outside the tie band, "
            f"{c.unsteady_labels} change with the "
            f"batch; largest difference {c.max_abs_diff:.3g} (allowed {c.tolerance:.0e})."
        )
        self._reason = shorten(f"{counts} {cause(studied, proof)}")
        super().__init__(f"{counts}\n{worst_row(studied, proof)}\n{cause(studied, proof)}")

    @property
    def reason(self) -> str:
        """Without the row, which may be private data."""
        return self._reason


def prove(
    studied: StudiedModel,
    first: Candidate,
    reporter: Reporter,
    *,
    fall_back: bool,
    accept: float | None = None,
    rows: int = GATE_ROWS,
) -> Proof:
    """Run the gate over all numbers of float32; if it fails only far from the data, run it again
    within a limit (see `domain`).

    Args:
        studied: the model.
        first: the graph to try first.
        reporter: gets the progress.
        fall_back: try float64 if `first` fails.
        accept: a tolerance given by hand, instead of the model kind's own.
        rows: how many to compare, besides those around tree thresholds.

    Raises:
        GateError: the answers differ.
        ExportError: the registered model fails, or ONNX Runtime cannot load the graph.
    """
    started = time.perf_counter()
    limit: float | None = None
    while True:
        try:
            truth = _ask(studied, reporter, limit, rows)
            gate = _Gate(studied, truth, accept, started, reporter, limit)
            del truth  # a second round must not keep the first one's rows
            return _prove_within(gate, first, fall_back=fall_back)
        except GateError as error:
            limit = _smaller_domain(studied, error.proof)
            if limit is None:
                raise
            differ = int(error.proof.comparison.failing.sum())
            reporter.note(
                f"{differ:,} rows differ, all of them with numbers beyond ±{limit:g}; trying "
                "again within this limit"
            )


def _smaller_domain(studied: StudiedModel, proof: Proof) -> float | None:
    """A limit within which the graph may pass; None if it fails near the data or depends on the
    batch."""
    failing = proof.comparison.failing
    if proof.comparison.unsteady_labels or not failing.any():
        return None
    ends = np.cumsum([0, *(len(rows) for rows in proof.truth.sample.chunks())])
    chunks = zip(proof.truth.sample.chunks(), ends[:-1], ends[1:], strict=True)
    return largest_safe_limit(
        (rows[failing[start:end]] for rows, start, end in chunks),
        studied.data.packed,
        studied.schema,
    )


def _prove_within(gate: _Gate, first: Candidate, *, fall_back: bool) -> Proof:
    proof = gate.judge(
        first, f"{first.dtype} passes" if fall_back else f"{first.dtype} was requested"
    )
    if proof.comparison.passed:
        return proof
    if not fall_back or first.dtype == "float64":
        raise GateError(gate.studied, proof)
    return _prove_in_float64(gate, proof)


def _ask(studied: StudiedModel, reporter: Reporter, limit: float | None, rows: int) -> Truth:
    """Draw the rows and ask the registered model.

    Raises:
        ExportError: it fails, or answers the same label for every row.
    """
    data, schema, classes = studied.data.packed, studied.schema, studied.answers.classes
    around = threshold_neighbours(studied.anatomy, schema)
    sampler = RowSampler(data, schema, find_ranges(data, schema, studied.anatomy, around), limit)
    oracle = Oracle(studied.fetched, schema, studied.answers, studied.anatomy.threshold)
    boundary = no_boundary(len(schema.columns))
    if len(classes) > 1:
        boundary = find(oracle, sampler, len(classes), rows=rows)
    sample = draw(sampler, around, boundary, rows=rows)
    with reporter.stage("ask the registered model", sample.size) as advance:
        truth = oracle.ask(sample, advance)
    _require_several_labels(truth, classes)
    return truth


def _require_several_labels(truth: Truth, classes: tuple[Any, ...]) -> None:
    answered = np.unique(truth.label)
    if len(classes) > 1 and len(answered) == 1:
        label = classes[int(answered[0])]
        raise ExportError(
            f"the registered model answers {label!r} for each of {truth.size:,} rows, like the "
            f"data and far from it, though it has {len(classes)} classes: that does not prove how "
            "it chooses; give --data with rows of several classes"
        )


def _prove_in_float64(gate: _Gate, failed: Proof) -> Proof:
    comparison = failed.comparison
    worst = failed.truth.sample.group_of(comparison.worst)
    why = (
        f"float32 differs: {comparison.mismatches} labels, by up to {comparison.max_abs_diff:.2g} "
        f"({worst})"
    )
    gate.reporter.note(why + "; trying float64")
    try:
        proof = gate.judge(convert(gate.studied, "float64"), why)
    except ExportError as error:
        # Without a float64 graph the user can act only on what failed in float32.
        gate.reporter.note(f"no float64: {error}")
        raise GateError(gate.studied, failed) from error
    if not proof.comparison.passed:
        raise GateError(gate.studied, proof)
    return proof


@dataclass(frozen=True)
class _Gate:
    """What every candidate of one model is compared with, and how strictly."""

    studied: StudiedModel
    truth: Truth
    accept: float | None
    started: float
    reporter: Reporter
    limit: float | None

    def judge(self, candidate: Candidate, why: str) -> Proof:
        """Compare one graph with the registered model's answers."""
        comparison = self._compared(
            Runtime(candidate.model, candidate.dtype, self.studied.schema), candidate.dtype
        )
        return Proof(
            candidate,
            self.truth,
            comparison,
            self.accept,
            time.perf_counter() - self.started,
            _reference(self.studied, self.truth),
            why,
            self.limit,
        )

    def _compared(self, runtime: Runtime, dtype: str) -> Comparison:
        tolerance = default_tolerance(self.studied)
        with self.reporter.stage(f"ask the {dtype} graph", self.truth.size) as advance:
            return compare(
                self.truth,
                runtime,
                tie_band=max(tolerance, self.accept or 0.0),
                tolerance=self.accept or tolerance,
                advance=advance,
            )


def default_tolerance(studied: StudiedModel) -> float:
    """The tolerance of the model's kind, which is also its tie band."""
    is_classifier = studied.answers.task == "classification"
    return TREE_TOLERANCE if is_classifier and has_trees(studied) else OTHER_TOLERANCE


def has_trees(studied: StudiedModel) -> bool:
    """True for trees and ensembles of them."""
    return next(tree_splits(studied.anatomy.final[1]), None) is not None


def _reference(studied: StudiedModel, truth: Truth) -> str:
    """What the graph was compared with, in one line for the manifest."""
    function = predict_function(studied.fetched)
    labels = (
        "mlflow.pyfunc"
        if function == "predict"
        else f"predict of the estimator in mlflow.pyfunc, which answers {function}"
    )
    if studied.schema.takes_texts:
        labels = "predict of the estimator in mlflow.pyfunc, for a list of texts"
    if studied.fetched.flavor == "onnx":
        labels = "the graph as mlflow.pyfunc runs it"
    left_out = (
        f"; the registered model raises on {truth.refused} rows, which are left out"
        if truth.refused
        else ""
    )
    classes = len(studied.answers.classes)
    answered = (
        f"; {len(np.unique(truth.label))} of {classes} classes are answered" if classes else ""
    )
    return (
        f"labels and values: {labels}, probabilities: predict_proba of the same model; against "
        f"ONNX Runtime on one thread; rows drawn from {studied.data.origin}{answered}{left_out}"
    )


def worst_row(studied: StudiedModel, proof: Proof) -> str:
    """The worst row as the client would write it, with both answers."""
    i, truth, mine = proof.comparison.worst, proof.truth, proof.comparison
    registered = _answer(studied, truth.label, truth.scores, i)
    graph = _answer(studied, mine.label, mine.scores, i)
    row = to_json(truth.sample.take([i])[0], studied.schema)
    shown = f"worst row ({truth.sample.group_of(i)}): {_cut(json.dumps(row, ensure_ascii=False))}"
    return f"{shown}\n  registered model: {registered}\n  {proof.candidate.dtype} graph: {graph}"


_MOST_CHARACTERS = 5_000
"""Longest row that is shown."""


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"


def _answer(studied: StudiedModel, label: Ints, scores: Floats, i: int) -> str:
    numbers = ", ".join(f"{score:.9g}" for score in scores[i])
    if studied.answers.task == "regression":
        return numbers
    answer = repr(studied.answers.classes[int(label[i])])
    return f"{answer} ({numbers})" if numbers else answer


def cause(studied: StudiedModel, proof: Proof) -> str:
    """The likely cause of a failed proof, in words."""
    if has_trees(studied) and (of_trees := _cause_of_trees(studied, proof)):
        return f"likely cause: {of_trees}"
    return f"likely cause: {_cause_of_any(type(studied.anatomy.final[1]).__name__, proof)}"


def _cause_of_trees(studied: StudiedModel, proof: Proof) -> str | None:
    row = to_json(proof.truth.sample.take([proof.comparison.worst])[0], studied.schema)
    nulls = [name for name, value in row.items() if value is None]
    if nulls:
        return (
            f"null in {', '.join(nulls)}. The trees were trained to send missing values to a side "
            "of their own, which the converted ones do not (sklearn-onnx#1253). Impute first, or "
            "train without nulls and sign the column as required."
        )
    if _is_scaled(studied) and proof.candidate.dtype == "float32":
        return (
            "a scaler before trees. In float32 it moves values across thresholds; export with "
            "--dtype float64."
        )
    return None


def _cause_of_any(kind: str, proof: Proof) -> str:
    comparison = proof.comparison
    if comparison.unsteady_labels:
        return "the runtime sums in another order for other batch sizes."
    if "KNeighbors" in kind or "RadiusNeighbors" in kind:
        return (
            "neighbours at equal distances, of which scikit-learn and ONNX Runtime choose "
            "different ones. Another number of neighbours, or data without repeated values, may "
            "avoid it."
        )
    if comparison.failing.mean() > _PRECISION_SHARE and comparison.max_abs_diff > _PRECISION:
        return (
            f"skl2onnx {version('skl2onnx')} converts {kind} into a graph that computes something "
            "else; it cannot be served."
        )
    return (
        "the precision, or a converter that differs from scikit-learn. If the difference is "
        "acceptable, allow it with --accept-parity."
    )


_PRECISION = 1e-3
_PRECISION_SHARE = 0.01
"""If more of the rows differ, and by more, precision is not the cause: it fails at edges, near a
change of the label, and far from the data."""


def _is_scaled(studied: StudiedModel) -> bool:
    lineage = trace(studied.anatomy) or []
    return any(
        isinstance(source, Affine) and (source.scale, source.offset) != (1.0, 0.0)
        for source in lineage
    )
