"""What the user sees while an export runs: headings, progress and notes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from model_export import stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Reporter:
    """Shows progress bars on a terminal, otherwise one line per stage."""

    def __init__(self, console: Console | None = None) -> None:
        """Report to `console`, by default to standard error, so that standard output holds results
        only."""
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one stage; yields a function to call with the number of rows in each finished
        part."""
        stages.enter(title)
        started = time.perf_counter()
        if not self.console.is_terminal:
            self.console.print(f"  {title} …", markup=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            task = progress.add_task(f"  {title}", total=total)
            yield lambda count: progress.advance(task, count)
        rows = f" {total:,} rows," if total else ""
        self.console.print(f"  {title}:{rows} {time.perf_counter() - started:.1f} s", markup=False)

    def note(self, text: str) -> None:
        """Print a line for the user."""
        self.console.print(f"  {text}", markup=False)

    def heading(self, text: str) -> None:
        """Print the heading of a model."""
        self.console.print(text, style="bold", markup=False)
