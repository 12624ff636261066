"""The plot of a search: every pair of limits that was tried, by CPU and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadlab.experiments.search import Found, decide
from loadlab.report.picture import save

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadlab.experiments.search import Probe, Search

_LOOKS = {"PASS": ("#0b6e4f", "o"), "INVALID": ("#9aa5b1", "s"), "FAIL": ("#c2410c", "x")}
_STRONGEST = ("FAIL", "PASS", "INVALID")


def frontier(search: Search, file: Path) -> None:
    """Draw it, the minimum ringed; the same search gives the same file."""
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    for outcome, (colour, marker) in _LOOKS.items():
        if pairs := _pairs(search.rows, outcome):
            axis.plot(
                [cpus for cpus, _ in pairs],
                [mib for _, mib in pairs],
                marker,
                color=colour,
                label=outcome,
            )
    found = decide(search)
    if isinstance(found, Found) and found.minimum:
        _ring(axis, *found.minimum)
    _scales(axis, search.rows)
    title = (
        f"{search.service}, {search.users:,} users, {search.scenario}: limits that were tried "
        "(logarithmic)"
    )
    axis.set_title(title, fontsize=9, loc="left")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def _pairs(probes: Sequence[Probe], outcome: str) -> list[tuple[float, int]]:
    """The limits with an outcome: those that failed once have failed, however often they passed;
    those that passed once have passed."""
    seen = {(probe.cpus, probe.mib): set[str]() for probe in probes}
    for probe in probes:
        seen[probe.cpus, probe.mib].add(probe.outcome)
    return sorted(
        pair for pair, outcomes in seen.items() if min(outcomes, key=_STRONGEST.index) == outcome
    )


def _ring(axis: Axes, centicores: int, mib: int) -> None:
    at = (centicores / 100, mib)
    axis.plot(*([value] for value in at), "o", color="#0b6e4f", markersize=14, fillstyle="none")
    axis.annotate(
        f"{centicores / 100:g} CPU, {mib:,} MiB",
        at,
        xytext=(12, -3),
        textcoords="offset points",
        fontsize=8,
    )


def _scales(axis: Axes, probes: Sequence[Probe]) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_xscale("log")
    axis.set_yscale("log")
    for values, dimension in (
        ([probe.cpus for probe in probes], axis.xaxis),
        ([probe.mib for probe in probes], axis.yaxis),
    ):
        ticks = sorted(set(values))
        dimension.set_ticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        dimension.set_minor_locator(NullLocator())
    axis.set_xlabel("CPU limit, cores", fontsize=8)
    axis.set_ylabel("memory limit, MiB", fontsize=8)
    axis.margins(0.1, 0.15)
