"""Studies: what may be said of their rows, and their sections of docs/benchmarks.md."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from loadlab.experiments.studies.form import KINDS, Row, Study, What
from loadlab.experiments.studies.seeds import read as configurations
from loadlab.experiments.studies.summary import (
    CPU_US,
    MEMORY_MIB,
    P99_MS,
    THROTTLED,
    Summary,
    reasons,
    summaries,
)
from loadlab.pages.template import number, page
from loadlab.run.arguments import Order

_COLUMNS: dict[str, Callable[[Row], float | None]] = {
    "cpu_us": CPU_US,
    "p99_ms": P99_MS,
    "memory_mib": MEMORY_MIB,
    "throttled": THROTTLED,
    "p50_ms": lambda row: row.p50_ms,
    "p95_ms": lambda row: row.p95_ms,
    "balancer_us": lambda row: row.balancer_us,
}
"""What the tables show medians of."""


def newest(runs: Path) -> list[Path]:
    """The newest of each kind."""
    found = (max(runs.glob(f"*-{kind}.json"), default=None) for kind in KINDS)
    return [file for file in found if file]


def study(found: Study, link: str, picture: str) -> str:
    """A section; `link` leads to the stored file, `picture` is its plot's name, or empty."""
    orders = [cell.order for cell in found.cells]
    return page(
        found.what,
        study=found,
        orders=orders,
        loads=list(dict.fromkeys(map(_load, orders))),
        sentences=sentences(found),
        reasons=reasons(found),
        summaries=lambda prefix="": summaries(found, prefix),
        shares_of=shares_of,
        configurations=configurations,
        link=link,
        picture=picture,
        **_COLUMNS,
    )


def _load(order: Order) -> str:
    think = "–".join(f"{each:g}" for each in order.scenario.think)
    if order.users == 1:
        return f"one user who thinks {think} s"
    return f"{order.users:,} users who think {think} s"


def sentences(study: Study) -> list[str]:
    """All that a study allows to be said."""
    runs = len(study.cells) * study.blocks
    missing = [f"{study.missing} of {runs} runs have not been made yet."] if study.missing else []
    return [*missing, *_SAID[study.what](study)]


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


def _seeds(study: Study) -> list[str]:
    """How many of the configurations each service carries, of those that both could be judged
    in."""
    services = dict.fromkeys(cell.order.service for cell in study.cells)
    against = next((name for name in services if name != "halfcore"), "typical")
    of = {(row.key, row.service, row.block): row for row in study.rows}
    ours = [row for row in study.rows if row.service == "halfcore"]
    pairs = [(row, of.get((row.key, against, row.block))) for row in ours]
    judged = [pair for pair in pairs if all(map(_judged, pair))]
    passed = [
        sum(bool(row and row.trial and row.trial.outcome == "PASS") for row in side)
        for side in zip(*judged, strict=True)
    ] or [0, 0]
    said = (
        f"Of {len(judged)} runs in which both could be judged, Halfcore passes {passed[0]} and "
        f"`{against}` {passed[1]}."
    )
    if not (too_large := {row.key for row in ours if row.reason}):
        return [said]
    every = len(configurations())
    large = f"{len(too_large)} of {every} configurations are too large for this machine"
    return [said, f"{large} and were not run."]


def _judged(row: Row | None) -> bool:
    """Passed, failed, or could not even start."""
    trial = row.trial if row else None
    return bool(trial and (trial.outcome in {"PASS", "FAIL"} or not trial.could_start))


def _scale(study: Study) -> list[str]:
    """For each total: what several replicas cost against one."""
    found = []
    for key, group in groupby(summaries(study), lambda each: each.cell.key.partition("-as-")[0]):
        total, shapes = key.replace("_", "."), list(group)
        alone = next((each for each in shapes if each.cell.key == f"{key}-as-1"), None)
        if alone is None or alone.median(CPU_US) is None:
            found.append(
                f"{total} CPU in all: one replica alone was not measured validly, so nothing is "
                "compared with it."
            )
            continue
        found.append(f"{total} CPU in all: one replica alone takes {_cost(alone)}.")
        found += [_against(alone, each) for each in shapes if each is not alone]
    return found


def _cost(each: Summary) -> str:
    return (
        f"{number(each.median(CPU_US), ',.0f')} µs CPU an answer, p99 "
        f"{number(each.median(P99_MS))} ms ({each.outcomes})"
    )


def _against(alone: Summary, each: Summary) -> str:
    tier, theirs, ours = each.cell.order.tier, each.median(CPU_US), alone.median(CPU_US)
    name = f"{tier.replicas} × {tier.cpus:g} + HAProxy"
    if theirs is None or not ours:
        return f"{name}: {each.outcomes}; nothing is compared."
    # The CPU time of a server that fails includes its overload, and compares with nothing.
    failed = any(row.trial and row.trial.outcome == "FAIL" for row in (*alone.rows, *each.rows))
    times = "no ratio, for a run failed" if failed else f"{theirs / ours:.2f} × the CPU time of one"
    balancer = number(each.median(lambda row: row.balancer_us), ",.0f")
    return f"{name}: {_cost(each)}, {times}; {balancer} µs are the balancer's."


def _quota(study: Study) -> list[str]:
    """Per limit what period and burst change, and what the late replica gets."""
    limited = summaries(study, "quota-")
    limits = dict.fromkeys(each.cell.order.tier.cpus for each in limited)
    found = [
        _of_limit(cpus, [each for each in limited if each.cell.order.tier.cpus == cpus])
        for cpus in limits
    ]
    for each in summaries(study, "dealing-"):
        if each.cell.order.late and (shares := shares_of(each)):
            what = "requests" if each.cell.order.balancer == "http" else "connections"
            found.append(
                f"A replica that joins late gets {shares[-1]:.1%} of the answers where {what} are "
                "dealt out."
            )
    return found


def _of_limit(cpus: float, cells: list[Summary]) -> str:
    p99_ms = {
        f"{tier.period_us // 1000} ms, {'burst' if tier.burst_us else 'no burst'}": p99
        for each in cells
        if (p99 := each.median(P99_MS)) is not None and (tier := each.cell.order.tier)
    }
    usual = p99_ms.get("100 ms, no burst")
    if usual is None or len(p99_ms) < 2:
        return f"{cpus:g} CPU: too little was measured validly to compare."
    others = ", ".join(
        f"{p99:,.1f} ms with {name}" for name, p99 in p99_ms.items() if name != "100 ms, no burst"
    )
    return (
        f"{cpus:g} CPU: p99 is {usual:,.1f} ms with 100 ms and no burst, {others}; least with "
        f"{min(p99_ms, key=p99_ms.__getitem__)}."
    )


_SAID: dict[What, Callable[[Study], list[str]]] = {
    "seeds": _seeds,
    "scale": _scale,
    "quota-study": _quota,
}
