"""A run second by second: what the plots show. Nothing here is judged, nothing smoothed except where it says so."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loadlab.latency import quantile
from loadlab.record.form import Sample, Second, Series
from loadlab.record.packed import merge
from loadlab.record.read import Log
from loadlab.verdict.figures import cpu_s, process_cpu

Points = list[tuple[float, float | None]]
"""Time in seconds since the run's start → value; None is a gap."""

WITNESS_WINDOW_S = 5
"""The witness asks 20 times a second: its quantiles are of five seconds."""


@dataclass(frozen=True)
class Curves:
    """Everything over time. Rates per second, latencies in milliseconds, CPU in cores, memory in MiB."""

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
    lines = _by_second(log, "users")
    return Curves(
        users=_each(lines, _alive),
        offered=_each(lines, lambda second: sum(line.intended for line in second)),
        achieved=_each(lines, lambda second: sum(line.answered for line in second)),
        failures=_each(lines, lambda second: sum(sum(line.failures.values()) for line in second)),
        latencies={name: _quantile(lines, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))},
        witness=_windowed(log, "witness"),
        users_windowed=_windowed(log, "users"),
        cpu=per_second(log.samples, cpu_s),
        throttled=_throttled(log.samples),
        memory=_gauge(log.samples, lambda sample: sample.server.memory_bytes / 2**20 if sample.server else None),
        generator={
            process.name: per_second(log.samples, process_cpu(process.name)) for process in log.run.processes if process.role == "generator"
        },
        loop_lag=_quantile(lines, 0.99, "loop_lag"),
        steal=per_second(log.samples, lambda sample: sample.host.steal_s if sample.host else None),
        connections=_gauge(log.samples, lambda sample: sample.net.established if sample.net else None),
    )


def per_second(samples: Iterable[Sample], read: Callable[[Sample], float | None]) -> Points:
    """A counter's growth over each second, at the second's middle."""
    points: Points = []
    first: tuple[float, float] | None = None
    for sample in samples:
        value = read(sample)
        if value is None:
            first = None
        elif first is None:
            first = (sample.t, value)
        elif sample.t - first[0] >= 1.0 - 1e-6:
            points.append(((sample.t + first[0]) / 2, (value - first[1]) / (sample.t - first[0])))
            first = (sample.t, value)
    return points


def _by_second(log: Log, series: Series) -> dict[int, list[Second]]:
    found: dict[int, list[Second]] = {}
    for line in log.of(series):
        found.setdefault(line.t, []).append(line)
    return found


def _each(lines: dict[int, list[Second]], value: Callable[[list[Second]], float | None]) -> Points:
    return [(t + 0.5, value(second)) for t, second in lines.items()]


def _alive(second: list[Second]) -> float | None:
    """Users at the end of a second that two phases may share: those of the later one."""
    known = [line for line in second if line.users is not None]
    return sum(line.users or 0 for line in known if line.phase == known[-1].phase) if known else None


def _quantile(lines: dict[int, list[Second]], q: float, kind: str = "response") -> Points:
    return _each(lines, lambda second: _quantile_ms((getattr(line, kind) for line in second), q))


def _quantile_ms(packed: Iterable[list[int]], q: float) -> float | None:
    counts = merge(packed)
    return quantile(counts, q) / 1000 if counts else None


def _windowed(log: Log, series: Series) -> dict[str, Points]:
    windows: dict[int, list[list[int]]] = {}
    for line in log.of(series):
        if line.phase != "warmup":
            windows.setdefault(line.t // WITNESS_WINDOW_S, []).append(line.response)
    return {
        name: [((n + 0.5) * WITNESS_WINDOW_S, _quantile_ms(packed, q)) for n, packed in windows.items()]
        for name, q in (("p50", 0.5), ("p95", 0.95))
    }


def _throttled(samples: list[Sample]) -> Points:
    stopped = per_second(samples, lambda sample: sample.server.throttled_periods if sample.server else None)
    passed = per_second(samples, lambda sample: sample.server.periods if sample.server else None)
    return [
        (at, 100 * count / periods if count is not None and periods else 0.0)
        for (at, count), (_, periods) in zip(stopped, passed, strict=True)
    ]


def _gauge(samples: Iterable[Sample], read: Callable[[Sample], float | None]) -> Points:
    """One value a second is enough for a picture."""
    points: Points = []
    for sample in samples:
        if not points or sample.t - points[-1][0] >= 1.0 - 1e-6:
            points.append((sample.t, read(sample)))
    return points
