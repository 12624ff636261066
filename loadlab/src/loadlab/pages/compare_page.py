"""A stored comparison for people: a table on the terminal, Markdown, and a forest plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from loadlab.experiments.compare import counted, effects, sentences
from loadlab.report.picture import save

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadlab.experiments.compare import Comparison, Effect
    from loadlab.experiments.trial import Trial

_COLUMNS = ("block", "side", "verdict", "CPU µs/answer", "p99 ms", "memory MiB", "errors", "run")


def table(comparison: Comparison) -> Table:
    """Every run of the comparison, for a terminal."""
    shown = Table(*_COLUMNS, box=None)
    for trial in comparison.rows:
        shown.add_row(*_cells(trial))
    return shown


def markdown(comparison: Comparison, link: str, picture: str) -> str:
    """A section of docs/benchmarks.md; `link` leads to the stored comparison, `picture` to its
    plot."""
    machine = comparison.fingerprint
    model, against = comparison.model, comparison.against
    took = f"{comparison.started_at}, {comparison.minutes:g} minutes"
    where = [
        f"Machine: {machine.hardware}; Linux {machine.kernel}.",
        f"Commit {machine.checkout}; `{comparison.command}`; {took}, seed {comparison.seed}.",
        (
            f"Tier {comparison.tier}: {comparison.limits}. Model {model}; {comparison.made} "
            "blocks, a fresh server for every run."
        ),
        *(
            [f"`image` is {comparison.image}; both sides run in containers."]
            if comparison.image
            else []
        ),
        (
            f"Scenario {comparison.scenario}: {comparison.users:,} users, {comparison.steady_s:g} "
            "s steady."
        ),
        (
            f"Every run: [{link}]({link}). Figures are of everything from the first user to the "
            "end of the steady phase."
        ),
    ]
    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        "| " + " | ".join(cell.replace("|", "/") for cell in _cells(trial)) + " |"
        for trial in comparison.rows
    ]
    title = (
        f"### Tier {comparison.tier}, {comparison.users:,} users, {model}: halfcore and `{against}`"
    )
    plot = (
        f"![Ratios, with intervals]({picture})"
        if any(effect.ratio for effect in effects(comparison))
        else ""
    )
    said = "\n".join(f"- {sentence}" for sentence in sentences(comparison))
    return "\n\n".join(
        part
        for part in (title, "\n".join(f"- {line}" for line in where), plot, said, "\n".join(lines))
        if part
    )


def line(comparison: Comparison, link: str) -> str:
    """One line for the first page."""
    where = f"{comparison.users:,} users, tier {comparison.tier} ({comparison.limits})"
    sides = [f"{side} {counted(comparison, side)}" for side in ("halfcore", comparison.against)]
    return f"{where}: {', '.join(sides)} ([compare]({link}))."


def forest(comparison: Comparison, file: Path) -> bool:
    """A line per measure: every block a dot, the median and its interval; returns whether there was
    anything to draw."""
    found = [effect for effect in effects(comparison) if effect.ratio]
    if not found:
        return False
    # Imported late: measuring does without it, and it takes its time.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.0 + 0.5 * len(found)), layout="constrained")
    axis = figure.subplots()
    for place, effect in enumerate(found):
        _line(axis, place, effect)
    axis.axvline(1, color="#9aa5b1", linewidth=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(found)), [effect.name for effect in found])
    axis.invert_yaxis()
    axis.margins(x=0.15, y=0.4)
    axis.set_title(
        (
            f"{comparison.tier}, {comparison.users:,} users: {comparison.against} / halfcore "
            "(logarithmic)"
        ),
        fontsize=9,
        loc="left",
    )
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)
    return True


def _line(axis: Axes, place: int, effect: Effect) -> None:
    ratio = effect.ratio
    assert ratio  # noqa: S101  the caller left out those without
    axis.plot(
        [theirs / ours for ours, theirs in effect.pairs],
        [place] * len(effect.pairs),
        ".",
        color="#9aa5b1",
    )
    axis.plot([ratio.low, ratio.high], [place] * 2, color="#0b6e4f", linewidth=2)
    axis.plot([ratio.estimate], [place], "s", color="#0b6e4f", markersize=5)
    axis.annotate(
        f"  {effect.text} ×",
        (ratio.high, place),
        xytext=(0, 6),
        textcoords="offset points",
        fontsize=8,
    )


def _cells(trial: Trial) -> list[str]:
    numbers = [
        _number(trial.cpu_us, ",.1f"),
        _number(trial.p99_ms, ",.1f"),
        _number(trial.memory_mib, ",.0f"),
    ]
    verdict = trial.outcome if trial.could_start else "cannot start"
    return [str(trial.block), trial.side, verdict, *numbers, f"{trial.figures.errors:,}", trial.run]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
