"""A search for readers: the table of its probes, and its section of docs/benchmarks.md."""

from collections.abc import Sequence

from rich.table import Table

from loadlab.experiments.search import Goal, Probe, Search, sentences

_COLUMNS = (
    "",
    "CPU",
    "MiB",
    "steady s",
    "why",
    "verdict",
    "p99 ms",
    "errors",
    "CPU used",
    "throttled",
    "peak MiB",
    "run",
)
_NUMBERS = 5
"""Columns that a server which did not start leaves empty."""


def table(search: Search) -> Table:
    """Every probe, for a terminal."""
    shown = Table(*_COLUMNS, box=None)
    for number, probe in enumerate(search.rows, 1):
        shown.add_row(*_cells(number, probe, search.goal))
    return shown


def markdown(search: Search, link: str, picture: str, history: Sequence[str] = ()) -> str:
    """A section of docs/benchmarks.md.

    Args:
        search: with all its probes.
        link: leads to its file.
        picture: its plot.
        history: what its reruns and earlier searches say.
    """
    machine, goal = search.fingerprint, search.goal
    kernel = f"Linux {machine.kernel}, control groups version {machine.cgroup_version}"
    took = f"{search.minutes:g} minutes in {len(search.rows)} probes"
    lengths = (
        f"{goal.full_s:g} s of steady state where it counts, {goal.short_s:g} s to find the way"
    )
    where = [
        f"Machine: {machine.hardware}; {kernel}.",
        (
            f"Commit {machine.checkout}; `{search.command}`; {search.started_at}, {took}, seed "
            f"{search.seed}."
        ),
        f"Model {search.model}, engine {search.engine}, a fresh server for every probe; {lengths}.",
        (
            f"Searched up to {goal.most_centicores / 100:g} CPU and {goal.most_mib:,} MiB (tier "
            f"{search.tier}). Every probe: [{link}]({link})."
        ),
    ]
    lines = [
        _row(_COLUMNS),
        "| ---: | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [_row(_cells(number, probe, goal)) for number, probe in enumerate(search.rows, 1)]
    title = f"### {search.service}, {search.users:,} users, {search.scenario}"
    parts = (
        title,
        _bullets(where),
        f"![Limits that were tried]({picture})",
        _bullets([*sentences(search), *history]),
        "\n".join(lines),
    )
    return "\n\n".join(parts)


def _cells(number: int, probe: Probe, goal: Goal) -> list[str]:
    found, numbers = probe.figures, ["–"] * _NUMBERS
    if found:
        numbers = [
            _number(found.p99_ms, ",.1f"),
            f"{found.errors:,}",
            _number(found.cpu_cores, ".3f"),
            _number(found.throttled, ".0%"),
            _number(found.memory_peak_mib, ",.0f"),
        ]
    verdict = probe.outcome if probe.could_start else f"{probe.outcome}, cannot start"
    limits = [f"{probe.cpus:g}", f"{probe.mib:,}", f"{goal.steady_s(probe):g}"]
    return [str(number), *limits, probe.why, verdict, *numbers, probe.run]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)
