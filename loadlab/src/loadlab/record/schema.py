"""The form of a stored load run: a folder that a killed run leaves readable.

    run.json         what was asked, what was in force, phases, how it ended; replaced whole at
                     every phase
    seconds.jsonl    one line per second, series and phase (`Second`); only appended to
    samples.jsonl    one line per sample of kernel counters, 5–10 a second (`Sample`); only
                     appended to
    verdict.json     what the rules said when the run ended

`.jsonl` files may be packed (`.jsonl.gz`) once a run has ended. Every time is in seconds since the
run's start on the monotonic clock, every counter is cumulative as the kernel keeps it, every None
is "not recorded": a rule that needs it is then broken, not passed.

What a run is judged by, thresholds and objective, is in `criteria.toml`, and is stored with the run
before it begins.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from loadlab.record.cgroup import Limits
from loadlab.record.machine import Calibration, Fingerprint


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server shall do (SLO). None: not asked for. Latencies are response times of right
    answers, milliseconds."""

    errors: float = 0.0
    """Share of requests in ramp and steady that may fail, unanswered ones included."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    slow_windows: float | None = None
    """Share of the steady phase's windows (of enough seconds for a p99) whose own p99 may be above
    `p99_ms`."""
    ramp_p99_ms: float | None = None
    overload_goodput: float | None = None
    """Right answers a second under overload, as a share of those in steady."""
    overload_rejection_p99_ms: float | None = None
    """How fast a refusal must be."""
    recovery_s: float | None = None
    """From the end of the overload until p95 is below `p95_ms` and nothing fails."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The validity rules' numbers; the names say to which rule they belong."""

    v1_ramp_behind_s: float
    v2_cpu_mean: float
    v2_cpu_second: float
    v3_lag_p99_ms: float
    v3_lag_share: float | None = None
    """None in records of older runs: a PASS needed the other limit of the lag."""
    v3_lag_max_ms: float
    v3_ramp_lag_p99_ms: float
    v4_rate: float
    v4_lag_p99_ms: float
    v4_lag_share: float | None = None
    """As `v3_lag_share`."""
    v5_steal: float
    v6_foreign_cores: float
    v7_established: float
    v7_opens: float
    v8_retransmits: float
    v9_free_ports: float
    v9_free_files: float
    v9_conntrack: float
    v12_samples: int
    v13_window_s: int
    v13_agreement: float
    v13_tolerance_ms: float
    v13_trend: float
    v14_deep: float
    v15_cheaper: float
    v16_p50: float
    v16_p50_tolerance_ms: float
    v16_p95: float
    v16_p95_tolerance_ms: float
    v17_ratio: float


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Both, as they were before the run."""

    rules: Thresholds
    objective: Objective


@cache
def criteria(scenario: str = "") -> Criteria:
    """The criteria of a scenario: `[objective]`, and over it `[objective.SCENARIO]` if there is
    one."""
    content = tomllib.loads(Path(__file__).with_name("criteria.toml").read_text())
    lines = content["objective"]
    special = {name: lines.pop(name) for name in list(lines) if isinstance(lines[name], dict)}
    content["objective"] |= special.get(scenario, {})
    return msgspec.convert(content, Criteria)


FORMAT = 1

Backend = Literal["cgroup", "compose", "given"]
LoadEngine = Literal["locust-raw", "locust-fast", "locust-http", "raw"]
"""Who drives the load: Locust with the raw, the fast or the stock user class, or the lab's own
epoll engine."""
Series = Literal["users", "witness", "floor"]
"""The users, the independent witness, and the same users against the null server (in older records
a tenth of them)."""
_Loaded = Literal["ramp", "settle", "steady", "overload", "recovery", "drain"]
_Bodies = Literal["pool", "fresh", "repeated", "alike"]
"""`pool`: the bodies of the steady phase, `fresh`: ones that nobody has sent before, to see whether
answers are cached. They alternate, each turn is a `Phase`. In older records `repeated` is one body
for all users, and `alike` ones like it that were never sent before."""
_WithUsers = Literal[_Loaded, _Bodies]
PhaseName = Literal["floor", "start", "warmup", _WithUsers, "cooldown"]
LOAD: tuple[PhaseName, ...] = get_args(_WithUsers)
"""Phases in which the users are there."""
Role = Literal["server", "generator", "witness", "lab"]
_EndOfServer = Literal["aborted", "server_died", "server_hung", "wrong_answer"]
"""`aborted`: the lab stopped early because the server could no longer meet its objective.
`wrong_answer`: at rest it answered a row wrongly, so nothing was measured."""
_EndOfLab = Literal["interrupted", "generator_broke", "disk_full", "infrastructure"]
EndKind = Literal["complete", _EndOfServer, _EndOfLab]


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """What the server may use; the limits hold for each replica."""

    name: str
    limits: Limits
    replicas: int = 1
    cpus: list[int] = []  # that the server is held to; empty: all
    cores_needed: int = 2  # fewer on the machine: server and generator compete by construction


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica's limits as its control group says them."""

    limits: Limits
    processes_inside: int
    processes_outside: int  # of the replica's; must be none
    answered: int | None = None
    """Right answers that it gave since all users were there, by its own count; None: it does not
    report it, or there never were all users."""
    limits_at_end: Limits | None = None
    """Read back again when the load was over."""
    cpu_used_s: float | None = None
    """CPU time of its control group under load. Both None: the run was older than these fields, had
    no load, or the group was gone."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """The workload as asked for."""

    name: str
    users: Annotated[int, msgspec.Meta(ge=1)]
    spawn_rate_hz: Annotated[float, msgspec.Meta(gt=0)]
    ramp: Literal["stepped", "smooth"]
    duration_s: float  # of the steady phase
    think_s: tuple[float, float] | None = None  # closed model: uniform between these; None if open
    rate_hz: float | None = None  # open model: arrivals a second, whatever the server does
    models: list[str]  # that the bodies belong to
    bodies: int = 1  # different ones in use
    caching_disclosed: str = ""  # what the server caches, where that is known and said


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the run; `name` is its key in `Sample.processes`."""

    name: str
    role: Role
    pid: int
    cpus: list[int]  # that it may run on, as read back
    nofile: int  # soft limit on open files
    command: str


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase; its `Second`s carry its name."""

    name: PhaseName
    start_s: float
    end_s: float | None = None  # it had not ended when this was written
    users: int = 0  # that shall be there at its end


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The generator's workers, as its master knew them at the end."""

    expected: int
    reported: int = 0  # their last report arrived
    missing: int = 0  # that were ever declared missing
    missed_heartbeats: int = 0  # times that one had sent none for two seconds or more


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Requests on the way when users stopped starting new ones."""

    in_flight: int
    unfinished: int  # still without an answer when the drain's time was over: errors


class NullServer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server that answers a constant (granian, RSGI) used just before the run: driven by the
    same generator, with the same users, think times and ramp, on the same CPUs and without limits.
    The figures are of `seconds` in which all users were there; its latencies in these are the
    series `floor`."""

    cpu_us: float  # CPU time per right answer
    rate: float  # right answers a second
    users: int
    failures: int  # from the first connection on
    seconds: int = 0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended, with one sentence for people."""

    kind: EndKind
    sentence: str = ""


class Run(msgspec.Struct, kw_only=True):
    """`run.json`."""

    format: int = FORMAT
    id: str  # the folder's name
    started_at: str  # UTC, ISO 8601
    command: str
    backend: Backend
    engine: LoadEngine
    seed: int
    target: str  # host:port that the users spoke to
    observed: bool = True
    """The lab started the server and reads its counters; false for a server given with
    `target=`."""
    tier: Tier
    scenario: Scenario
    fingerprint: Fingerprint
    details: dict[str, str] = {}
    """More of the fingerprint: governor, clock source, image digest, hashes of model and tier file,
    …"""
    criteria: Criteria  # fixed before the run
    set_id: str = ""  # the runs of one `repeats=N` share it
    repeat: int = 1
    repeats: int = 1
    ports: int | None = None  # ephemeral ones that the generator may use
    replicas: list[Replica] = []  # limits as read back
    processes: list[ProcessInfo] = []
    phases: list[Phase] = []
    workers: Workers | None = None
    drain: Drain | None = None
    calibration: Calibration | None = None  # the run is older than calibrations
    null_server: NullServer | None = None  # the run is older, or its users were not all there
    ended: Ended | None = None  # the run was killed, or still runs


class Counts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one process counted in the second [t, t + 1).

    Histograms are packed counts per bucket of microseconds (`loadlab.record.histogram`).
    """

    t: int
    users: int | None = None  # alive at the second's end
    user_errors: int = 0  # exceptions in user code: users that could not start, or died
    intended: int = 0  # requests that were meant to begin in this second: the offered rate
    sent: int = 0
    answered: int = 0  # right answers that were complete in this second
    failures: dict[str, int] = {}
    """By kind: connect, reset, timeout, status_500, wrong_body, wrong_prediction, …, by when they
    were noticed."""
    deep_checked: int = 0
    """Answers that were compared with a golden prediction; those that differed are failures of kind
    wrong_prediction."""
    opens: int = 0  # connections that the series opened
    response: list[int] = []  # right answers: intended start → last byte
    service: list[int] = []  # right answers: send → last byte
    failed: list[int] = []  # failures: intended start → noticed
    connect: list[int] = []  # time to connect
    lag: list[int] = []  # actual − intended start
    loop_lag: list[int] = []  # overshoot of a 10 ms sleep in every generator process


class Second(Counts, kw_only=True, omit_defaults=True):
    """One line of `seconds.jsonl`. Lines with the same t, series and phase add up, so every worker
    may write its own."""

    series: Series
    phase: PhaseName


class ServerSample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The server's control groups, summed over replicas."""

    cpu_s: float  # with the balancer's, where the lab started one: it is charged
    balancer_cpu_s: float | None = None  # the part of it that is the balancer's
    periods: int = 0
    throttled_periods: int = 0
    memory_bytes: int
    memory_peak_bytes: int
    oom_kills: int = 0
    restarts: int = 0


class HostSample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole machine, seconds since boot."""

    busy_s: float
    steal_s: float
    total_s: float
    pressure_s: float | None = None  # time in which some task waited for a CPU (PSI "some")
    swapped_pages: int | None = None
    conntrack: int | None = None  # entries in use; with `conntrack_max` 0 there is no table
    conntrack_max: int | None = None


class NetSample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """TCP in the network namespace of the users' connections."""

    established: int  # of users to the server; the witness's and the master's are not counted
    ports_used: int | None = None  # ephemeral ones, TIME_WAIT included
    active_opens: int
    listen_overflows: int
    listen_drops: int
    retransmits: int
    segments_out: int


class ProcessSample(msgspec.Struct, array_like=True):
    """One process."""

    cpu_s: float  # since its start
    files: int = 0  # open ones


class Sample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One look at the counters. What could not be read is None."""

    t: float
    server: ServerSample | None = None
    host: HostSample | None = None
    net: NetSample | None = None
    processes: dict[str, ProcessSample] = {}
    hosts: dict[str, HostSample] = {}
    """Other machines with generators, as their workers last reported."""
    generator_throttled_periods: int | None = None
    """Of the generator's own control groups; 0 where they have no quota."""
