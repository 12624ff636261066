"""A run on a terminal: the line that is updated meanwhile (rich on a terminal, a plain line every
10 s elsewhere), the verdict at the end, and the history of all runs."""

import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadlab.record.schema import Run
from loadlab.report.page import facts, key_numbers, number
from loadlab.verdict.judge import Verdict
from loadlab.verdict.repeats import Judged

_COLOURS = {"PASS": "green", "FAIL": "red", "INVALID": "yellow", "ERROR": "magenta"}
_HISTORY = "run|verdict|tier|scenario|users|p50/p95/p99 ms|errors|CPU|µs/request|memory MiB"
_PLAIN_EVERY_S = 10.0


def say(console: Console, sentence: str) -> None:
    """Print it as one line, unchanged."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


class Ticker:
    """Shows how a run goes on a console; with stderr, stdout stays free for the result. Seconds of
    the clock are monotonic."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        live = Live(console=console, auto_refresh=False, transient=True)
        self._live = live if console.is_terminal else None
        self._last, self._phase = float("-inf"), ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, phase: str, line: Text) -> None:
        """Show the newest line; without a terminal only at a phase's begin and every 10 s."""
        if self._live:
            self._live.update(line, refresh=True)
            return
        now = self._clock()
        if phase != self._phase or now - self._last >= _PLAIN_EVERY_S:
            self._last, self._phase = now, phase
            self._console.print(line, soft_wrap=True, highlight=False)

    def say(self, sentence: str) -> None:
        """One line that stays: a phase's end, a warning."""
        say(self._console, sentence)


def summary(run: Run, verdict: Verdict) -> RenderableType:
    """Everything that a person needs in the first minute."""
    colour = _COLOURS[verdict.outcome]
    head = Text.assemble(
        (verdict.outcome, f"bold {colour}"),
        f"  {run.id} ({run.backend}, {run.engine})\n",
        verdict.sentence,
    )
    figures = Table.grid(padding=(0, 2))
    for name, value, note in key_numbers(run, verdict.figures):
        figures.add_row(Text(name, style="dim"), Text(value, style="bold"), Text(note, style="dim"))
    objective = Table("objective", "measured", "limit", "", box=None, padding=(0, 2))
    for check in verdict.objective:
        mark = Text("✓", style="green") if check.holds else Text("✗ missed", style="bold red")
        objective.add_row(check.what, check.value, check.bound, mark)
    broken = [finding.sentence for finding in verdict.findings if not finding.holds]
    rules = len(verdict.findings)
    return Group(
        Panel(head, border_style=colour),
        figures,
        Text(facts(verdict.figures), style="dim"),
        objective,
        Text(f"{rules - len(broken)} of {rules} rules hold", style="bold"),
        *(Text.assemble(("✗ ", "bold red"), sentence) for sentence in broken),
        *(Text(f"missing: {what}", style="yellow") for what in verdict.missing),
    )


def history_table(runs: Sequence[Judged]) -> Table:
    """One line per run, oldest first."""
    table = Table(*_HISTORY.split("|"), box=None)
    for run, verdict in runs:
        found = verdict.figures
        table.add_row(
            run.id,
            Text(verdict.outcome, style=_COLOURS[verdict.outcome]),
            run.tier.name,
            run.scenario.name,
            f"{run.scenario.users:,}",
            "/".join(number(ms, ".1f") for ms in (found.p50_ms, found.p95_ms, found.p99_ms)),
            f"{found.errors:,}",
            number(found.cpu_cores, ".3f"),
            number(found.cpu_us, ".1f"),
            number(found.memory_peak_mib, ",.0f"),
        )
    return table
