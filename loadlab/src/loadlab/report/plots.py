"""The pictures of a run: all over one time axis with the phases shaded, and the latency spectrum.
Nothing here is judged, nothing smoothed except where it says so."""

import math
from collections.abc import Callable, Mapping
from itertools import chain, pairwise

from loadlab.record.histogram import merge, quantile
from loadlab.record.schema import Sample, Second, Series
from loadlab.record.store import Log
from loadlab.report.picture import Axis, Chart, Line
from loadlab.verdict.figures import cpu_s, process_cpu, quantile_ms
from loadlab.verdict.rules import RULES

Points = list[tuple[float, float | None]]
"""Time in seconds since the run's start → value; None is a gap."""
Read = Callable[[Sample], float | None]

_WITNESS_WINDOW_S = 5
"""The witness asks 20 times a second: its quantiles are of five seconds."""
_MOST_POINTS = 600
"""Of one curve: a run of more seconds is drawn in steps of two, three, … of them, their histograms
merged, nothing left out."""
_MOST_TICKS = 8
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200)
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_NAMES = {"floor": "null server", "alike": "repeated", "pool": "caching", "fresh": "caching"}
"""Phases of the same name follow one another by turns, and are shaded as one, because one turn is
too narrow for its name."""


def charts(log: Log) -> list[Chart]:
    """Every picture, in the order in which the page shows them."""
    steps, axis = _Steps(log), _axis(log)
    of_time = [each(log, steps, axis) for each in (_of_load, _of_server, _of_generator)]
    return [*chain.from_iterable(of_time), _spectrum(log)]


def _of_load(log: Log, steps: "_Steps", axis: Axis) -> list[Chart]:
    """Users, requests, latencies and failures."""
    each = "second" if steps.step_s == 1 else f"{steps.step_s} s"
    title = f"Response time of each {each}, from the intended start"
    connections = steps.gauge(lambda sample: sample.net.established if sample.net else None)
    users = [Line("users", steps.alive()), Line("connections", connections, "C1", dashed=True)]
    offered = Line("offered", steps.rate(lambda line: line.intended), "C1")
    answered = Line("rightly answered", steps.rate(lambda line: line.answered))
    latencies = _coloured(steps.quantiles("users", "response", "p50", "p95", "p99", "max"))
    limit_ms = log.run.criteria.objective.p99_ms
    objective = [] if limit_ms is None else [(limit_ms, f"objective: p99 ≤ {limit_ms:g} ms")]
    failures = Line("failures", steps.rate(lambda line: sum(line.failures.values())), "C2")
    return [
        Chart("users", "Users and connections", "", axis, users),
        Chart("rate", "Requests per second", "1/s", axis, [offered, answered]),
        Chart("latency", title, "ms", axis, latencies, objective, logarithmic=True),
        Chart("failures", "Failures", "1/s", axis, [failures]),
    ]


def _of_server(log: Log, steps: "_Steps", axis: Axis) -> list[Chart]:
    """The server's CPU time, throttling and memory against their limits; nothing of a server given
    with `target=`, whose counters the lab cannot read."""
    if not log.run.observed:
        return []
    allowed, replicas = log.run.tier.limits, log.run.tier.replicas
    cores, mib = (allowed.cpus or 0) * replicas, (allowed.memory_bytes or 0) * replicas / 2**20
    quota = [(cores, f"quota {cores:g}")] if cores else []
    limit = [(mib, f"limit {mib:,.0f} MiB")] if mib else []
    used = [Line("used", steps.growth(cpu_s))]
    throttled = [Line("throttled", steps.throttled(), "C2")]
    held = steps.gauge(lambda each: each.server.memory_bytes / 2**20 if each.server else None)
    memory = [Line("memory", held)]
    return [
        Chart("cpu", "CPU of the server against its quota", "cores", axis, used, quota),
        Chart("throttled", "Periods in which the quota stopped the server", "%", axis, throttled),
        Chart("memory", "Memory of the server against its limit", "MiB", axis, memory, limit),
    ]


def _of_generator(log: Log, steps: "_Steps", axis: Axis) -> list[Chart]:
    """Whether the generator was on time, and what the witness saw."""
    rules, titles = log.run.criteria.rules, {rule.name: rule.title for rule in RULES}
    busiest = f"V2 {titles['V2']}: ≤ {rules.v2_cpu_second:g} cores in every second"
    late = f"V3 {titles['V3']}: p99 ≤ {rules.v3_lag_p99_ms:g} ms in the steady phase"
    names = [each.name for each in log.run.processes if each.role == "generator"]
    used = _coloured({name: steps.growth(process_cpu(name)) for name in names})
    steal = steps.growth(lambda sample: sample.host.steal_s if sample.host else None)
    used.append(Line("steal", steal, "C4", dashed=True))
    lag = _coloured(steps.quantiles("users", "loop_lag", "p99"))
    window_s = max(_WITNESS_WINDOW_S, steps.step_s)
    users = steps.quantiles("users", "response", "p50", "p95", window_s=window_s)
    witness = steps.quantiles("witness", "response", "p50", "p95", window_s=window_s)
    seen = [*_coloured(users, "users "), *_coloured(witness, "witness ", dashed=True)]
    taken = "CPU of the generator's processes, and what the hypervisor took"
    title = f"The witness and the users, in windows of {window_s} s"
    limit = [(rules.v3_lag_p99_ms, late)]
    return [
        Chart("generator", taken, "cores", axis, used, [(rules.v2_cpu_second, busiest)]),
        Chart("lag", "Lateness of the generator's loops", "ms", axis, lag, limit, logarithmic=True),
        Chart("witness", title, "ms", axis, seen, logarithmic=True),
    ]


def _axis(log: Log) -> Axis:
    """The run's time, with its phases."""
    bands: list[tuple[float, float, str]] = []
    for phase in log.run.phases:
        name = _NAMES.get(phase.name, phase.name)
        start_s = bands.pop()[0] if bands and bands[-1][2] == name else phase.start_s
        bands.append((start_s, log.end_of(phase), name))
    end_s = max([*(end_s for _, end_s, _ in bands), 1.0])
    step = next((each for each in _TICK_STEPS_S if end_s / each <= _MOST_TICKS), _TICK_STEPS_S[-1])
    ticks = [(at, f"{at // 60}:{at % 60:02}") for at in range(0, int(end_s) + 1, step)]
    return Axis(end_s, ticks, bands)


class _Steps:
    """A run second by second, or in longer steps."""

    def __init__(self, log: Log) -> None:
        self._log = log
        lasts_s = max((line.t + 1 for line in log.seconds), default=1)
        self.step_s = max(math.ceil(lasts_s / _MOST_POINTS), 1)
        self._users = self._lines("users", self.step_s)
        # One a step is enough for a picture.
        first = {int(sample.t // self.step_s): sample for sample in reversed(log.samples)}
        self._samples = list(reversed(first.values()))

    def rate(self, count: Callable[[Second], int]) -> Points:
        """A count of the users, per second."""
        return [
            (at, sum(map(count, lines)) / len({line.t for line in lines}))
            for at, lines in self._users.items()
        ]

    def alive(self) -> Points:
        """Users at the end of a step, whose last second two phases may share: those of the later
        one."""
        points: Points = []
        for at, lines in self._users.items():
            known = [(line.t, line.phase, line.users) for line in lines if line.users is not None]
            last = [users for t, phase, users in known if (t, phase) == known[-1][:2]]
            points.append((at, sum(last) if last else None))
        return points

    def quantiles(
        self, series: Series, kind: str, *names: str, window_s: int = 0
    ) -> dict[str, Points]:
        """Of every step, or of longer windows without the warm-up; milliseconds, from one merge of
        the histograms."""
        lines = self._lines(series, window_s or self.step_s, "warmup" if window_s else "")
        merged = {at: merge(getattr(line, kind) for line in inside) for at, inside in lines.items()}
        return {
            name: [(at, quantile_ms(counts, _QUANTILES[name])) for at, counts in merged.items()]
            for name in names
        }

    def gauge(self, read: Read) -> Points:
        """A value that goes up and down."""
        return [(sample.t, read(sample)) for sample in self._samples]

    def growth(self, read: Read) -> Points:
        """A counter's growth per second over each step, at the step's middle."""
        points: Points = []
        for (start, before), (end, after) in pairwise(self.gauge(read)):
            grown = None if before is None or after is None else (after - before) / (end - start)
            points.append(((start + end) / 2, grown))
        return points

    def throttled(self) -> Points:
        """Share of the periods in which the server was stopped, per cent."""
        stopped = self.growth(lambda each: each.server.throttled_periods if each.server else None)
        passed = self.growth(lambda each: each.server.periods if each.server else None)
        both = zip(stopped, passed, strict=True)
        return [(at, 100 * count / of if count and of else 0.0) for (at, count), (_, of) in both]

    def _lines(self, series: Series, step_s: int, without: str = "") -> dict[float, list[Second]]:
        """Lines of a series by the middle of their step."""
        found: dict[float, list[Second]] = {}
        for line in self._log.of(series):
            inside = found.setdefault((line.t // step_s + 0.5) * step_s, [])
            if line.phase != without:
                inside.append(line)
        return found


def _coloured(many: Mapping[str, Points], prefix: str = "", *, dashed: bool = False) -> list[Line]:
    return [
        Line(f"{prefix}{name}", points, f"C{n % 5}", dashed)
        for n, (name, points) in enumerate(many.items())
    ]


def _spectrum(log: Log) -> Chart:
    """Every percentile, with as many nines as there are answers for; the objective's points as
    limits."""
    asked = log.run.criteria.objective
    wanted = ((0.5, asked.p50_ms), (0.95, asked.p95_ms), (0.99, asked.p99_ms))
    limits: Points = [(_nines(q), limit_ms) for q, limit_ms in wanted if limit_ms is not None]
    lines = [
        Line("users: response", _percentiles(log.histogram("users", "response", "steady"))),
        Line("users: service", _percentiles(log.histogram("users", "service", "steady")), "C1"),
        Line("witness", _percentiles(log.histogram("witness", "response", "steady")), "C3"),
        Line("null server", _percentiles(log.histogram("floor", "response")), "C4", dashed=True),
    ]
    lines += [Line("objective", limits, "C2", dashed=True)] if limits else []
    longest = max((line.points[-1][0] for line in lines if line.points), default=2.0)
    ticks = [(_nines(q), f"{q * 100:g} %") for q in _NINES if _nines(q) <= longest + 0.01]
    title = "Latency spectrum of the steady phase: share of answers that were faster"
    return Chart("spectrum", title, "ms", Axis(longest, ticks), lines, logarithmic=True)


def _percentiles(counts: Mapping[int, int]) -> Points:
    total = sum(counts.values())
    steps = [n / 20 for n in range(int(20 * math.log10(total)) + 1)] if total else []
    return [(step, quantile(counts, 1 - 10**-step) / 1000) for step in steps]


def _nines(share: float) -> float:
    return -math.log10(1 - share)
