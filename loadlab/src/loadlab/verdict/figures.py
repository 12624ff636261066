"""What the record says in numbers; nothing is judged here."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from loadlab.record.histogram import merge, quantile
from loadlab.record.schema import (
    LOAD,
    Counts,
    HostSample,
    NetSample,
    PhaseName,
    Sample,
    Second,
    ServerSample,
)
from loadlab.record.store import Log
from loadlab.verdict.stats import rate_bound, upper_bound

Line = TypeVar("Line", bound=Counts)
Read = Callable[[Sample], float | None]
"""Takes one counter from a sample; None: it was not recorded."""
UNDER_LOAD: tuple[PhaseName, ...] = ("ramp", "settle", "steady")
"""The phases whose errors count."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run in numbers, of the steady phase unless said otherwise. None: not recorded, or no
    values."""

    steady_s: float
    users: int
    requests: int
    """Of the users; finished, right or wrong."""
    offered_hz: float | None
    achieved_hz: float | None
    """Right answers."""
    errors: int
    """In ramp, settle and steady, unanswered ones included, of users and witness."""
    judged: int = 0
    """Requests that `errors` is of."""
    error_bound: float | None
    """Share of errors that is not exceeded with 95 % confidence."""
    failures: dict[str, int]
    """By kind, in all phases with users, of users and witness."""
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
    cpu_of_null: float | None = None
    """The same as a multiple of the null server's on the same machine."""
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
    lines, lasted = log.of("users", "steady"), log.lasted_s("steady")
    response = log.histogram("users", "response", "steady")
    witness = log.histogram("witness", "response", "steady")
    samples, limits, replicas = log.sampled("steady"), log.run.tier.limits, log.run.tier.replicas
    counted, unfinished = under_load(log), log.run.drain.unfinished if log.run.drain else 0
    errors, judged = failed(counted) + unfinished, done(counted) + unfinished
    cpu, null = cpu_us(log, "steady"), log.run.null_server
    peaks = [sample.server.memory_peak_bytes for sample in log.samples if sample.server]
    throttled = grown(samples, of_server(lambda server: server.throttled_periods))
    periods = grown(samples, of_server(lambda server: server.periods))
    bounds = {q: upper_bound(response, q) for q in (0.99, 0.999)}
    return Figures(
        steady_s=lasted,
        users=max(alive(lines).values(), default=0),
        requests=done(lines),
        offered_hz=sum(line.intended for line in lines) / lasted if lasted else None,
        achieved_hz=answered(lines) / lasted if lasted else None,
        errors=errors,
        judged=judged,
        error_bound=rate_bound(errors, judged),
        failures=failures([*log.of("users", *LOAD), *log.of("witness", *LOAD)]),
        p50_ms=quantile_ms(response, 0.5),
        p95_ms=quantile_ms(response, 0.95),
        p99_ms=quantile_ms(response, 0.99),
        p99_bound_ms=None if (bound := bounds[0.99]) is None else bound / 1000,
        p999_ms=None if bounds[0.999] is None else quantile_ms(response, 0.999),
        max_ms=max(response) / 1000 if response else None,
        ramp_p99_ms=quantile_ms(log.histogram("users", "response", "ramp"), 0.99),
        service_p99_ms=quantile_ms(log.histogram("users", "service", "steady"), 0.99),
        cpu_cores=rate(samples, cpu_s),
        quota_cores=None if limits.cpus is None else limits.cpus * replicas,
        cpu_us=cpu,
        cpu_of_null=cpu / null.cpu_us if cpu is not None and null and null.cpu_us else None,
        balancer_cores=rate(samples, balancer_cpu_s),
        throttled=throttled / periods if throttled is not None and periods else None,
        memory_peak_mib=max(peaks) / 2**20 if peaks else None,
        memory_limit_mib=limits.memory_bytes and limits.memory_bytes * replicas / 2**20,
        generator_cpu=worst_generator(log, samples, rate),
        loop_lag_p99_ms=quantile_ms(log.histogram("users", "loop_lag", "steady"), 0.99),
        witness_p50_ms=quantile_ms(witness, 0.5),
        witness_p95_ms=quantile_ms(witness, 0.95),
        floor_p99_ms=quantile_ms(log.histogram("floor", "response"), 0.99),
        in_flight=log.run.drain.in_flight if log.run.drain else None,
        unfinished=log.run.drain.unfinished if log.run.drain else None,
    )


def quantile_ms(counts: Counter[int], q: float) -> float | None:
    """A quantile in milliseconds; None without values."""
    return quantile(counts, q) / 1000 if counts else None


def response_ms(lines: Iterable[Counts], q: float) -> float | None:
    """A quantile of the response times of right answers."""
    return quantile_ms(merge(line.response for line in lines), q)


def under_load(log: Log) -> list[Second]:
    """The seconds whose errors count, of users and witness."""
    return [*log.of("users", *UNDER_LOAD), *log.of("witness", *UNDER_LOAD)]


def judged_phases(log: Log) -> tuple[PhaseName, ...]:
    """The steady phase; of a run that never reached it, ramp and settling."""
    return ("steady",) if log.of("users", "steady") else ("ramp", "settle")


def answered(lines: Iterable[Counts]) -> int:
    """Right answers."""
    return sum(line.answered for line in lines)


def failed(lines: Iterable[Counts]) -> int:
    """Failures of every kind."""
    return sum(sum(line.failures.values()) for line in lines)


def done(lines: Sequence[Counts]) -> int:
    """Requests that ended, right or failed."""
    return answered(lines) + failed(lines)


def failures(lines: Iterable[Counts]) -> dict[str, int]:
    """Failures by kind."""
    kinds: Counter[str] = Counter()
    for line in lines:
        kinds.update(line.failures)
    return dict(sorted(kinds.items()))


def alive(lines: Iterable[Counts]) -> dict[int, int]:
    """Users alive in each second, of all workers together."""
    known = by_second(line for line in lines if line.users is not None)
    return {t: sum(line.users or 0 for line in inside) for t, inside in known.items()}


def by_second(lines: Iterable[Line]) -> dict[int, list[Line]]:
    """The lines of each second, in time."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.t, []).append(line)
    return dict(sorted(found.items()))


def known(samples: Iterable[Sample], read: Read) -> list[tuple[float, float]]:
    """Time and value of a counter, where it was recorded."""
    return [(sample.t, value) for sample in samples if (value := read(sample)) is not None]


def grown(samples: Iterable[Sample], read: Read) -> float | None:
    """How much a counter grew from the first sample that has it to the last; None with fewer than
    two."""
    found = known(samples, read)
    return found[-1][1] - found[0][1] if len(found) > 1 else None


def rate(samples: Iterable[Sample], read: Read) -> float | None:
    """A counter's growth per second."""
    found = known(samples, read)
    if len(found) < 2:
        return None
    return (found[-1][1] - found[0][1]) / (found[-1][0] - found[0][0])


def busiest_second(samples: Iterable[Sample], read: Read) -> float | None:
    """The greatest growth per second over any stretch of at least one second; None without such a
    stretch."""
    found, rates, start = known(samples, read), [], 0
    for at, value in found:
        while start + 1 < len(found) and found[start + 1][0] <= at - 1.0:
            start += 1
        if at - found[start][0] >= 1.0:
            rates.append((value - found[start][1]) / (at - found[start][0]))
    return max(rates, default=None)


def of_server(read: Callable[[ServerSample], float | None]) -> Read:
    """Reads a counter of the server."""
    return lambda sample: read(sample.server) if sample.server else None


def of_host(read: Callable[[HostSample], float | None]) -> Read:
    """Reads a counter of the machine."""
    return lambda sample: read(sample.host) if sample.host else None


def of_net(read: Callable[[NetSample], float | None]) -> Read:
    """Reads a counter of the network."""
    return lambda sample: read(sample.net) if sample.net else None


def process_cpu(name: str) -> Read:
    """Reads one process's CPU time."""
    return lambda sample: sample.processes[name].cpu_s if name in sample.processes else None


cpu_s: Read = of_server(lambda server: server.cpu_s)
"""The server's CPU time."""
balancer_cpu_s: Read = of_server(lambda server: server.balancer_cpu_s)
"""The balancer's part of it."""


def cpu_us(log: Log, phase: PhaseName) -> float | None:
    """CPU time of the server per right answer of a phase, microseconds; of a phase by turns, of all
    turns together."""
    right, turns = answered(log.of("users", phase)), log.turns(phase)
    cores = [rate(samples, cpu_s) for _, samples in turns]
    spent_s = [each * turn[0] for each, turn in zip(cores, turns, strict=True) if each is not None]
    whole = right and turns and len(spent_s) == len(turns)
    return math.fsum(spent_s) / right * 1e6 if whole else None


def worst_generator(
    log: Log,
    samples: Sequence[Sample],
    measure: Callable[[Sequence[Sample], Read], float | None],
) -> float | None:
    """The greatest of a measure over the generator's processes; None if one of them was not
    recorded."""
    names = [process.name for process in log.run.processes if process.role == "generator"]
    found = [measure(samples, process_cpu(name)) for name in names]
    measured = [value for value in found if value is not None]
    return max(measured) if measured and len(measured) == len(found) else None
