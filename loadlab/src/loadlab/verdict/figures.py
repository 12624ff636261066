"""What the record says in numbers; nothing is judged here."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from loadlab.record.histogram import quantile
from loadlab.record.read import LOAD, Log
from loadlab.record.schema import PhaseName, Sample, Second
from loadlab.verdict.stats import rate_bound, upper_bound

_NO_PASS: tuple[PhaseName, ...] = ("ramp", "settle", "steady")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run in numbers, of the steady phase unless said otherwise. None: not recorded, or no
    values."""

    steady_s: float
    users: int
    requests: int
    """Finished, right or wrong."""
    offered_hz: float | None
    achieved_hz: float | None
    """Right answers."""
    errors: int
    """In ramp, settle and steady, unanswered ones included."""
    error_bound: float | None
    """Share of errors that is not exceeded with 95 % confidence."""
    failures: dict[str, int]
    """By kind, in all phases with users."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p99_bound_ms: float | None
    """With 99 % confidence p99 is not above."""
    p999_ms: float | None
    max_ms: float | None
    ramp_p99_ms: float | None
    service_p99_ms: float | None
    cpu_cores: float | None
    quota_cores: float | None
    cpu_us: float | None
    """CPU time of the server per right answer."""
    balancer_cores: float | None = None
    """The part of `cpu_cores` that is the balancer's."""
    throttled: float | None
    """Share of periods."""
    memory_peak_mib: float | None
    memory_limit_mib: float | None
    generator_cpu: float | None
    """Cores of the busiest generator process."""
    loop_lag_p99_ms: float | None
    witness_p50_ms: float | None
    witness_p95_ms: float | None
    floor_p99_ms: float | None
    in_flight: int | None
    unfinished: int | None


def figures(log: Log) -> Figures:
    """All figures of a run."""
    lines, response = log.of("users", "steady"), log.histogram("users", "response", "steady")
    lasted, finished = log.lasted_s("steady"), done(lines)
    samples, everything = (
        log.sampled("steady"),
        [sample.server for sample in log.samples if sample.server],
    )
    limits = log.run.tier.limits
    load_errors, load_done = failed(log.of("users", *_NO_PASS)), done(log.of("users", *_NO_PASS))
    unfinished = log.run.drain.unfinished if log.run.drain else 0
    throttled, periods = grown(samples, _throttled), grown(samples, _periods)
    return Figures(
        steady_s=lasted,
        users=max((line.users or 0 for line in per_second(lines)), default=0),
        requests=finished,
        offered_hz=sum(line.intended for line in lines) / lasted if lasted else None,
        achieved_hz=answered(lines) / lasted if lasted else None,
        errors=load_errors + unfinished,
        error_bound=rate_bound(load_errors + unfinished, load_done + unfinished),
        failures=failures(log.of("users", *LOAD)),
        p50_ms=quantile_ms(response, 0.5),
        p95_ms=quantile_ms(response, 0.95),
        p99_ms=quantile_ms(response, 0.99),
        p99_bound_ms=None if (bound := upper_bound(response, 0.99)) is None else bound / 1000,
        p999_ms=quantile_ms(response, 0.999) if upper_bound(response, 0.999) is not None else None,
        max_ms=max(response) / 1000 if response else None,
        ramp_p99_ms=quantile_ms(log.histogram("users", "response", "ramp"), 0.99),
        service_p99_ms=quantile_ms(log.histogram("users", "service", "steady"), 0.99),
        cpu_cores=rate(samples, cpu_s),
        quota_cores=None if limits.cpus is None else limits.cpus * log.run.tier.replicas,
        cpu_us=cpu_us(log, "steady"),
        balancer_cores=rate(samples, balancer_cpu_s),
        throttled=throttled / periods if throttled is not None and periods else None,
        memory_peak_mib=max(sample.memory_peak_bytes for sample in everything) / 2**20
        if everything
        else None,
        memory_limit_mib=None
        if limits.memory_bytes is None
        else limits.memory_bytes * log.run.tier.replicas / 2**20,
        generator_cpu=worst_generator(log, samples, mean_cores),
        loop_lag_p99_ms=quantile_ms(log.histogram("users", "loop_lag", "steady"), 0.99),
        witness_p50_ms=quantile_ms(log.histogram("witness", "response", "steady"), 0.5),
        witness_p95_ms=quantile_ms(log.histogram("witness", "response", "steady"), 0.95),
        floor_p99_ms=quantile_ms(log.histogram("floor", "response"), 0.99),
        in_flight=log.run.drain.in_flight if log.run.drain else None,
        unfinished=log.run.drain.unfinished if log.run.drain else None,
    )


def quantile_ms(counts: Counter[int], q: float) -> float | None:
    """A quantile in milliseconds; None without values."""
    return quantile(counts, q) / 1000 if counts else None


def mean_ms(counts: Counter[int]) -> float | None:
    """The mean in milliseconds, from the buckets' lower edges; None without values."""
    total = counts.total()
    return sum(value * count for value, count in counts.items()) / total / 1000 if total else None


def answered(lines: Iterable[Second]) -> int:
    """Right answers."""
    return sum(line.answered for line in lines)


def failed(lines: Iterable[Second]) -> int:
    """Failures of every kind."""
    return sum(sum(line.failures.values()) for line in lines)


def done(lines: Sequence[Second]) -> int:
    """Requests that ended, right or failed."""
    return answered(lines) + failed(lines)


def failures(lines: Iterable[Second]) -> dict[str, int]:
    """Failures by kind."""
    kinds: Counter[str] = Counter()
    for line in lines:
        kinds.update(line.failures)
    return dict(sorted(kinds.items()))


def per_second(lines: Iterable[Second]) -> list[Second]:
    """Only what the lines of several workers in one second say together about users: alive, and
    errors of their code."""
    alive: Counter[int] = Counter()
    errors: Counter[int] = Counter()
    for line in lines:
        if line.users is not None:
            alive[line.t] += line.users
            errors[line.t] += line.user_errors
    return [
        Second(t=t, series="users", phase="steady", users=alive[t], user_errors=errors[t])
        for t in sorted(alive)
    ]


def grown(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> float | None:
    """How much a counter grew from the first sample that has it to the last; None with fewer than
    two."""
    known = [value for value in map(read, samples) if value is not None]
    return known[-1] - known[0] if len(known) > 1 else None


def rate(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> float | None:
    """A counter's growth per second."""
    known = [(sample.t, value) for sample in samples if (value := read(sample)) is not None]
    return (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0]) if len(known) > 1 else None


def busiest_second(
    samples: Sequence[Sample], read: Callable[[Sample], float | None]
) -> float | None:
    """The greatest growth per second over any stretch of at least one second; None without such a
    stretch."""
    known = [(sample.t, value) for sample in samples if (value := read(sample)) is not None]
    rates, start = [], 0
    for at, value in known:
        while start + 1 < len(known) and known[start + 1][0] <= at - 1.0:
            start += 1
        if at - known[start][0] >= 1.0:
            rates.append((value - known[start][1]) / (at - known[start][0]))
    return max(rates, default=None)


def cpu_s(sample: Sample) -> float | None:
    """The server's CPU time."""
    return sample.server.cpu_s if sample.server else None


def balancer_cpu_s(sample: Sample) -> float | None:
    """The balancer's part of it."""
    return sample.server.balancer_cpu_s if sample.server else None


def cpu_us(log: Log, phase: PhaseName) -> float | None:
    """CPU time of the server per right answer of a phase, microseconds; of a phase by turns, of all
    turns together."""
    right = answered(log.of("users", phase))
    used = [
        None if (cores := rate(samples, cpu_s)) is None else cores * lasted_s
        for lasted_s, samples in log.turns(phase)
    ]
    known = [cpu for cpu in used if cpu is not None]
    return math.fsum(known) / right * 1e6 if right and known and len(known) == len(used) else None


def process_cpu(name: str) -> Callable[[Sample], float | None]:
    """Reads one process's CPU time."""
    return lambda sample: sample.processes[name].cpu_s if name in sample.processes else None


def mean_cores(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> float | None:
    """As `rate`; a name for what it is of a CPU time."""
    return rate(samples, read)


def worst_generator(
    log: Log,
    samples: Sequence[Sample],
    measure: Callable[[Sequence[Sample], Callable[[Sample], float | None]], float | None],
) -> float | None:
    """The greatest of a measure over the generator's processes; None if one of them was not
    recorded."""
    found = [
        measure(samples, process_cpu(process.name))
        for process in log.run.processes
        if process.role == "generator"
    ]
    known = [value for value in found if value is not None]
    return max(known) if known and len(known) == len(found) else None


def median_of(samples: Sequence[Sample], read: Callable[[Sample], float | None]) -> float | None:
    """The median of a value that goes up and down."""
    known = [value for value in map(read, samples) if value is not None]
    return statistics.median(known) if known else None


def _throttled(sample: Sample) -> float | None:
    return sample.server.throttled_periods if sample.server else None


def _periods(sample: Sample) -> float | None:
    return sample.server.periods if sample.server else None
