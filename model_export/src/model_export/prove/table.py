"""The parity table: what one export has compared, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from model_export.prove.prove import Proof
    from model_export.study.study import StudiedModel


def parity_table(studied: StudiedModel, proof: Proof, seconds: float) -> Table:
    """The summary of one export."""
    comparison, truth = proof.comparison, proof.truth
    batches = "bit-equal" if comparison.batch_ulps == 0 else f"within {comparison.batch_ulps} ulp"
    origin = studied.fetched.origin
    table = Table(
        title=f"{origin.name} version {origin.version}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(overflow="fold")  # cut off, a path or a number would be useless
    data = studied.data
    for field, value in (
        ("data", data.origin),
        ("distinct rows of data", f"{data.distinct_rows:,} of {len(data.packed):,}"),
        ("rows compared", f"{truth.size:,}"),
        ("of them around tree thresholds", f"{truth.rows_of('thresholds'):,}"),
        (
            "of them around changes of the label",
            f"{truth.rows_of('around the decision boundary'):,}",
        ),
        (
            "label mismatches",
            str(comparison.mismatches) if studied.answers.classes else "– (a regressor)",
        ),
        (
            "ties (both labels right)",
            (
                f"{comparison.ties:,}, {comparison.tie_mismatches:,} answered otherwise; band "
                f"{comparison.tie_band:.0e}"
            ),
        ),
        ("worst difference", f"{comparison.max_abs_diff:.3g}"),
        (
            "tolerance",
            f"{comparison.tolerance:.0e}"
            + ("" if proof.accepted is None else " (accepted by hand)"),
        ),
        ("batches of 1–128", f"same labels, scores {batches}"),
        (
            "proven for",
            "all numbers"
            if proof.limit is None
            else f"numbers within ±{proof.limit:g}; the server refuses others",
        ),
        ("precision", f"{proof.candidate.dtype}: {proof.why}"),
        ("size", f"{len(proof.candidate.model) / 1e6:,.2f} MB"),
        ("time", f"{seconds:.1f} s"),
        *(("warning", warning) for warning in data.warnings),
    ):
        table.add_row(field, value)
    return table
