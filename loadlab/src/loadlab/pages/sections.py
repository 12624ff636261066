"""Comparisons, searches, studies, the memory table and the first page's figures, from stored
experiments."""

from collections.abc import Sequence
from pathlib import Path

from loadlab.experiments import conclusions
from loadlab.experiments.bench import memory as memories
from loadlab.experiments.compare import effects
from loadlab.experiments.compare import form as comparisons
from loadlab.experiments.compare.form import Comparison
from loadlab.experiments.search import form as searches
from loadlab.experiments.search import rerun, said
from loadlab.experiments.search.form import Search
from loadlab.experiments.studies import seeds, summary
from loadlab.experiments.studies.form import Row, Study
from loadlab.pages import bench, loads, stored
from loadlab.pages.loads import KeptSet
from loadlab.pages.template import link, page
from loadlab.record import store
from loadlab.run.arguments import Order

_MODEL = "iris"
"""Of the first page's table."""
_SHOWN = ("b", "c", "d", "e")
"""Its servers, besides the null server."""

_COLUMNS = {
    "cpu_us": summary.CPU_US,
    "p99_ms": summary.P99_MS,
    "memory_mib": summary.MEMORY_MIB,
    "throttled": summary.THROTTLED,
    "p50_ms": lambda row: row.p50_ms,
    "p95_ms": lambda row: row.p95_ms,
    "balancer_us": lambda row: row.balancer_us,
}
"""What the studies' tables show medians of."""


def compare(comparison: Comparison, link: str, picture: str) -> str:
    """A section of docs/benchmarks.md; `link` leads to the stored file, `picture` is its plot's
    name, or empty."""
    return page(
        "compare",
        comparison=comparison,
        blocks=stored.blocks(comparison),
        trials=stored.trials(comparison),
        sentences=effects.sentences(comparison),
        link=link,
        picture=picture,
    )


def search(search: Search, link: str, picture: str, history: Sequence[str] = ()) -> str:
    """The same of a search; `history` is what its reruns and earlier searches say."""
    return page(
        "search",
        search=search,
        probes=[(probe, stored.steady_s(search, probe)) for probe in stored.probes(search)],
        sentences=[*said.sentences(search), *history],
        link=link,
        picture=picture,
    )


def history(file: Path, out: Path) -> list[str]:
    """What a search's reruns say, and what searches of the same kind found before it."""
    same = sorted(file.parent.glob(f"*-search-{stored.about(file, 'search')}.json"))
    before = [each for each in same if each.name < file.name]
    earlier = [said.earlier(searches.load(each), link(each, out)) for each in before]
    return [*map(said.again, rerun.of(file.parent, file)), *reversed(earlier)]


def study(study: Study, link: str, picture: str) -> str:
    """The same of a study."""
    orders = [cell.order for cell in study.cells]
    return page(
        stored.kind(study),
        study=study,
        orders=orders,
        loads=list(dict.fromkeys(map(_load, orders))),
        sentences=conclusions.sentences(study),
        reasons=summary.reasons(study),
        summaries=lambda prefix="": summary.summaries(study, prefix),
        shares_of=conclusions.shares_of,
        configurations=seeds.read,
        rows=lambda key, service: _rows(study, key, service),
        **_COLUMNS,
        link=link,
        picture=picture,
    )


def _load(order: Order) -> str:
    think = "–".join(f"{each:g}" for each in order.scenario.think)
    if order.users == 1:
        return f"one user who thinks {think} s"
    return f"{order.users:,} users who think {think} s"


def _rows(study: Study, key: str, service: str) -> list[Row]:
    return [row for row in study.rows if (row.key, row.service) == (key, service)]


def memory(file: Path, out: Path) -> str:
    """The table of docs/operations.md."""
    run = memories.load(file)
    return page(
        "memory",
        run=run,
        held=stored.held(run),
        asked=memories.ASKED,
        rest_s=memories.REST_S,
        link=link(file, out),
    )


def first_page(
    readme: Path,
    newest: Path,
    loaded: Sequence[KeptSet],
    curve: Path | None,
    *,
    ladder: Path | None = None,
    comparing: Sequence[Path] = (),
    searched: Sequence[Path] = (),
) -> str:
    """What stands between the marks of README; `newest` is the bench, `curve` a load run's
    picture."""
    run = store.load(newest)
    panels = [panel for panel in bench.panels(run) if panel.model == _MODEL]
    return page(
        "readme",
        loads=loads.summary(loaded, readme) if loaded else "",
        curve=link(curve, readme) if curve else "",
        run=run,
        panels=panels,
        servers={key: [_named(panel, key) for panel in panels] for key in _SHOWN},
        columns=[load for panel in panels for load in run.loads if load.regime == panel.regime],
        link=link(newest, readme),
        lines=[*least(readme, searched), *compared(readme, comparing), *_steps(readme, ladder)],
    )


def _named(panel: bench.Panel, key: str) -> float | None:
    return next((each.cpu_us for each in panel.measured if each.key == key), None)


def least(readme: Path, files: Sequence[Path]) -> list[str]:
    """How little is enough."""
    lines = []
    for file in files:
        minimum = said.sentences(searches.load(file))[0].rstrip(".")
        if reruns := rerun.of(file.parent, file):
            minimum += f"; {said.counted(reruns)}"
        lines.append(f"{minimum} ([search]({link(file, readme)})).")
    return lines


def compared(readme: Path, files: Sequence[Path]) -> list[str]:
    """What the baselines do in the same limits."""
    lines = []
    for file in files:
        found = comparisons.load(file)
        sides = [f"{side} {effects.counted(found, side)}" for side in ("halfcore", found.against)]
        lines.append(
            f"{found.users:,} users, tier {found.tier} ({found.limits}): {', '.join(sides)} "
            f"([compare]({link(file, readme)}))."
        )
    return lines


def _steps(readme: Path, ladder: Path | None) -> list[str]:
    """What all steps from the first service to this one are worth."""
    if ladder is None:
        return []
    said = {
        steps.model: bench.ladder_sentences(steps) for steps, _ in bench.ladder(store.load(ladder))
    }
    target = link(ladder, readme)
    return [f"{about[0]} ([ladder, {model}]({target}))" for model, about in said.items() if about]
