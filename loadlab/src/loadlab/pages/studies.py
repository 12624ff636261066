"""Studies: what may be said of their rows, and their sections of docs/benchmarks.md."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from loadlab.experiments.studies import (
    CPU_US,
    KINDS,
    MEMORY_MIB,
    P99_MS,
    THROTTLED,
    Row,
    Study,
    Summary,
    configurations,
    reasons,
    summaries,
)
from loadlab.pages.template import page
from loadlab.run.order import Order

_USUAL = "100 ms, no burst"
"""What Docker and Kubernetes do."""


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
    "memory_mib": MEMORY_MIB,
    "throttled": THROTTLED,
    "p50_ms": lambda row: row.p50_ms,
    "p95_ms": lambda row: row.p95_ms,
    "balancer_us": lambda row: row.balancer_us,
}
"""For all templates; the last ones are what tables show medians of."""


def newest(runs: Path) -> list[Path]:
    """The newest of each kind."""
    found = (max(runs.glob(f"*-{kind}.json"), default=None) for kind in KINDS)
    return [file for file in found if file]


def study(found: Study, link: str, picture: str) -> str:
    """A section; `link` leads to the stored file, `picture` is its plot's name, or empty."""
    orders = [cell.order for cell in found.cells]
    return page(
        found.kind,
        study=found,
        orders=orders,
        loads=list(dict.fromkeys(map(_load, orders))),
        sentences=sentences(found),
        reasons=reasons(found),
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


def sentences(found: Study) -> list[str]:
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
