"""Comparisons, searches and studies: sections of docs/benchmarks.md, tables for a terminal, lines
of README, what may be said of a study's rows, and which files are shown."""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from loadlab.experiments import compare as comparisons
from loadlab.experiments import runner, studies
from loadlab.experiments import searching as searches
from loadlab.experiments.compare import Comparison
from loadlab.experiments.search import Search
from loadlab.experiments.studies import (
    CPU_US,
    P99_MS,
    Row,
    Study,
    Summary,
    configurations,
    summaries,
)
from loadlab.pages.template import link, page
from loadlab.run.order import Order

_USUAL = "100 ms, no burst"
"""What Docker and Kubernetes do."""


def newest(runs: Path, *kinds: str) -> list[Path]:
    """Kind by kind, the newest comparison of every tier, baseline and number of users, search of
    every server, scenario and number of users, or study."""
    found = []
    for kind in kinds:
        files = sorted(runs.glob(f"*-{kind}*.json"))
        last = {name(file): file for file in files if re.match(rf"{kind}(-|$)", name(file))}
        found += [last[each] for each in sorted(last)]
    return found


def name(file: Path) -> str:
    """Kind, and what distinguishes it from others of its kind: its file's name without the time."""
    return file.stem.split("-", 4)[4]


def compare(comparison: Comparison, link: str = "", picture: str = "") -> str:
    """A section; `link` leads to the stored file, `picture` is its plot's name, or empty."""
    return page(
        "compare",
        comparison=comparison,
        blocks=comparison.made,
        trials=comparison.rows,
        sentences=comparisons.sentences(comparison),
        link=link,
        picture=picture,
    )


def search(found: Search, link: str = "", picture: str = "", history: Sequence[str] = ()) -> str:
    """The same of a search; `history` is what its reruns and earlier searches say."""
    return page(
        "search",
        search=found,
        probes=[(probe, found.goal.steady_s(probe)) for probe in found.rows],
        sentences=[*searches.sentences(found), *history],
        link=link,
        picture=picture,
    )


def history(file: Path, out: Path) -> list[str]:
    """What a search's reruns say, and what searches of the same kind found before it."""
    same = sorted(file.parent.glob(f"*-{name(file)}.json"))
    before = [each for each in same if each.name < file.name]
    earlier = [searches.earlier(runner.load(each, Search), link(each, out)) for each in before]
    return [*map(searches.again, searches.reruns(file)), *reversed(earlier)]


def compare_table(comparison: Comparison) -> Table:
    """Every run, for a terminal."""
    return _table(compare(comparison))


def search_table(found: Search) -> Table:
    """Every probe, for a terminal."""
    return _table(search(found))


def _table(section: str) -> Table:
    lines = [each.strip("|") for each in section.splitlines() if each.startswith("|")]
    heads, _, *rows = [[escape(cell.strip()) for cell in each.split("|")] for each in lines]
    shown = Table(*heads, box=None)
    for row in rows:
        shown.add_row(*row)
    return shown


def least(readme: Path, files: Sequence[Path]) -> list[str]:
    """How little is enough."""
    lines = []
    for file in files:
        minimum = searches.sentences(runner.load(file, Search))[0].rstrip(".")
        if reruns := searches.reruns(file):
            minimum += f"; {searches.counted(reruns)}"
        lines.append(f"{minimum} ([search]({link(file, readme)})).")
    return lines


def compared(readme: Path, files: Sequence[Path]) -> list[str]:
    """What the baselines do in the same limits."""
    lines = []
    for file in files:
        found = runner.load(file, Comparison)
        sides = [
            f"{side} {comparisons.counted(found, side)}" for side in ("halfcore", found.against)
        ]
        lines.append(
            f"{found.users:,} users, tier {found.tier} ({found.limits}): {', '.join(sides)} "
            f"([compare]({link(file, readme)}))."
        )
    return lines


def shares_of(cell: Summary) -> list[float]:
    """Each replica's share of all answers, of all runs together; empty if a run reports none.

    Of INVALID ones too: who answered is counted, and what makes a latency or a CPU time doubtful
    does not make a count so.
    """
    counts = [row.answered for row in cell.rows if row.trial and row.trial.outcome != "ERROR"]
    if not counts or any(count is None for row in counts for count in row):
        return []
    sums = [sum(count or 0 for count in replica) for replica in zip(*counts, strict=True)]
    return [part / sum(sums) for part in sums] if sum(sums) else []


_CONTEXT: dict[str, Any] = {
    "shares_of": shares_of,
    "configurations": configurations,
    "cpu_us": CPU_US,
    "p99_ms": P99_MS,
    "memory_mib": studies.MEMORY_MIB,
    "throttled": studies.THROTTLED,
    "p50_ms": lambda row: row.p50_ms,
    "p95_ms": lambda row: row.p95_ms,
    "balancer_us": lambda row: row.balancer_us,
}
"""For all templates; the last ones are what tables show medians of."""


def study(found: Study, link: str, picture: str) -> str:
    """A section; `link` leads to the stored file, `picture` is its plot's name, or empty."""
    orders = [cell.order for cell in found.cells]
    return page(
        found.kind,
        study=found,
        orders=orders,
        loads=list(dict.fromkeys(map(_load, orders))),
        sentences=study_sentences(found),
        reasons=studies.reasons(found),
        summaries=lambda prefix="": summaries(found, prefix),
        link=link,
        picture=picture,
        **_CONTEXT,
    )


def _load(order: Order) -> str:
    think = "–".join(f"{each:g}" for each in order.scenario.think)
    if order.users == 1:
        return f"one user who thinks {think} s"
    return f"{order.users:,} users who think {think} s"


def study_sentences(found: Study) -> list[str]:
    """All that a study allows to be said."""
    services = dict.fromkeys(cell.order.service for cell in found.cells)
    against = next((name for name in services if name != "halfcore"), "typical")
    said = page(
        "study_said",
        study=found,
        kind=found.kind,
        against=against,
        judged=_judged(found, against),
        p99s=_p99s,
        usual=_USUAL,
        totals=_grouped(summaries(found), lambda each: each.cell.key.partition("-as-")[0]),
        limits=_grouped(summaries(found, "quota-"), lambda each: each.cell.order.tier.cpus),
        late=[each for each in summaries(found, "dealing-") if each.cell.order.late],
        **_CONTEXT,
    )
    return said.splitlines()


def _grouped(cells: list[Summary], by: Callable[[Summary], Any]) -> list[tuple[Any, list[Summary]]]:
    return [(name, list(group)) for name, group in groupby(cells, by)]


def _judged(study: Study, against: str) -> list[tuple[Row, Row]]:
    """The runs of one configuration and block by halfcore and the baseline in which each passed,
    failed, or could not even start."""
    counted = {
        (row.service, row.key, row.block): row
        for row in study.rows
        if row.trial and (row.trial.outcome in {"PASS", "FAIL"} or not row.trial.could_start)
    }
    return [
        (row, counted[against, key, block])
        for (service, key, block), row in counted.items()
        if service == "halfcore" and (against, key, block) in counted
    ]


def _p99s(cells: list[Summary]) -> dict[str, float]:
    """By period and burst, where it was measured validly."""
    tiers = [(each.cell.order.tier, each.median(P99_MS)) for each in cells]
    return {
        f"{tier.period_us // 1000} ms, {'burst' if tier.burst_us else 'no burst'}": p99
        for tier, p99 in tiers
        if p99 is not None
    }
