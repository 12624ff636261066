"""The end of a run on a terminal: verdict, figures, objective, and the rules that do not hold."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadlab.record.schema import Run
from loadlab.report.library import Entry
from loadlab.report.numbers import facts, key_numbers
from loadlab.verdict.judge import Outcome, Verdict

COLOURS: dict[Outcome, str] = {
    "PASS": "green",
    "FAIL": "red",
    "INVALID": "yellow",
    "ERROR": "magenta",
}


def summary(run: Run, verdict: Verdict) -> RenderableType:
    """Everything that a person needs in the first minute."""
    colour = COLOURS[verdict.outcome]
    head = Text.assemble(
        (verdict.outcome, f"bold {colour}"),
        f"  {run.id} ({run.backend}, {run.engine})\n",
        verdict.sentence,
    )
    parts: list[RenderableType] = [
        Panel(head, border_style=colour),
        _figures(verdict),
        Text(facts(verdict.figures), style="dim"),
        _objective(verdict),
    ]
    parts.append(_rules(verdict))
    parts += [Text(f"missing: {what}", style="yellow") for what in verdict.missing]
    return Group(*parts)


def history_table(entries: Sequence[Entry]) -> Table:
    """One line per run, oldest first."""
    table = Table(
        "run",
        "verdict",
        "tier",
        "scenario",
        "users",
        "p50/p95/p99 ms",
        "errors",
        "CPU",
        "µs/request",
        "memory MiB",
        box=None,
    )
    for entry in entries:
        latencies = "/".join(
            "–" if value is None else f"{value:.1f}"
            for value in (entry.p50_ms, entry.p95_ms, entry.p99_ms)
        )
        # an old index may hold any word
        verdict = Text(entry.outcome, style=COLOURS.get(entry.outcome, ""))  # type: ignore[call-overload]
        numbers = ("–" if value is None else format(value, form) for value, form in _numbers(entry))
        table.add_row(
            entry.id,
            verdict,
            entry.tier,
            entry.scenario,
            f"{entry.users:,}",
            latencies,
            f"{entry.errors:,}",
            *numbers,
        )
    return table


def _numbers(entry: Entry) -> list[tuple[float | None, str]]:
    return [(entry.cpu_cores, ".3f"), (entry.cpu_us, ".1f"), (entry.memory_peak_mib, ",.0f")]


def _figures(verdict: Verdict) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value, note in key_numbers(verdict.figures):
        table.add_row(Text(name, style="dim"), Text(value, style="bold"), Text(note, style="dim"))
    return table


def _objective(verdict: Verdict) -> Table:
    table = Table(
        "objective", "measured", "limit", "", box=None, padding=(0, 2), title_justify="left"
    )
    for check in verdict.objective:
        table.add_row(check.what, check.value, check.bound, _mark(check.holds))
    return table


def _rules(verdict: Verdict) -> RenderableType:
    broken = [finding for finding in verdict.findings if not finding.holds]
    count = Text(
        f"{len(verdict.findings) - len(broken)} of {len(verdict.findings)} rules hold", style="bold"
    )
    return Group(
        count, *(Text.assemble(("✗ ", "bold red"), finding.sentence) for finding in broken)
    )


def _mark(holds: bool) -> Text:
    return Text("✓", style="green") if holds else Text("✗ missed", style="bold red")
