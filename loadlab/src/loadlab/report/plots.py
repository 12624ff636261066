"""The pictures of a run: all over one time axis with the phases shaded, and the latency
spectrum."""

import math
from collections import Counter
from collections.abc import Sequence

from loadlab.record.histogram import quantile
from loadlab.record.read import Log
from loadlab.report.curves import Curves, Points, curves
from loadlab.report.svg import Chart, Line

_TICKS = 8
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200)
_NINES = (
    (0.0, "0 %"),
    (1 - 0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
)


def charts(log: Log) -> list[Chart]:
    """Every picture, in the order in which the page shows them."""
    seen, time = curves(log), _Timeline(log)
    return [
        *_load_charts(log, seen, time),
        *_server_charts(log, seen, time),
        *_generator_charts(log, seen, time),
        spectrum(log),
    ]


def _load_charts(log: Log, seen: Curves, time: "_Timeline") -> list[Chart]:
    """Users, requests, latencies and failures."""
    each = "second" if seen.step_s == 1 else f"{seen.step_s} s"
    title = f"Response time of each {each}, from the intended start"
    return [
        time.chart(
            "users",
            "Users and connections",
            "",
            [Line("users", seen.users, 0), Line("connections", seen.connections, 1, dashed=True)],
        ),
        time.chart(
            "rate",
            "Requests per second",
            "1/s",
            [Line("offered", seen.offered, 1), Line("rightly answered", seen.achieved, 0)],
        ),
        time.chart("latency", title, "ms", _coloured(seen.latencies), _slowest(log), log=True),
        time.chart("failures", "Failures", "1/s", [Line("failures", seen.failures, 2)]),
    ]


def _server_charts(log: Log, seen: Curves, time: "_Timeline") -> list[Chart]:
    """The server's CPU time, throttling and memory against their limits."""
    return [
        time.chart(
            "cpu",
            "CPU of the server against its quota",
            "cores",
            [Line("used", seen.cpu, 0)],
            _quota(log),
        ),
        time.chart(
            "throttled",
            "Periods in which the quota stopped the server",
            "%",
            [Line("throttled", seen.throttled, 2)],
        ),
        time.chart(
            "memory",
            "Memory of the server against its limit",
            "MiB",
            [Line("memory", seen.memory, 0)],
            _memory_limit(log),
        ),
    ]


def _generator_charts(log: Log, seen: Curves, time: "_Timeline") -> list[Chart]:
    """Whether the generator was on time, and what the witness saw."""
    rules = log.run.criteria.rules
    title = "The witness and the users, in windows of 5 s"
    witnessed = _coloured(seen.users_windowed, "users ")
    witnessed += _coloured(seen.witness, "witness ", dashed=True)
    return [
        time.chart(
            "generator",
            "CPU of the generator's processes, and what the hypervisor took",
            "cores",
            [*_coloured(seen.generator), Line("steal", seen.steal, 4, dashed=True)],
            [(rules.v2_cpu_second, "V2")],
        ),
        time.chart(
            "lag",
            "Lateness of the generator's loops",
            "ms",
            [Line("p99", seen.loop_lag, 3)],
            [(rules.v3_lag_p99_ms, "V3")],
            log=True,
        ),
        time.chart("witness", title, "ms", witnessed, log=True),
    ]


class _Timeline:
    """Charts that share one axis: the run's time, with its phases shaded."""

    def __init__(self, log: Log) -> None:
        ends = [log.end_of(phase) for phase in log.run.phases]
        self._span = (0.0, max([*ends, 1.0]))
        self._ticks = _time_ticks(self._span[1])
        self._bands = _bands(log)

    def chart(
        self,
        name: str,
        title: str,
        unit: str,
        lines: list[Line],
        limits: Sequence[tuple[float, str]] = (),
        *,
        log: bool = False,
    ) -> Chart:
        """One of them."""
        return Chart(
            name,
            title,
            unit,
            lines,
            span=self._span,
            ticks=self._ticks,
            bands=self._bands,
            limits=limits,
            logarithmic=log,
        )


def _bands(log: Log) -> list[tuple[float, float, str]]:
    """Begin, end and name of every phase; phases that alternate are one, because one of their
    turns is too narrow for a name."""
    found: list[tuple[float, float, str]] = []
    for phase in log.run.phases:
        by_turns = phase.name in {"repeated", "alike"} and found and found[-1][2] == "repeated"
        found.append(
            (
                found.pop()[0] if by_turns else phase.start_s,
                log.end_of(phase),
                "repeated" if by_turns else phase.name,
            )
        )
    return found


def _coloured(many: dict[str, Points], prefix: str = "", *, dashed: bool = False) -> list[Line]:
    return [
        Line(f"{prefix}{name}", points, colour % 5, dashed=dashed)
        for colour, (name, points) in enumerate(many.items())
    ]


def _slowest(log: Log) -> list[tuple[float, str]]:
    limit_ms = log.run.criteria.objective.p99_ms
    return [] if limit_ms is None else [(limit_ms, f"objective: p99 ≤ {limit_ms:g} ms")]


def _quota(log: Log) -> list[tuple[float, str]]:
    cpus = log.run.tier.limits.cpus
    return (
        []
        if cpus is None
        else [(cpus * log.run.tier.replicas, f"quota {cpus * log.run.tier.replicas:g}")]
    )


def _memory_limit(log: Log) -> list[tuple[float, str]]:
    limit = log.run.tier.limits.memory_bytes
    return (
        []
        if limit is None
        else [
            (
                limit * log.run.tier.replicas / 2**20,
                f"limit {limit * log.run.tier.replicas / 2**20:,.0f} MiB",
            )
        ]
    )


def spectrum(log: Log) -> Chart:
    """Every percentile, with as many nines as there are answers for; the objective's points as
    limits."""
    lines = [
        Line("users: response", _spectrum(log.histogram("users", "response", "steady")), 0),
        Line("users: service", _spectrum(log.histogram("users", "service", "steady")), 1),
        Line("witness", _spectrum(log.histogram("witness", "response", "steady")), 3),
        Line("null server", _spectrum(log.histogram("floor", "response")), 4, dashed=True),
    ]
    if wanted := _wanted(log):
        lines.append(Line("objective", wanted, 2, dashed=True))
    longest = max((points[-1][0] for line in lines if (points := line.points)), default=2.0)
    ticks = [(_nines(share), word) for share, word in _NINES if _nines(share) <= longest + 0.01]
    return Chart(
        "spectrum",
        "Latency spectrum of the steady phase: share of answers that were faster",
        "ms",
        lines,
        span=(0, longest),
        ticks=ticks,
        logarithmic=True,
        time=False,
    )


def _wanted(log: Log) -> list[tuple[float, float | None]]:
    """The objective's quantiles and their limits."""
    asked = log.run.criteria.objective
    limits_ms = ((0.5, asked.p50_ms), (0.95, asked.p95_ms), (0.99, asked.p99_ms))
    return [(_nines(q), limit) for q, limit in limits_ms if limit is not None]


def _spectrum(counts: Counter[int]) -> list[tuple[float, float | None]]:
    total = counts.total()
    if not total:
        return []
    steps = [n / 20 for n in range(int(20 * math.log10(total)) + 1)]
    return [(step, quantile(counts, 1 - 10**-step) / 1000) for step in steps]


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _time_ticks(last: float) -> list[tuple[float, str]]:
    step = next((step for step in _STEPS_S if last / step <= _TICKS), _STEPS_S[-1])
    return [(at, f"{at // 60}:{at % 60:02}") for at in range(0, int(last) + 1, step)]
