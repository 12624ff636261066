"""One picture per run: CPU time per request, every round a dot, the median a bar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadlab.experiments.bench.stored import REGIMES, Regime, Run, figures, median_cpu_us
from loadlab.pages.bench_tables import servers
from loadlab.report.picture import save

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

_OURS, _OTHERS = "#0b6e4f", "#9aa5b1"
_LOG_FROM = 20
"""Ratio of the longest to the shortest bar from which a linear axis would hide the short ones."""


def plot(run: Run, file: Path) -> None:
    """Write the picture of a run; the same run gives the same file."""
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib.figure import Figure

    panels = [(regime, model) for regime in REGIMES for model in _measured_models(run, regime)]
    heights = [0.8 + 0.32 * len(_bars(run, *panel)) for panel in panels]
    figure = Figure(figsize=(8, 0.6 + math.fsum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (regime, model) in zip(axes, panels, strict=True):
        _panel(axis, run, regime, model)
    save(figure, file)


def _panel(axis: Axes, run: Run, regime: Regime, model: str) -> None:
    bars = _bars(run, regime, model)
    for place, (server, median) in enumerate(bars):
        rounds = [
            each.cpu_us for each in figures(run.rows, server=server, model=model, regime=regime)
        ]
        axis.barh(place, median, color=_OURS if server in ("b", "default") else _OTHERS, height=0.7)
        axis.plot(rounds, [place] * len(rounds), ".", color="black", markersize=4)
        axis.annotate(f" {median:,.1f}", (max(rounds), place), va="center", fontsize=8)
    axis.set_yticks(range(len(bars)), [server for server, _ in bars])
    axis.invert_yaxis()
    if bars and max(median for _, median in bars) > _LOG_FROM * min(median for _, median in bars):
        axis.set_xscale("log")
        axis.set_xlim(left=1)
    axis.margins(x=0.12)
    axis.set_title(f"{regime}, {model}: server CPU time per request, µs", fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def _bars(run: Run, regime: Regime, model: str) -> list[tuple[str, float]]:
    medians = [
        (server, median_cpu_us(figures(run.rows, server=server, model=model, regime=regime)))
        for server in servers(run, regime, model)
    ]
    return [(server, median) for server, median in medians if median is not None]


def _measured_models(run: Run, regime: Regime) -> list[str]:
    return list(
        dict.fromkeys(each.model for each in run.rows if each.regime == regime and each.figures)
    )
