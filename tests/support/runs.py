"""Load runs made up, but not made smooth: every user is simulated, so that rates, latencies and
counters belong together.

`made` gives a run that passes; its arguments plant faults in the server, and `change` falsifies
what was recorded. The same seed gives the same bytes.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import msgspec

from loadlab.record.cgroup import Limits
from loadlab.record.histogram import pack
from loadlab.record.machine import Fingerprint
from loadlab.record.schema import (
    LOAD,
    Drain,
    Ended,
    HostSample,
    NetSample,
    Phase,
    PhaseName,
    ProcessInfo,
    ProcessSample,
    Replica,
    Run,
    Sample,
    Scenario,
    Second,
    ServerSample,
    Tier,
    Workers,
    criteria,
)
from loadlab.record.store import Log, Recorder

LIMITS = Limits(cpus=0.5, memory_bytes=256 * 2**20)
PLAN: tuple[tuple[PhaseName, int], ...] = (
    ("floor", 5),
    ("start", 2),
    ("warmup", 3),
    ("ramp", 10),
    ("settle", 15),
    ("steady", 60),
    ("repeated", 10),
    ("drain", 1),
    ("cooldown", 2),
)
_CPU_S = 110e-6
"""Of the server per request."""
_HZ = 5


@dataclass(frozen=True)
class Server:
    """How the made-up server behaves; shares are of requests."""

    wrong: float = 0.0
    errors: float = 0.0
    stall_s: float = 0.0
    """It stands still so long, every 10 s."""
    slower: float = 1.0


@dataclass
class Made:
    """A run in memory, to be falsified."""

    run: Run
    seconds: list[Second] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def log(self) -> Log:
        """As it would be read."""
        return Log(self.run, self.seconds, self.samples)

    def write(self, folder: Path) -> Path:
        """As it would be stored."""
        with Recorder(folder, self.run) as recorder:
            for second in self.seconds:
                recorder.second(second)
            for sample in self.samples:
                recorder.sample(sample)
        return folder


def fresh() -> Made:
    """A run that passes, to be falsified: a copy, for making one takes a moment."""
    run, seconds, samples = msgspec.json.decode(
        _passing(), type=tuple[Run, list[Second], list[Sample]]
    )
    return Made(run, seconds, samples)


@cache
def _passing() -> bytes:
    whole = made()
    return msgspec.json.encode((whole.run, whole.seconds, whole.samples))


def made(
    server: Server | None = None,
    *,
    seed: int = 1,
    users: int = 1000,
    identity: str = "20261120-190000-half-core-steady",
) -> Made:
    """A run of 1,000 users who think 4–9 s against half a core: all phases, 60 s of steady, about
    10,000 requests."""
    edges = _edges()
    run = _run(edges, users, seed, identity)
    whole = Made(run)
    # Made up, reproducible
    _Simulation(whole, server or Server(), random.Random(seed)).run()  # noqa: S311
    return whole


def second(made: Made, t: int) -> Second:
    """The users' line of a second."""
    return next(line for line in made.seconds if line.series == "users" and line.t == t)


def each_sample(made: Made, change: Callable[[Sample], None], start_s: float = 0.0) -> Made:
    """Falsify every sample from a moment on."""
    for sample in made.samples:
        if sample.t >= start_s:
            change(sample)
    return made


def _edges() -> dict[PhaseName, tuple[int, int]]:
    edges: dict[PhaseName, tuple[int, int]] = {}
    at = 0
    for name, lasts in PLAN:
        edges[name] = (at, at + lasts)
        at += lasts
    return edges


def _run(edges: dict[PhaseName, tuple[int, int]], users: int, seed: int, identity: str) -> Run:
    return Run(
        id=identity,
        started_at="2026-11-20T19:00:00+00:00",
        command="loadlab load tier=half-core users=1000 duration=60",
        backend="cgroup",
        engine="locust-raw",
        seed=seed,
        target="127.0.0.1:8000",
        tier=Tier(name="half-core", limits=LIMITS, cpus=[0]),
        scenario=Scenario(
            name="steady",
            users=users,
            spawn_rate_hz=users / 10,
            ramp="smooth",
            duration_s=60,
            think_s=(4.0, 9.0),
            models=["iris"],
            bodies=4096,
        ),
        fingerprint=Fingerprint(
            cpu="a made-up processor",
            cores=2,
            memory_bytes=24_000_000_000,
            kernel="6.18.44",
            cgroup_version=1,
            python="3.11.9",
            packages={"halfcore": "0.1.0", "locust": "2.47.0"},
            baseline_packages={},
            commit="0123456789abcdef",
            dirty=False,
            nofile=65536,
            sysctls={"net.core.somaxconn": "4096"},
        ),
        details={"clock source": "tsc"},
        criteria=criteria("steady"),
        ports=28232,
        replicas=[Replica(limits=LIMITS, processes_inside=2, processes_outside=0)],
        processes=[
            ProcessInfo(
                name="server",
                role="server",
                pid=100,
                cpus=[0],
                nofile=65536,
                command="halfcore serve",
            ),
            ProcessInfo(
                name="worker-1",
                role="generator",
                pid=101,
                cpus=[1],
                nofile=65536,
                command="locust --worker",
            ),
            ProcessInfo(
                name="witness",
                role="witness",
                pid=102,
                cpus=[1],
                nofile=1024,
                command="loadlab witness",
            ),
            ProcessInfo(
                name="lab", role="lab", pid=103, cpus=[0, 1], nofile=1024, command="loadlab load"
            ),
        ],
        phases=[
            Phase(name=name, start_s=start, end_s=end, users=users if name in LOAD else 0)
            for name, (start, end) in edges.items()
        ],
        workers=Workers(expected=1, reported=1, missing=0, missed_heartbeats=0),
        ended=Ended(kind="complete"),
    )


class _Simulation:
    def __init__(self, made: Made, server: Server, dice: random.Random) -> None:
        self._made, self._server, self._dice = made, server, dice
        self._lines: dict[int, Second] = {}
        self._counts: dict[tuple[int, str], Counter[int]] = {}
        self._edges = _edges()
        self._handled: Counter[int] = Counter()

    def run(self) -> None:
        """Users first, for what they do drives the counters."""
        unfinished = self._users()
        self._made.run.drain = Drain(in_flight=unfinished, unfinished=0)
        for t, line in sorted(self._lines.items()):
            for kind in ("response", "service", "failed", "connect", "lag", "loop_lag"):
                setattr(line, kind, pack(self._counts.get((t, kind), {})))
        self._made.seconds = [
            *self._aside("floor", "floor", 30, 150),
            *(self._lines[t] for t in sorted(self._lines)),
            *self._witness(),
        ]
        self._made.seconds.sort(key=lambda line: line.t)
        self._made.samples = self._samples()

    def _users(self) -> int:
        """Every user's requests; returns how many were on the way when users stopped."""
        start, _ = self._edges["ramp"]
        _, stop = self._edges["repeated"]
        number, dice = self._made.run.scenario.users, self._dice
        arrivals = [
            start + (user + 0.5) / self._made.run.scenario.spawn_rate_hz for user in range(number)
        ]
        due = [(at + dice.uniform(0, 6), user) for user, at in enumerate(arrivals)]
        heapq.heapify(due)
        on_the_way = 0
        while due and due[0][0] < stop:
            at, user = heapq.heappop(due)
            end = self._request(at)
            on_the_way += end >= stop
            heapq.heappush(due, (end + dice.uniform(4, 9), user))
        for t in range(start, self._edges["drain"][1]):
            line = self._line(t)
            line.users = sum(1 for at in arrivals if at < t + 1) if t < stop else 0
            line.opens = sum(1 for at in arrivals if t <= at < t + 1)
            self._counts[t, "connect"] = Counter(
                int(dice.lognormvariate(4.6, 0.3)) for _ in range(line.opens)
            )
            self._counts[t, "loop_lag"] = Counter(
                int(dice.lognormvariate(5.0, 0.6)) for _ in range(90)
            )
        return on_the_way

    def _request(self, at: float) -> float:
        server, dice = self._server, self._dice
        lag = dice.lognormvariate(4.5, 0.5) / 1e6
        service = dice.lognormvariate(7.2, 0.4) / 1e6 * server.slower
        into = (at + lag) % 10
        if into < server.stall_s:
            service += server.stall_s - into
        end = at + lag + service
        self._count(at, "lag", lag)
        self._line(int(at)).intended += 1
        self._line(int(at)).sent += 1
        line = self._line(int(end))
        self._handled[int(end)] += 1
        luck = dice.random()
        if luck < server.errors:
            line.failures["status_500"] = line.failures.get("status_500", 0) + 1
            self._count(end, "failed", end - at)
            return end
        dice.random()  # one draw per answer keeps the golden reports' runs as they were
        line.deep_checked += 1
        if luck > 1 - server.wrong:
            line.failures["wrong_prediction"] = line.failures.get("wrong_prediction", 0) + 1
            self._count(end, "failed", end - at)
            return end
        line.answered += 1
        self._count(end, "response", end - at)
        self._count(end, "service", service)
        return end

    def _line(self, t: int) -> Second:
        if t not in self._lines:
            phase = next(name for name, (start, end) in self._edges.items() if start <= t < end)
            self._lines[t] = Second(t=t, series="users", phase=phase)
        return self._lines[t]

    def _count(self, at: float, kind: str, seconds: float) -> None:
        self._counts.setdefault((int(at), kind), Counter())[int(seconds * 1e6)] += 1

    def _witness(self) -> list[Second]:
        lines = []
        for phase in ("ramp", "settle", "steady"):
            lines += self._aside(
                "witness", phase, 20, 1340 * self._server.slower, self._server.stall_s
            )  # type: ignore[arg-type]
        return lines

    def _aside(
        self, series: str, phase: PhaseName, hz: int, median_us: float, stall_s: float = 0.0
    ) -> list[Second]:
        lines = []
        for t in range(*self._edges[phase]):
            counts: Counter[int] = Counter()
            for n in range(hz):
                waits = max(stall_s - (t + n / hz) % 10, 0)
                counts[int(median_us * self._dice.lognormvariate(0, 0.4) + waits * 1e6)] += 1
            lines.append(
                Second(
                    t=t,
                    series=series,
                    phase=phase,
                    intended=hz,
                    sent=hz,
                    answered=hz,
                    response=pack(counts),
                )
            )  # type: ignore[arg-type]
        return lines

    def _samples(self) -> list[Sample]:
        samples, requests, stop = [], 0.0, self._edges["cooldown"][1]
        alive = 0
        for n in range(stop * _HZ):
            t = n / _HZ
            requests += self._handled[int(t)] / _HZ
            alive = next(
                (
                    line.users
                    for line in self._made.seconds
                    if line.series == "users" and line.t == int(t) and line.users is not None
                ),
                0,
            )
            server_s, worker_s = 1.4 + requests * _CPU_S, 0.9 + requests * 60e-6 + t * 0.002
            samples.append(
                Sample(
                    t=t,
                    server=ServerSample(
                        cpu_s=server_s,
                        periods=int(t * 10),
                        throttled_periods=0,
                        memory_bytes=92_000_000 + alive * 4000,
                        memory_peak_bytes=92_000_000 + self._made.run.scenario.users * 4000,
                    ),
                    host=HostSample(
                        busy_s=50 + server_s + worker_s + t * 0.015,
                        steal_s=t * 0.002,
                        total_s=1000 + 2 * t,
                        pressure_s=t * 0.01,
                        swapped_pages=0,
                        conntrack=0,
                        conntrack_max=0,
                    ),
                    net=NetSample(
                        established=alive,
                        ports_used=alive + 40,
                        active_opens=5000 + alive,
                        listen_overflows=3,
                        listen_drops=3,
                        retransmits=7,
                        segments_out=int(9000 + requests * 4),
                    ),
                    processes={
                        "server": ProcessSample(server_s, 40 + alive),
                        "worker-1": ProcessSample(worker_s, 30 + alive),
                        "witness": ProcessSample(t * 0.004, 12),
                        "lab": ProcessSample(t * 0.006, 30),
                    },
                    generator_throttled_periods=0,
                )
            )
        return samples
