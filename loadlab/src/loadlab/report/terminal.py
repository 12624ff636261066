"""A run on a terminal: the verdict at its end, and the history of all runs."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadlab.record.schema import Run
from loadlab.report.page import facts, key_numbers, number
from loadlab.verdict.check import State
from loadlab.verdict.judge import Judged, Verdict
from loadlab.verdict.rules import counted

_COLOURS = {"PASS": "green", "FAIL": "red", "INVALID": "yellow", "ERROR": "magenta"}
_MARKS: dict[State, tuple[str, str]] = {
    "holds": ("✓", "green"),
    "broken": ("✗ missed", "bold red"),
    "not observable": ("? not observable", "dim"),
    "not tested": ("? not tested", "dim"),
}
_HISTORY = "run|verdict|tier|scenario|users|p50/p95/p99 ms|errors|CPU|µs/request|memory MiB"


def say(console: Console, sentence: str) -> None:
    """Print it as one line, unchanged."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


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
        value = "–" if check.state == "not observable" else check.value
        mark = _MARKS[check.state]
        if check.state == "broken" and check.measured is None:
            mark = ("✗ never measured", mark[1])
        objective.add_row(check.what, value, check.bound, Text(*mark))
    broken = [finding.sentence for finding in verdict.findings if not finding.holds]
    return Group(
        Panel(head, border_style=colour),
        figures,
        Text(facts(verdict.figures), style="dim"),
        objective,
        Text(counted(verdict.findings), style="bold"),
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
