"""The quota's period and burst, and the replicas' shares: two tables and what they say."""

from loadlab.experiments.studies import (
    CPU_US,
    P99_MS,
    THROTTLED,
    Row,
    Study,
    Summary,
    number,
    summaries,
)

QUOTA = """A CPU quota is time per period: 0.5 CPU are 50 ms in every 100 ms, and a group that has
used them is stopped until the next period. With a shorter period the stops are shorter and more
frequent; a burst lets a group use later what it did not use before (here up to one whole quota, the
most that the kernel allows). Docker and Kubernetes use 100 ms and no burst. Period and burst were
read back from the kernel in every run."""
DEALING = """Users keep their connections open. A balancer of connections (HAProxy, mode tcp, round
robin) binds each of them to one replica for as long as it is open; a balancer of requests (mode
http, fewest in flight) does not. In the rows with a late replica the third one joins when all users
are there, like a replica that is started under load. Shares are of the answers since that moment,
as each replica counted them itself."""

_QUOTA_HEADER = (
    "| limit | scenario | period | burst | verdicts | p50 ms | p95 ms | p99 ms | throttled "
    "periods | CPU µs/answer |\n"
    "| ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
)
_DEALING_HEADER = (
    "| balancer distributes | third replica | verdicts | shares of the answers | p99 ms | CPU "
    "µs/answer | of it the balancer's |\n"
    "| --- | --- | --- | --- | ---: | ---: | ---: |"
)


def quota_table(study: Study) -> str:
    """A line for every limit, period and burst."""
    lines = [_QUOTA_HEADER]
    for each in summaries(study, "quota-"):
        tier, order = each.cell.order.tier, each.cell.order
        burst = f"{tier.burst_us / 1000:g} ms" if tier.burst_us else "off"
        cells = [
            f"{tier.cpus:g} CPU",
            f"{order.scenario.name}, {order.users:,} users",
            f"{tier.period_us // 1000} ms",
            burst,
            each.outcomes,
        ]
        cells += [number(each.median(read)) for read in (_p50_ms, _p95_ms, P99_MS)]
        cells += [number(each.median(THROTTLED), ".1%"), number(each.median(CPU_US))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dealing_table(study: Study) -> str:
    """A line for every way of dealing out."""
    lines = [_DEALING_HEADER]
    for each in summaries(study, "dealing-"):
        order = each.cell.order
        cells = [
            "requests" if order.balancer == "http" else "connections",
            "joins late" if order.late else "from the start",
            each.outcomes,
        ]
        cells += [
            _shares(each),
            number(each.median(P99_MS)),
            number(each.median(CPU_US)),
            number(each.median(_balancer_us)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentences(study: Study) -> list[str]:
    """Per limit what period and burst change, and what the late replica gets."""
    limited = summaries(study, "quota-")
    limits = dict.fromkeys(each.cell.order.tier.cpus for each in limited)
    found = [
        _quota_sentence(cpus, [each for each in limited if each.cell.order.tier.cpus == cpus])
        for cpus in limits
    ]
    for each in summaries(study, "dealing-"):
        if (shares := shares_of(each)) and each.cell.order.late:
            what = "requests" if each.cell.order.balancer == "http" else "connections"
            found.append(
                f"A replica that joins late gets {shares[-1]:.1%} of the answers where {what} are "
                "dealt out."
            )
    return found


def shares_of(each: Summary) -> list[float]:
    """Each replica's share of all answers, of all runs together; empty if a run reports none.

    Of INVALID ones too: who answered is counted, and what makes a latency or a CPU time doubtful
    does not make a count so.
    """
    counts = [row.answered for row in each.rows if row.trial and row.trial.outcome != "ERROR"]
    if not counts or any(count is None for row in counts for count in row):
        return []
    sums = [sum(count or 0 for count in replica) for replica in zip(*counts, strict=True)]
    return [part / sum(sums) for part in sums] if sum(sums) else []


def _shares(each: Summary) -> str:
    return " / ".join(f"{share:.1%}" for share in shares_of(each)) or "–"


def _quota_sentence(cpus: float, cells: list[Summary]) -> str:
    known = [(p99, each) for each in cells if (p99 := each.median(P99_MS)) is not None]
    usual = next((p99 for p99, each in known if _name(each) == "100 ms, no burst"), None)
    if usual is None or len(known) < 2:
        return f"{cpus:g} CPU: too little was measured validly to compare."
    others = ", ".join(
        f"{p99:,.1f} ms with {_name(each)}"
        for p99, each in known
        if _name(each) != "100 ms, no burst"
    )
    best = min(known, key=lambda pair: pair[0])
    return (
        f"{cpus:g} CPU: p99 is {usual:,.1f} ms with 100 ms and no burst, {others}; least with "
        f"{_name(best[1])}."
    )


def _name(each: Summary) -> str:
    tier = each.cell.order.tier
    return f"{tier.period_us // 1000} ms, {'burst' if tier.burst_us else 'no burst'}"


def _p50_ms(row: Row) -> float | None:
    return row.p50_ms


def _p95_ms(row: Row) -> float | None:
    return row.p95_ms


def _balancer_us(row: Row) -> float | None:
    return row.balancer_us
