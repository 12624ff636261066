"""What the user sees: progress while it runs, the parity table at the end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from model_export import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_export.prove import Proof
    from model_export.subject import Subject


class Reporter:
    """Progress bars on a terminal, one line per stage elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        """Report to `console`, by default to standard error, so that standard output holds results only."""
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one stage; yields a function that is told of each part that is done."""
        stages.enter(title)
        started = time.perf_counter()
        if not self.console.is_terminal:
            self.console.print(f"  {title} …", markup=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(f"  {title}", total=total)
            yield lambda count: progress.advance(task, count)
        rows = f" {total:,} rows," if total else ""
        self.console.print(f"  {title}:{rows} {time.perf_counter() - started:.1f} s", markup=False)

    def note(self, text: str) -> None:
        """Say something the user should know."""
        self.console.print(f"  {text}", markup=False)

    def heading(self, text: str) -> None:
        """Begin a model."""
        self.console.print(text, style="bold", markup=False)


def parity_table(subject: Subject, proof: Proof, seconds: float) -> Table:
    """The summary of one export."""
    comparison, truth = proof.comparison, proof.truth
    batches = "bit-equal" if comparison.batch_ulps == 0 else f"within {comparison.batch_ulps} ulp"
    origin = subject.fetched.origin
    table = Table(title=f"{origin.name} version {origin.version}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # cut off, a path or a number would be useless
    data = subject.data
    for field, value in (
        ("data", data.origin),
        ("distinct rows of data", f"{data.distinct_rows:,} of {len(data.packed):,}"),
        ("rows compared", f"{truth.size:,}"),
        ("of them around tree thresholds", f"{truth.rows_of('thresholds'):,}"),
        ("of them around changes of the label", f"{truth.rows_of('around the decision boundary'):,}"),
        ("label mismatches", str(comparison.mismatches) if subject.answers.classes else "– (a regressor)"),
        (
            "ties (both labels right)",
            f"{comparison.ties:,}, {comparison.tie_mismatches:,} answered otherwise; band {comparison.tie_band:.0e}",
        ),
        ("worst difference", f"{comparison.max_abs_diff:.3g}"),
        ("tolerance", f"{comparison.tolerance:.0e}" + ("" if proof.accepted is None else " (accepted by hand)")),
        ("batches of 1–128", f"same labels, scores {batches}"),
        ("proven for", "all numbers" if proof.limit is None else f"numbers within ±{proof.limit:g}; the server refuses others"),
        ("precision", f"{proof.candidate.dtype}: {proof.why}"),
        ("size", f"{len(proof.candidate.model) / 1e6:,.2f} MB"),
        ("time", f"{seconds:.1f} s"),
        *(("warning", warning) for warning in data.warnings),
    ):
        table.add_row(field, value)
    return table
