"""The parity table: what one export compared, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from model_export.prove.cautions import cautions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.prove.prove import Proof
    from model_export.study.study import StudiedModel


def parity_table(studied: StudiedModel, proof: Proof, seconds: float) -> Table:
    """The summary of one export."""
    origin = studied.fetched.origin
    table = Table(
        title=f"{origin.name} version {origin.version}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(overflow="fold")  # cut off, a path or a number would be useless
    for field, value in (
        *_rows_compared(studied, proof),
        *_differences(studied, proof),
        *_result(proof),
        ("time", f"{seconds:.1f} s"),
        *(("warning", warning) for warning in cautions(studied, proof)),
    ):
        table.add_row(field, value)
    return table


def _rows_compared(studied: StudiedModel, proof: Proof) -> Iterator[tuple[str, str]]:
    data, truth = studied.data, proof.truth
    yield "data", data.origin
    yield "distinct rows of data", f"{data.distinct_rows:,} of {len(data.packed):,}"
    yield "rows compared", f"{truth.size:,}, all of them distinct"
    if proof.size_reason:
        yield "why so many", proof.size_reason
    yield "of them around tree thresholds", f"{truth.rows_of('thresholds'):,}"
    yield (
        "of them around changes of the label",
        f"{truth.rows_of('around the decision boundary'):,}",
    )


def _differences(studied: StudiedModel, proof: Proof) -> Iterator[tuple[str, str]]:
    comparison = proof.comparison
    mismatches = str(comparison.mismatches) if studied.answers.classes else "– (a regressor)"
    yield "label mismatches", mismatches
    ties = f"{comparison.ties:,}, {comparison.tie_mismatches:,} answered otherwise"
    yield "ties (both labels right)", f"{ties}; band {comparison.tie_band:.0e}"
    if proof.truth.tied is not None:
        tied = f"{comparison.tied_rows:,}, {comparison.tied_differ:,} answered otherwise"
        yield "equally far neighbours (each choice right)", tied
    yield "worst difference", f"{comparison.max_abs_diff:.3g}"
    by_hand = "" if proof.accepted is None else " (accepted by hand)"
    yield "tolerance", f"{comparison.tolerance:.0e}{by_hand}"
    batches = "bit-equal" if comparison.batch_ulps == 0 else f"within {comparison.batch_ulps} ulp"
    yield "batches of 1–128", f"same labels, scores {batches}"


def _result(proof: Proof) -> Iterator[tuple[str, str]]:
    yield (
        "proven for",
        "all numbers"
        if proof.limit is None
        else f"numbers within ±{proof.limit:g}; the server refuses others",
    )
    yield "precision", f"{proof.candidate.dtype}: {proof.why}"
    yield "size", f"{len(proof.candidate.model) / 1e6:,.2f} MB"
