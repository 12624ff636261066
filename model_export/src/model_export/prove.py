"""Proves a converted model, and tries the next precision where the proof fails."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export import convert as conversion
from model_export.domain import narrower
from model_export.errors import ExportError, shorten
from model_export.oracle import Truth, ask
from model_export.parity import OTHER_BOUND, TREE_BOUND, Comparison, compare
from model_export.rows import to_json
from model_export.runtime import Runtime
from model_export.samples import GATE_ROWS, draw
from model_export.thresholds import Affine, adversaries, trace, tree_splits

if TYPE_CHECKING:
    from model_export.block import Dtype
    from model_export.oracle import Floats, Ints
    from model_export.report import Reporter
    from model_export.subject import Subject


@dataclass(frozen=True)
class Candidate:
    """A converted model, not yet proven."""

    dtype: Dtype
    model: bytes
    ir_version: int
    opset: dict[str, int]


@dataclass(frozen=True)
class Proof:
    """A candidate with the gate's verdict."""

    candidate: Candidate
    truth: Truth
    comparison: Comparison
    accepted: float | None
    """The tolerance given by hand."""
    seconds: float
    reference: str
    why: str
    """Why this precision."""
    limit: float | None
    """The numbers are proven within ± this; None: all that float32 holds."""


class GateError(ExportError):
    """The graph's answers are not the registered model's."""

    def __init__(self, subject: Subject, proof: Proof) -> None:
        """Say how many answers differ, and show the worst with both answers."""
        self.proof = proof
        c = proof.comparison
        counts = (
            f"refused: {c.mismatches} of {len(proof.truth.rows):,} labels differ outside the tie band, {c.unsteady_labels} change with the "
            f"batch; largest difference {c.max_abs_diff:.3g} (allowed {c.tolerance:.0e})."
        )
        self._reason = shorten(f"{counts} {cause(subject, proof)}")
        super().__init__(f"{counts}\n{worst_row(subject, proof)}\n{cause(subject, proof)}")

    @property
    def reason(self) -> str:
        """Without the row, which may be somebody's data."""
        return self._reason


def convert(subject: Subject, dtype: Dtype) -> Candidate:
    """Convert the model in one precision.

    Raises:
        ExportError: names the step that has no ONNX form.
    """
    model = conversion.convert(subject.anatomy, subject.schema, subject.answers, dtype)
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return Candidate(dtype, model.SerializeToString(), model.ir_version, opset)


def prove(
    subject: Subject, first: Candidate, reporter: Reporter, *, fall_back: bool, accept: float | None = None, rows: int = GATE_ROWS
) -> Proof:
    """Run the gate, over all numbers that float32 holds; where it fails far from the data only, once more within a limit (see `domain`).

    Args:
        subject: the model.
        first: the graph to try first.
        reporter: is told of the progress.
        fall_back: try float64 where `first` fails.
        accept: a tolerance given by hand, instead of the model kind's own.
        rows: how many, besides those around tree thresholds.

    Raises:
        GateError: the answers differ.
        ExportError: the registered model fails, or ONNX Runtime cannot load the graph.
    """
    started = time.perf_counter()
    limit: float | None = None
    while True:
        try:
            return _prove_within(subject, first, reporter, limit, started, fall_back=fall_back, accept=accept, rows=rows)
        except GateError as error:
            failing = error.proof.truth.rows[error.proof.comparison.failing]
            steady = error.proof.comparison.unsteady_labels == 0
            limit = narrower(failing, subject.data.packed, subject.schema) if steady and len(failing) else None
            if limit is None:
                raise
            reporter.note(f"{len(failing):,} rows differ, all of them with numbers beyond ±{limit:g}; trying within")


def _prove_within(
    subject: Subject, first: Candidate, reporter: Reporter, limit: float | None, started: float, *,
    fall_back: bool, accept: float | None, rows: int,
) -> Proof:  # fmt: skip
    groups = draw(subject.data.packed, subject.schema, adversaries(subject.anatomy, subject.schema), rows=rows, limit=limit)
    with reporter.stage("ask the registered model", sum(len(group.rows) for group in groups)) as advance:
        truth = ask(subject.fetched, subject.schema, subject.answers, groups, advance)
    gate = _Gate(subject, truth, accept, started, reporter, limit)
    proof = gate.judge(first, f"{first.dtype} passes" if fall_back else f"{first.dtype} was asked for")
    if proof.comparison.passed:
        return proof
    if not fall_back or first.dtype == "float64":
        raise GateError(subject, proof)
    return _prove_in_float64(gate, proof)


def _prove_in_float64(gate: _Gate, failed: Proof) -> Proof:
    comparison = failed.comparison
    worst = failed.truth.group_of(comparison.worst)
    why = f"float32 differs: {comparison.mismatches} labels, by up to {comparison.max_abs_diff:.2g} ({worst})"
    gate.reporter.note(why + "; trying float64")
    try:
        proof = gate.judge(convert(gate.subject, "float64"), why)
    except ExportError as error:  # no such graph: then what failed in float32 is what the user can act on
        gate.reporter.note(f"no float64: {error}")
        raise GateError(gate.subject, failed) from error
    if not proof.comparison.passed:
        raise GateError(gate.subject, proof)
    return proof


@dataclass(frozen=True)
class _Gate:
    """What every candidate of one model is held against."""

    subject: Subject
    truth: Truth
    accept: float | None
    started: float
    reporter: Reporter
    limit: float | None

    def judge(self, candidate: Candidate, why: str) -> Proof:
        """Compare one graph with the registered model's answers."""
        subject, truth, accept = self.subject, self.truth, self.accept
        bound = TREE_BOUND if has_trees(subject) and subject.answers.task == "classification" else OTHER_BOUND
        runtime = Runtime(candidate.model, candidate.dtype)
        with self.reporter.stage(f"ask the {candidate.dtype} graph", len(truth.rows)) as advance:
            comparison = compare(truth, runtime, bound=max(bound, accept or 0.0), tolerance=accept or bound, advance=advance)
        seconds = time.perf_counter() - self.started
        return Proof(candidate, truth, comparison, accept, seconds, _reference(subject, truth), why, self.limit)


def has_trees(subject: Subject) -> bool:
    """True for trees and ensembles of them."""
    return next(tree_splits(subject.anatomy.final[1]), None) is not None


def _reference(subject: Subject, truth: Truth) -> str:
    left_out = f"; the registered model raises on {len(truth.refused)} edges" if truth.refused else ""
    return (
        f"labels and values: mlflow.pyfunc, probabilities: predict_proba of the same model; against ONNX Runtime on one thread; "
        f"rows drawn from {subject.data.origin}{left_out}"
    )


def worst_row(subject: Subject, proof: Proof) -> str:
    """The row to show, as the client would write it, with both answers."""
    i, truth, mine = proof.comparison.worst, proof.truth, proof.comparison
    registered = _answer(subject, truth.label, truth.scores, i)
    graph = _answer(subject, mine.label, mine.scores, i)
    row = to_json(truth.rows[i], subject.schema)
    shown = f"worst row ({truth.group_of(i)}): {json.dumps(row, ensure_ascii=False)}"
    return f"{shown}\n  registered model: {registered}\n  {proof.candidate.dtype} graph: {graph}"


def _answer(subject: Subject, label: Ints, scores: Floats, i: int) -> str:
    numbers = ", ".join(f"{score:.9g}" for score in scores[i])
    if subject.answers.task == "regression":
        return numbers
    answer = repr(subject.answers.classes[int(label[i])])
    return f"{answer} ({numbers})" if numbers else answer


def cause(subject: Subject, proof: Proof) -> str:
    """The likely cause in words, where it is one of the known ones."""
    row = to_json(proof.truth.rows[proof.comparison.worst], subject.schema)
    nulls = [name for name, value in row.items() if value is None]
    if has_trees(subject) and nulls:
        return (
            f"likely cause: null in {', '.join(nulls)}. The trees were trained to send missing values to a side of their own, which the "
            "converted ones do not (sklearn-onnx#1253). Impute first, or train without nulls and sign the column as required."
        )
    if has_trees(subject) and _is_scaled(subject) and proof.candidate.dtype == "float32":
        return "likely cause: a scaler before trees. In float32 it moves values across thresholds; export with --dtype float64."
    if proof.comparison.unsteady_labels:
        return "likely cause: the runtime sums in another order for other batch sizes."
    return (
        "likely cause: the precision, or a converter that differs from scikit-learn. "
        "Where the difference is acceptable, say so with --accept-parity."
    )


def _is_scaled(subject: Subject) -> bool:
    lineage = trace(subject.anatomy) or []
    return any(isinstance(source, Affine) and (source.scale, source.offset) != (1.0, 0.0) for source in lineage)
