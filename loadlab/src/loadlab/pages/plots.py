"""All pictures of the pages; the same record gives the same file. Each plot returns whether there
was anything to draw. To be imported late: matplotlib takes its time."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loadlab.experiments.bench.measure import Run
from loadlab.experiments.bench.peers import OURS as PEERS_OURS
from loadlab.experiments.bench.peers import Peers
from loadlab.experiments.compare import Comparison, Effect, effects
from loadlab.experiments.search import Found, Probe, Search, decide
from loadlab.experiments.studies import CPU_US, P99_MS, Study, Summary, summaries
from loadlab.pages import bench, peers
from loadlab.pages.bench import Panel, Server
from loadlab.record.store import Log
from loadlab.report.page import number
from loadlab.report.picture import draw, save, standalone
from loadlab.report.plots import charts

Draw = Callable[[Axes], None]
GREEN, RED, GREY = "#0b6e4f", "#c2410c", "#9aa5b1"
_LOG_FROM = 20
"""Ratio of the longest to the shortest bar from which a linear axis would hide the short ones."""
_LOOKS = {"PASS": (GREEN, "o"), "INVALID": (GREY, "s"), "FAIL": (RED, "x")}
_STRONGEST = ("FAIL", "PASS", "INVALID")


def latency(log: Log, file: Path) -> bool:
    """The response times of a load run, second by second."""
    (chart,) = [chart for chart in charts(log) if chart.name == "latency"]
    file.write_text(standalone(draw(chart)))
    return True


def _stack(file: Path, margin: float, panels: Sequence[tuple[float, Draw]]) -> bool:
    """Panels one below the other, each with its height, inches, and what draws it."""
    if not panels:
        return False
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(8, margin + math.fsum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (_, fill) in zip(axes, panels, strict=True):
        fill(axis)
    save(figure, file)
    return True


def _title(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def _names(axis: Axes, names: Sequence[str]) -> None:
    """One below the other, the first on top."""
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()


def cpu_time(run: Run, file: Path) -> bool:
    """CPU time per request: every round a dot, the median a bar."""
    found = [panel for panel in bench.panels(run) if panel.measured]
    panels = [(0.8 + 0.32 * len(panel.measured), partial(_bars, panel)) for panel in found]
    return _stack(file, 0.6, panels)


def _bars(panel: Panel, axis: Axes) -> None:
    for place, each in enumerate(panel.measured):
        colour = GREEN if each.key in (bench.OURS, "default", PEERS_OURS) else GREY
        axis.barh(place, each.cpu_us, color=colour, height=0.7)
        axis.plot(each.all_us, [place] * len(each.all_us), ".", color="black", markersize=4)
        axis.annotate(f" {each.cpu_us:,.1f}", (max(each.all_us), place), va="center", fontsize=8)
    _names(axis, [each.key for each in panel.measured])
    medians = [each.cpu_us for each in panel.measured]
    if max(medians) > _LOG_FROM * min(medians):
        axis.set_xscale("log")
        axis.set_xlim(left=1)
    axis.margins(x=0.12)
    _title(axis, f"{panel.regime}, {panel.model}: server CPU time per request, µs")


def waterfall(run: Run, file: Path) -> bool:
    """From each step's bar the next begins: green where it saves CPU time, red where it costs."""
    found = [(steps, ends.measured) for steps, ends in bench.ladder(run) if steps.measured]
    panels = [
        (0.9 + 0.3 * len(steps.measured + ends), partial(_falls, steps, ends))
        for steps, ends in found
    ]
    return _stack(file, 0.3, panels)


def _falls(panel: Panel, ends: list[Server], axis: Axes) -> None:
    every = [*panel.measured, *ends]
    lowest = min(each.cpu_us for each in every) / 2
    starts = [lowest, *(each.cpu_us for each in panel.measured[:-1]), *[lowest] * len(ends)]
    for place, (each, start) in enumerate(zip(every, starts, strict=True)):
        used = each.cpu_us
        colour = GREY if start == lowest else GREEN if used < start else RED
        axis.barh(place, used - start, left=start, color=colour, height=0.7)
        axis.annotate(f" {used:,.0f}", (max(used, start), place), va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(left=lowest)
    _names(axis, [each.key for each in every])
    axis.margins(x=0.12)
    _title(axis, f"{panel.model}: server CPU time per request after each step, µs (logarithmic)")


def forest(comparison: Comparison, file: Path) -> bool:
    """A line per measure: every block a dot, the median and its interval."""
    found = [effect for effect in effects(comparison) if effect.ratio]
    panel = (1.0 + 0.5 * len(found), partial(_intervals, comparison, found))
    return bool(found) and _stack(file, 0, [panel])


def _intervals(comparison: Comparison, found: list[Effect], axis: Axes) -> None:
    for place, effect in enumerate(found):
        ratio = effect.ratio
        assert ratio  # noqa: S101  the caller left out those without
        ratios = [theirs / ours for ours, theirs in effect.pairs]
        axis.plot(ratios, [place] * len(ratios), ".", color=GREY)
        axis.plot([ratio.low, ratio.high], [place] * 2, color=GREEN, linewidth=2)
        axis.plot([ratio.estimate], [place], "s", color=GREEN, markersize=5)
        at = (ratio.high, place)
        axis.annotate(f"  {effect.text} ×", at, (0, 6), textcoords="offset points", fontsize=8)
    axis.axvline(1, color=GREY, linewidth=1)
    axis.set_xscale("log")
    _names(axis, [effect.name for effect in found])
    axis.margins(x=0.15, y=0.4)
    sides = f"{comparison.against} / halfcore (logarithmic)"
    _title(axis, f"{comparison.tier}, {comparison.users:,} users: {sides}")


def frontier(search: Search, file: Path) -> bool:
    """Every pair of limits that was tried, by CPU and memory; the minimum is ringed."""
    return _stack(file, 0, [(3.6, partial(_tried, search))])


def _tried(search: Search, axis: Axes) -> None:
    for outcome, (colour, marker) in _LOOKS.items():
        if pairs := _pairs(search.rows, outcome):
            axis.plot(*zip(*pairs, strict=True), marker, color=colour, label=outcome)
    found = decide(search)
    if isinstance(found, Found) and found.minimum:
        at = (found.minimum[0] / 100, found.minimum[1])
        axis.plot(*([value] for value in at), "o", color=GREEN, markersize=14, fillstyle="none")
        text = f"{at[0]:g} CPU, {at[1]:,} MiB"
        axis.annotate(text, at, xytext=(12, -3), textcoords="offset points", fontsize=8)
    _scales(axis, search.rows)
    kind = f"{search.service}, {search.users:,} users, {search.scenario}"
    _title(axis, f"{kind}: limits that were tried (logarithmic)")
    axis.legend(fontsize=8, frameon=False)


def _pairs(probes: Sequence[Probe], outcome: str) -> list[tuple[float, int]]:
    """The limits with an outcome: those that failed once have failed, however often they passed;
    those that passed once have passed."""
    seen = {(probe.cpus, probe.mib): set[str]() for probe in probes}
    for probe in probes:
        seen[probe.cpus, probe.mib].add(probe.outcome)
    return sorted(
        pair for pair, outcomes in seen.items() if min(outcomes, key=_STRONGEST.index) == outcome
    )


def _scales(axis: Axes, probes: Sequence[Probe]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    for values, dimension, rotation in (
        ([probe.cpus for probe in probes], axis.xaxis, 45),  # 0.12 and 0.13 are close neighbours
        ([probe.mib for probe in probes], axis.yaxis, 0),
    ):
        ticks = sorted(set(values))
        dimension.set_ticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7, rotation=rotation)
        dimension.set_minor_locator(NullLocator())
    axis.set_xlabel("CPU limit, cores", fontsize=8)
    axis.set_ylabel("memory limit, MiB", fontsize=8)
    axis.margins(0.1, 0.15)


def scale(study: Study, file: Path) -> bool:
    """A bar for every shape: CPU time per answer of replicas and balancer, p99 next to it."""
    shown = [each for each in summaries(study) if each.median(CPU_US) is not None]
    return bool(shown) and _stack(file, 0, [(0.9 + 0.35 * len(shown), partial(_shapes, shown))])


def _shapes(shown: list[Summary], axis: Axes) -> None:
    for place, each in enumerate(shown):
        whole = each.median(CPU_US) or 0.0
        balancer = each.median(lambda row: row.balancer_us) or 0.0
        axis.barh(place, whole - balancer, color=GREEN, height=0.7)
        axis.barh(place, balancer, left=whole - balancer, color=RED, height=0.7)
        text = f" {whole:,.0f} µs, p99 {number(each.median(P99_MS))} ms, {each.outcomes}"
        axis.annotate(text, (whole, place), va="center", fontsize=8)
    _names(axis, [_shape(each) for each in shown])
    axis.margins(x=0.25)
    _title(axis, "CPU time per answer, µs: replicas (green) and balancer (red), and p99")


def _shape(each: Summary) -> str:
    order = each.cell.order
    balancer = "" if order.balancer == "none" else " + HAProxy"
    return f"{order.tier.replicas} × {order.tier.cpus:g}{balancer}"


def side_by_side(run: Peers, file: Path) -> bool:
    """CPU time per request of halfcore and its peers."""
    return cpu_time(peers.flat(run), file)


PLOTS: dict[str, Callable[[Any, Path], bool]] = {
    "load": latency,
    "bench": cpu_time,
    "ablate": cpu_time,
    "ladder": waterfall,
    "peers": side_by_side,
    "compare": forest,
    "search": frontier,
    "scale": scale,
}
"""By the kind of what is drawn."""
