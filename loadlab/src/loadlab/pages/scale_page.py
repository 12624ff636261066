"""Horizontal against vertical: a table, what it says, and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadlab.experiments.cells import SHAPES, shape_key
from loadlab.experiments.studies import (
    CPU_US,
    MEMORY_MIB,
    P99_MS,
    THROTTLED,
    Summary,
    number,
    summaries,
)
from loadlab.report.picture import save

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadlab.experiments.studies import Row, Study

INTRO = """The same CPU and memory in all, as one replica or as several behind HAProxy (mode http,
fewest requests in flight). The balancer runs in its own control group without a limit, on the
CPUs of the replicas; its CPU time is counted apart and charged: CPU time per answer is of replicas
and balancer together. One replica needs no balancer; its row with a balancer shows the cost of the
balancer alone. Three thirds of half a core are 3 × 0.167. Medians over the blocks."""

_HEADER = (
    "| in all | replicas | balancer | verdicts | CPU µs/answer | of it the balancer's | p50 ms | "
    "p99 ms | throttled | memory MiB |\n"
    "| ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)
_REPLICAS, _BALANCER = "#0b6e4f", "#c2410c"


def table(study: Study) -> str:
    """A line for every shape."""
    lines = [_HEADER]
    for each in summaries(study):
        order = each.cell.order
        balancer = "none" if order.balancer == "none" else "HAProxy"
        cells = [
            f"{order.tier.cores:.2g} CPU",
            f"{order.tier.replicas} × {order.tier.cpus:g}",
            balancer,
            each.outcomes,
        ]
        cells += [
            number(each.median(CPU_US)),
            number(each.median(balancer_us)),
            number(each.median(p50_ms)),
            number(each.median(P99_MS)),
        ]
        cells += [number(each.median(THROTTLED), ".1%"), number(each.median(MEMORY_MIB), ",.0f")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentences(study: Study) -> list[str]:
    """For each total: what several replicas cost against one."""
    found = []
    for total in dict.fromkeys(total for total, *_ in SHAPES):
        shapes = {each.cell.key: each for each in summaries(study)}
        alone = shapes.get(shape_key(total, 1, "none"))
        if alone is None or alone.median(CPU_US) is None:
            found.append(
                f"{total:g} CPU in all: one replica alone was not measured validly, so nothing is "
                "compared with it."
            )
            continue
        found.append(f"{total:g} CPU in all: one replica alone takes {_words(alone)}.")
        mates = (
            shapes.get(shape_key(whole, replicas, balancer))
            for whole, _, replicas, _, balancer in SHAPES
            if whole == total and (replicas, balancer) != (1, "none")
        )
        found += [_against(alone, each) for each in mates if each]
    return found


def plot(study: Study, file: Path) -> bool:
    """A bar for every shape: CPU time per answer of replicas and balancer, p99 next to it; returns
    whether there was anything to draw."""
    shown = [each for each in summaries(study) if each.median(CPU_US) is not None]
    if not shown:
        return False
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.35 * len(shown)), layout="constrained")
    axis = figure.subplots()
    for place, each in enumerate(shown):
        _bar(axis, place, each)
    axis.set_yticks(range(len(shown)), [_label(each) for each in shown])
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_title(
        "CPU time per answer, µs: replicas (green) and balancer (red), and p99",
        fontsize=9,
        loc="left",
    )
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)
    return True


def _bar(axis: Axes, place: int, each: Summary) -> None:
    whole, balancer = each.median(CPU_US) or 0.0, each.median(balancer_us) or 0.0
    axis.barh(place, whole - balancer, color=_REPLICAS, height=0.7)
    axis.barh(place, balancer, left=whole - balancer, color=_BALANCER, height=0.7)
    axis.annotate(
        f" {whole:,.0f} µs, p99 {number(each.median(P99_MS))} ms, {each.outcomes}",
        (whole, place),
        va="center",
        fontsize=8,
    )


def _label(each: Summary) -> str:
    tier = each.cell.order.tier
    return (
        f"{tier.replicas} × "
        f"{tier.cpus:g}{'' if each.cell.order.balancer == 'none' else ' + HAProxy'}"
    )


def _words(each: Summary) -> str:
    return (
        f"{number(each.median(CPU_US), ',.0f')} µs CPU an answer, p99 "
        f"{number(each.median(P99_MS))} ms ({each.outcomes})"
    )


def _against(alone: Summary, each: Summary) -> str:
    theirs, ours = each.median(CPU_US), alone.median(CPU_US)
    if theirs is None or not ours:
        return f"{_label(each)}: {each.outcomes}; nothing is compared."
    balancer = number(each.median(balancer_us), ",.0f")
    return (
        f"{_label(each)}: {_words(each)}, {theirs / ours:.2f} × the CPU time of one; {balancer} "
        "µs are the balancer's."
    )


def balancer_us(row: Row) -> float | None:
    """The balancer's CPU time per answer."""
    return row.balancer_us


def p50_ms(row: Row) -> float | None:
    """The median response."""
    return row.p50_ms
