"""A run on a terminal: the line that is updated meanwhile (rich on a terminal, a plain line every
10 s elsewhere), the verdict at the end, and the history of all runs."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loadlab.record.schema import Run
from loadlab.report.library import Entry
from loadlab.report.page import facts, key_numbers, number
from loadlab.verdict.judge import Verdict

_COLOURS = {"PASS": "green", "FAIL": "red", "INVALID": "yellow", "ERROR": "magenta"}
_HISTORY = "run|verdict|tier|scenario|users|p50/p95/p99 ms|errors|CPU|µs/request|memory MiB"
_PLAIN_EVERY_S = 10.0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now, of the last second or so. None: not known yet."""

    phase: str
    users: int
    users_wanted: int
    left_s: float
    """Until the run should be over."""
    offered_hz: float | None = None
    achieved_hz: float | None = None
    failures: int = 0
    """Since the run's start."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cpu_cores: float | None = None
    """What the server uses."""
    quota_cores: float | None = None
    throttled: float | None = None
    """Share of periods in which the quota stopped the server."""
    lag_p99_ms: float | None = None
    """Of the generator's loops."""


class Ticker:
    """Shows moments on a console; with stderr, stdout stays free for the result. Seconds of the
    clock are monotonic."""

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

    def update(self, moment: Moment) -> None:
        """Show a moment; without a terminal only at a phase's begin and every 10 s."""
        if self._live:
            self._live.update(_line(moment), refresh=True)
            return
        now = self._clock()
        if moment.phase != self._phase or now - self._last >= _PLAIN_EVERY_S:
            self._last, self._phase = now, moment.phase
            self._console.print(_line(moment), soft_wrap=True, highlight=False)

    def say(self, sentence: str) -> None:
        """One line that stays: a phase's end, a warning."""
        self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _line(moment: Moment) -> Text:
    """The moment as one line; what is not known is a dash."""
    rates = f"{number(moment.offered_hz, ',.0f')} → {number(moment.achieved_hz, ',.0f')} req/s"
    quantiles_ms = (moment.p50_ms, moment.p95_ms, moment.p99_ms)
    latencies = "/".join(number(value, ".1f") for value in quantiles_ms)
    cpu = f"{number(moment.cpu_cores, '.2f')}/{number(moment.quota_cores, '.3g')}"
    minutes, seconds = divmod(int(moment.left_s), 60)
    return Text.assemble(
        (f"{moment.phase:<8}", "bold"),
        f" users {moment.users:,}/{moment.users_wanted:,} · {rates}",
        f" · p50/95/99 {latencies} ms · cpu {cpu}",
        (f" · throttled {number(moment.throttled, '.0%')}", "yellow" if moment.throttled else ""),
        f" · lag {number(moment.lag_p99_ms, '.1f')} ms",
        (f" · failed {moment.failures:,}", "bold red" if moment.failures else ""),
        (f" · {minutes}:{seconds:02} left", "dim"),
    )


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


def history_table(entries: Sequence[Entry]) -> Table:
    """One line per run, oldest first."""
    table = Table(*_HISTORY.split("|"), box=None)
    for each in entries:
        table.add_row(
            each.id,
            Text(each.outcome, style=_COLOURS.get(each.outcome, "")),
            each.tier,
            each.scenario,
            f"{each.users:,}",
            "/".join(number(ms, ".1f") for ms in (each.p50_ms, each.p95_ms, each.p99_ms)),
            f"{each.errors:,}",
            number(each.cpu_cores, ".3f"),
            number(each.cpu_us, ".1f"),
            number(each.memory_peak_mib, ",.0f"),
        )
    return table
