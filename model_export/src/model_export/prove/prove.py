"""Proves a converted model, and tries float64 if the proof in float32 fails."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.convert.convert import Candidate, convert
from model_export.errors import ExportError
from model_export.prove import budget
from model_export.prove.boundary import find, no_boundary
from model_export.prove.compare import OTHER_TOLERANCE, TREE_TOLERANCE, Comparison, compare
from model_export.prove.domain import largest_safe_limit
from model_export.prove.draw import GATE_ROWS, draw, more
from model_export.prove.explain import Explanation, has_trees
from model_export.prove.function import predict_function
from model_export.prove.oracle import Oracle, Truth
from model_export.prove.ranges import find_ranges
from model_export.prove.runtime import Runtime
from model_export.prove.samples import RowSampler, chunk_rows
from model_export.prove.thresholds import threshold_neighbours
from model_export.study.answers import is_constant

if TYPE_CHECKING:
    from model_export.report import Reporter
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
    size_reason: str | None = None
    """Why fewer rows than usual were compared; None: as many as usual, or as requested."""


class GateError(ExportError):
    """The graph's answers are not the registered model's."""

    complete = True

    def __init__(self, studied: StudiedModel, proof: Proof, no_float64: str | None = None) -> None:
        """Say how many answers differ; the rest takes a search, and is said when it is asked for:
        a smaller domain may make it needless."""
        super().__init__()
        self.proof = proof
        self._explanation = Explanation(studied, proof, no_float64)

    def __str__(self) -> str:
        """With a row and both answers to it."""
        return self._explanation.text

    @property
    def reason(self) -> str:
        """Without the row, which may be private data."""
        return self._explanation.reason


def prove(
    studied: StudiedModel,
    first: Candidate,
    reporter: Reporter,
    *,
    fall_back: bool,
    accept: float | None = None,
    rows: int = GATE_ROWS,
    budget_s: float = float("inf"),
) -> Proof:
    """Run the gate over all numbers of float32; if it fails only far from the data, run it again
    within a limit (see `domain`).

    Many rows are compared only after few of them have shown the precision and the limit: otherwise
    each step towards them would take as long as the proof.

    Args:
        studied: the model.
        first: the graph to try first.
        reporter: gets the progress.
        fall_back: try float64 if `first` fails.
        accept: a tolerance given by hand, instead of the model kind's own.
        rows: how many to compare, besides those around tree thresholds.
        budget_s: CPU seconds for all rows; if they would take longer, fewer are compared.

    Raises:
        GateError: the answers differ.
        ExportError: the registered model fails, or ONNX Runtime cannot load the graph.
    """
    started = time.perf_counter()
    size = _affordable(studied, first, rows, budget_s)
    if size.reason:
        reporter.note(size.reason)
    attempt = _Attempt(first, fall_back, None, None)
    if size.rows > 2 * budget.SCOUT_ROWS:
        reporter.note(f"find precision and domain on {budget.SCOUT_ROWS:,} rows")
        scout = _round(studied, reporter, attempt, accept, budget.Size(budget.SCOUT_ROWS), started)
        still = fall_back and scout.candidate.dtype == first.dtype
        attempt = _Attempt(scout.candidate, still, None if still else scout.why, scout.limit)
        del scout  # its rows are not needed while all rows are compared
    return _round(studied, reporter, attempt, accept, size, started)


@dataclass(frozen=True)
class _Attempt:
    """What a round of the gate begins with."""

    candidate: Candidate
    fall_back: bool
    why: str | None
    """Why this precision; None: not known yet."""
    limit: float | None


def _affordable(studied: StudiedModel, first: Candidate, rows: int, budget_s: float) -> budget.Size:
    """How many rows the proof can compare in its time."""
    if not np.isfinite(budget_s):
        return budget.Size(rows)
    oracle = oracle_of(studied)
    runtime = Runtime(first.model, first.dtype, studied.schema)
    data = studied.data.packed
    chunk = chunk_rows(data.shape[1])
    return budget.affordable(
        rows,
        budget.seconds_per_row(oracle.answer_some, data, chunk),
        budget.seconds_per_row(runtime.run, data, chunk),
        budget_s,
    )


def _round(
    studied: StudiedModel,
    reporter: Reporter,
    attempt: _Attempt,
    accept: float | None,
    size: budget.Size,
    started: float,
) -> Proof:
    """Run the gate over so many rows, in smaller and smaller domains; raises as `prove`."""
    limit = attempt.limit
    while True:
        try:
            truth = _ask(studied, reporter, limit, size.rows)
            gate = _Gate(studied, truth, accept, started, reporter, limit, size)
            del truth  # a second round must not keep the first one's rows
            return _prove_within(gate, attempt)
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


def _prove_within(gate: _Gate, attempt: _Attempt) -> Proof:
    first, fall_back = attempt.candidate, attempt.fall_back
    usual = f"{first.dtype} passes" if fall_back else f"{first.dtype} was requested"
    proof = gate.judge(first, attempt.why or usual)
    can_fall_back = fall_back and first.dtype != "float64"
    if proof.comparison.passed:
        return _with_fewer_ties(gate, proof) if can_fall_back else proof
    if not can_fall_back:
        raise GateError(gate.studied, proof)
    return _prove_in_float64(gate, proof)


def _with_fewer_ties(gate: _Gate, proof: Proof) -> Proof:
    """The proof in float64, if fewer rows between training rows that are equally far from them are
    answered otherwise; else the one in float32."""
    differ = proof.comparison.tied_differ
    if not differ:
        return proof
    gate.reporter.note(
        f"{differ:,} rows with equally far neighbours are answered otherwise; trying float64"
    )
    try:
        exact = gate.judge(convert(gate.studied, "float64"), "float32 chooses other neighbours")
    except ExportError:
        return proof
    fewer = exact.comparison.passed and exact.comparison.tied_differ < differ
    return exact if fewer else proof


def _ask(studied: StudiedModel, reporter: Reporter, limit: float | None, rows: int) -> Truth:
    """Draw the rows and ask the registered model.

    Raises:
        ExportError: it fails, or answers the same label for every row.
    """
    data, schema, classes = studied.data.packed, studied.schema, studied.answers.classes
    around = threshold_neighbours(studied.anatomy, schema)
    sampler = RowSampler(data, schema, find_ranges(data, schema, studied.anatomy, around), limit)
    oracle = oracle_of(studied)
    boundary = no_boundary(len(schema.columns))
    if len(classes) > 1:
        boundary = find(oracle, sampler, len(classes), rows=rows)
    sample = draw(sampler, around, boundary, rows=rows)
    with reporter.stage("ask the registered model", sample.size) as advance:
        truth = oracle.ask(sample, advance, lambda repeated: more(sampler, repeated))
    _require_several_labels(truth, classes, studied.fetched.estimator)
    return truth


def _require_several_labels(truth: Truth, classes: tuple[Any, ...], estimator: Any) -> None:
    """A DummyClassifier answers one label by its nature."""
    answered = np.unique(truth.label)
    if len(classes) > 1 and len(answered) == 1 and not is_constant(estimator):
        label = classes[int(answered[0])]
        raise ExportError(
            f"the registered model answers {label!r} for each of {truth.size:,} rows, like the "
            f"data and far from it, though it has {len(classes)} classes: that does not prove how "
            "it chooses; give --data with rows of several classes, or train it so that it answers "
            "several"
        )


def _prove_in_float64(gate: _Gate, failed: Proof) -> Proof:
    comparison = failed.comparison
    worst = failed.truth.sample.group_of(comparison.worst)
    why = (
        f"float32 differs: {comparison.mismatches} labels, by up to {comparison.max_abs_diff:.2g} "
        f"({worst})"
        if comparison.failing.any()
        else f"float32 depends on the batch: {comparison.unsteady_labels} labels change with it"
    )
    gate.reporter.note(why + "; trying float64")
    try:
        proof = gate.judge(convert(gate.studied, "float64"), why)
    except ExportError as error:
        # Without a float64 graph the user can act only on what failed in float32.
        gate.reporter.note(f"no float64: {error}")
        raise GateError(gate.studied, failed, error.reason) from error
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
    size: budget.Size

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
            self.size.reason,
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
                alternatives=oracle_of(self.studied).alternatives,
            )


def oracle_of(studied: StudiedModel) -> Oracle:
    """The registered model as a function of packed rows."""
    return Oracle(studied.fetched, studied.schema, studied.answers, studied.anatomy.threshold)


def default_tolerance(studied: StudiedModel) -> float:
    """The tolerance of the model's kind, which is also its tie band."""
    is_classifier = studied.answers.task == "classification"
    return TREE_TOLERANCE if is_classifier and has_trees(studied) else OTHER_TOLERANCE


def _reference(studied: StudiedModel, truth: Truth) -> str:
    """What the graph was compared with, in one line for the manifest."""
    function = predict_function(studied.fetched)
    labels = (
        "mlflow.pyfunc"
        if function == "predict"
        else f"predict of the estimator in mlflow.pyfunc, which answers {function}"
    )
    if any(column.pandas for column in studied.schema.columns):
        labels = (
            "predict of the estimator in mlflow.pyfunc, for a table with columns of the pandas "
            "type category"
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
    if truth.repeated:
        left_out += f"; {truth.repeated} rows that were drawn again are left out"
    return (
        f"labels and values: {labels}, probabilities: predict_proba of the same model; against "
        f"ONNX Runtime on one thread; rows drawn from {studied.data.origin}{answered}{left_out}"
    )
