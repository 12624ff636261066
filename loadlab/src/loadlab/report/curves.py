"""A run second by second: what the plots show. Nothing here is judged, nothing smoothed except
where it says so."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loadlab.record.histogram import merge
from loadlab.record.read import Log
from loadlab.record.schema import Sample, Second, Series
from loadlab.verdict.figures import cpu_s, process_cpu, quantile_ms

Points = list[tuple[float, float | None]]
"""Time in seconds since the run's start → value; None is a gap."""

Steps = dict[int, list[Second]]
"""Lines of a series by the number of their step."""

WITNESS_WINDOW_S = 5
"""The witness asks 20 times a second: its quantiles are of five seconds."""


MOST_POINTS = 600
"""Of one curve: a run of more seconds is drawn in steps of two, three, … of them, their histograms
merged, nothing left out."""


@dataclass(frozen=True)
class Curves:
    """Everything over time. Rates per second, latencies in milliseconds, CPU in cores, memory in
    MiB."""

    step_s: int
    """Seconds that one point stands for."""
    users: Points
    offered: Points
    achieved: Points
    failures: Points
    latencies: dict[str, Points]
    witness: dict[str, Points]
    users_windowed: dict[str, Points]
    """The users' quantiles over the witness's windows, to be laid over them."""
    cpu: Points
    throttled: Points
    """Share of the second's periods, per cent."""
    memory: Points
    generator: dict[str, Points]
    """Per generator process."""
    loop_lag: Points
    steal: Points
    connections: Points


def curves(log: Log) -> Curves:
    """Read every curve from a run."""
    step = max(math.ceil(max((line.t + 1 for line in log.seconds), default=1) / MOST_POINTS), 1)
    lines = _by_step(log, "users", step)
    return Curves(
        step_s=step,
        users=_each(lines, step, _alive),
        offered=_rate(lines, step, lambda line: line.intended),
        achieved=_rate(lines, step, lambda line: line.answered),
        failures=_rate(lines, step, lambda line: sum(line.failures.values())),
        latencies=_quantiles(
            lines, step, "response", {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        ),
        witness=_windowed(log, "witness", step),
        users_windowed=_windowed(log, "users", step),
        cpu=growth(log.samples, step, cpu_s),
        throttled=_throttled(log.samples, step),
        memory=_gauge(
            log.samples,
            step,
            lambda sample: sample.server.memory_bytes / 2**20 if sample.server else None,
        ),
        generator={
            process.name: growth(log.samples, step, process_cpu(process.name))
            for process in log.run.processes
            if process.role == "generator"
        },
        loop_lag=_quantiles(lines, step, "loop_lag", {"p99": 0.99})["p99"],
        steal=growth(
            log.samples, step, lambda sample: sample.host.steal_s if sample.host else None
        ),
        connections=_gauge(
            log.samples, step, lambda sample: sample.net.established if sample.net else None
        ),
    )


def growth(samples: Iterable[Sample], step: int, read: Callable[[Sample], float | None]) -> Points:
    """A counter's growth per second over each step, at the step's middle."""
    points: Points = []
    first: tuple[float, float] | None = None
    for sample in samples:
        value = read(sample)
        if value is None:
            first = None
        elif first is None:
            first = (sample.t, value)
        elif sample.t - first[0] >= step - 1e-6:
            points.append(((sample.t + first[0]) / 2, (value - first[1]) / (sample.t - first[0])))
            first = (sample.t, value)
    return points


def _by_step(log: Log, series: Series, step: int) -> Steps:
    found: Steps = {}
    for line in log.of(series):
        found.setdefault(line.t // step, []).append(line)
    return found


def _each(lines: Steps, step: int, value: Callable[[list[Second]], float | None]) -> Points:
    return [((number + 0.5) * step, value(inside)) for number, inside in lines.items()]


def _rate(lines: Steps, step: int, count: Callable[[Second], int]) -> Points:
    return _each(
        lines, step, lambda inside: sum(map(count, inside)) / len({line.t for line in inside})
    )


def _alive(inside: list[Second]) -> float | None:
    """Users at the end of a step, whose last second two phases may share: those of the later
    one."""
    known = [line for line in inside if line.users is not None]
    last = [
        line.users or 0 for line in known if (line.t, line.phase) == (known[-1].t, known[-1].phase)
    ]
    return sum(last) if last else None


def _quantiles(
    lines: Steps, step: int, kind: str, wanted: Mapping[str, float]
) -> dict[str, Points]:
    """Every quantile wanted, from one merge of each step's histograms."""
    merged = {
        (number + 0.5) * step: merge(getattr(line, kind) for line in inside)
        for number, inside in lines.items()
    }
    return {
        name: [(at, quantile_ms(counts, q)) for at, counts in merged.items()]
        for name, q in wanted.items()
    }


def _windowed(log: Log, series: Series, step: int) -> dict[str, Points]:
    window_s = max(WITNESS_WINDOW_S, step)
    lines = {
        number: [line for line in inside if line.phase != "warmup"]
        for number, inside in _by_step(log, series, window_s).items()
    }
    return _quantiles(lines, window_s, "response", {"p50": 0.5, "p95": 0.95})


def _throttled(samples: list[Sample], step: int) -> Points:
    stopped = growth(
        samples, step, lambda sample: sample.server.throttled_periods if sample.server else None
    )
    passed = growth(samples, step, lambda sample: sample.server.periods if sample.server else None)
    return [
        (at, 100 * count / periods if count is not None and periods else 0.0)
        for (at, count), (_, periods) in zip(stopped, passed, strict=True)
    ]


def _gauge(samples: Iterable[Sample], step: int, read: Callable[[Sample], float | None]) -> Points:
    """One value a step is enough for a picture."""
    points: Points = []
    for sample in samples:
        if not points or sample.t - points[-1][0] >= step - 1e-6:
            points.append((sample.t, read(sample)))
    return points
