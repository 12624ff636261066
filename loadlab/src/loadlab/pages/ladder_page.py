"""A stored ladder as Markdown and as a waterfall: what each step costs, and what it bought."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from loadlab.experiments.bench.stored import Figures, Run, figures
from loadlab.experiments.bench.subjects import ENDPOINTS, LADDER, Subject
from loadlab.report.picture import save

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

_FASTER, _SLOWER, _WHOLE = "#0b6e4f", "#c2410c", "#9aa5b1"
_HEADER = """| step | what changes | requests/s | CPU/request, median | spread | this step | since the first | p50 / p99 ms | failures |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""  # noqa: E501  a table's row


class Rung(NamedTuple):
    """A step that was measured, or why it was not."""

    step: Subject
    measured: list[Figures]
    reason: str

    @property
    def cpu_us(self) -> float:
        """CPU time per right answer, median of the rounds."""
        return statistics.median(each.cpu_us for each in self.measured)

    @property
    def rate_hz(self) -> float:
        """Right answers a second, median of the rounds."""
        return statistics.median(each.requests / each.seconds for each in self.measured)


def table(run: Run, model: str) -> str:
    """One line per step; what was not measured says why."""
    lines, measured = [_HEADER], _measured(run, model)
    for rung in _rungs(run, model, LADDER):
        if not rung.measured:
            lines.append(f"| {rung.step.key} | {rung.step.title} | {rung.reason} | | | | | | |")
            continue
        place = measured.index(rung)
        before, first = measured[place - 1] if place else None, measured[0]
        bought = f"{before.cpu_us / rung.cpu_us:.2f} ×" if before else ""
        lines.append(
            f"| {rung.step.key} | {rung.step.title} | {_figures(rung)} | {bought} | "
            f"{first.cpu_us / rung.cpu_us:,.1f} × | {_rest(rung)} |"
        )
    lines += [_endpoint(rung) for rung in _rungs(run, model, ENDPOINTS)]
    return "\n".join(lines)


def sentences(run: Run, model: str) -> list[str]:
    """What the ladder says in words."""
    rungs = _measured(run, model)
    if len(rungs) < 2:
        return []
    gains = [(before.cpu_us - after.cpu_us, before, after) for before, after in pairwise(rungs)]
    most, _, after = max(gains, key=lambda gain: gain[0])
    factors = sorted(
        ((b.cpu_us / a.cpu_us, a) for _, b, a in gains), key=lambda pair: pair[0], reverse=True
    )
    first, last = rungs[0], rungs[-1]
    costlier = [a.step.key for _, b, a in gains if a.cpu_us > b.cpu_us]
    whole = first.cpu_us - last.cpu_us
    span = (
        f"CPU time per request: {first.cpu_us:,.0f} µs in `{first.step.key}`, {last.cpu_us:,.1f} "
        f"µs in `{last.step.key}`, a "
        f"{first.cpu_us / last.cpu_us:,.0f}th; requests/s on one core: {first.rate_hz:,.0f} and "
        f"{last.rate_hz:,.0f}."
    )
    found = [
        span,
        (
            f"Most microseconds: `{after.step.key}` saves {most:,.0f} of {whole:,.0f} "
            f"({most / whole:.0%})."
        ),
        (
            "Largest factors: "
            f"{', '.join(f'`{rung.step.key}` {factor:.2f} ×' for factor, rung in factors[:3])}."
        ),
    ]
    return (
        [*found, f"Steps that cost rather than saved: {', '.join(f'`{key}`' for key in costlier)}."]
        if costlier
        else found
    )


def models(run: Run) -> list[str]:
    """The models of a run, in its order."""
    return list(dict.fromkeys(sorted(each.model for each in run.rows)))


def waterfall(run: Run, file: Path) -> None:
    """From each step's bar the next begins: green where it saves CPU time, red where it costs; the
    same run gives the same file."""
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib.figure import Figure

    panels = [model for model in models(run) if _measured(run, model)]
    heights = [0.9 + 0.3 * len(_all_measured(run, model)) for model in panels]
    figure = Figure(figsize=(8, math.fsum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, model in zip(axes, panels, strict=True):
        _panel(axis, run, model)
    save(figure, file)


def _panel(axis: Axes, run: Run, model: str) -> None:
    rungs = _all_measured(run, model)
    lowest = min(rung.cpu_us for rung in rungs) / 2
    steps = {rung.step.key for rung in _measured(run, model)}
    before = None
    for place, rung in enumerate(rungs):
        start = before if before is not None and rung.step.key in steps else lowest
        colour = _WHOLE if start == lowest else _FASTER if rung.cpu_us < start else _SLOWER
        axis.barh(place, rung.cpu_us - start, left=start, color=colour, height=0.7)
        axis.annotate(
            f" {rung.cpu_us:,.0f}", (max(rung.cpu_us, start), place), va="center", fontsize=8
        )
        before = rung.cpu_us
    axis.set_xscale("log")
    axis.set_xlim(left=lowest)
    _label(axis, rungs, model)


def _label(axis: Axes, rungs: list[Rung], model: str) -> None:
    axis.set_yticks(range(len(rungs)), [rung.step.key for rung in rungs])
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_title(
        f"{model}: server CPU time per request after each step, µs (logarithmic)",
        fontsize=9,
        loc="left",
    )
    axis.spines[["top", "right"]].set_visible(False)


def _all_measured(run: Run, model: str) -> list[Rung]:
    return [rung for rung in _rungs(run, model, (*LADDER, *ENDPOINTS)) if rung.measured]


def _measured(run: Run, model: str) -> list[Rung]:
    return [rung for rung in _rungs(run, model, LADDER) if rung.measured]


def _rungs(run: Run, model: str, steps: tuple[Subject, ...]) -> list[Rung]:
    """The steps that the run was asked for."""
    found = []
    for step in steps:
        mine = [each for each in run.rows if (each.server, each.model) == (step.key, model)]
        reasons = dict.fromkeys(
            each.reason.replace("|", "/").replace("\n", " ") for each in mine if each.reason
        )
        if mine:
            found.append(
                Rung(
                    step,
                    figures(mine, server=step.key, model=model, regime="saturated"),
                    "; ".join(reasons),
                )
            )
    return found


def _endpoint(rung: Rung) -> str:
    cells = (
        f"{_figures(rung)} | | | {_rest(rung)}" if rung.measured else f"{rung.reason} | | | | | |"
    )
    return f"| *{rung.step.key}* | {rung.step.title} | {cells} |"


def _figures(rung: Rung) -> str:
    cpu_us = [each.cpu_us for each in rung.measured]
    return (
        f"{rung.rate_hz:,.0f} | **{rung.cpu_us:,.1f} µs** | {min(cpu_us):,.1f}–{max(cpu_us):,.1f}"
    )


def _rest(rung: Rung) -> str:
    p50, p99 = (
        statistics.median(each.response.quantiles_ms[name] for each in rung.measured)
        for name in ("p50", "p99")
    )
    return f"{p50:,.1f} / {p99:,.1f} | {sum(each.failed for each in rung.measured):,}"
