"""The bench's client: carries out one plan and prints what it found, as JSON.

`python -m loadlab.generator.epoll` reads the plan, JSON, from its standard input. It connects to
loopback only, ends by itself, and checks every answer. Two regimes:

- `saturated`: each connection sends its next request as soon as the answer has arrived. For CPU
  time per request.
- `single`, `crowd`, `bulk`: saturated, with other connections or bodies.
- `sparse`: each connection has a timetable (start + think + think …), and keeps it whatever the
  server does.
"""

import ipaddress
import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Literal, NamedTuple

import msgspec

from loadlab.generator.engine import Engine, sharpen
from loadlab.generator.exchange import Exchange
from loadlab.generator.ledger import Ledger
from loadlab.generator.plan import Load, PlanError, Scenario, raise_open_files
from loadlab.record import cgroup
from loadlab.record.cgroup import Usage
from loadlab.record.histogram import Spread, spread
from loadlab.record.machine import Cpu, read_cpu

Regime = Literal["saturated", "sparse", "single", "crowd", "bulk"]
_DRAIN_S = 5.0
"""How long answers are awaited after the window; what is missing then is a timeout."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan loads its server."""

    regime: Regime
    connections: int = 64
    seconds: float = 10.0
    """Length of the window that counts."""
    warmup_s: float = 2.0
    """Load before the window, after the last connection was opened."""
    timeout_s: float = 10.0
    """An answer that takes longer is a failure."""
    rate: float = 500.0
    """sparse: connections opened per second."""
    think_s: tuple[float, float] = (4.0, 9.0)
    """sparse: uniform between these, seconds."""


class Plan(Pace, frozen=True, kw_only=True):
    """One run of the client."""

    port: int
    body: str
    """The request's body, JSON."""
    prefix: str
    """How every right answer's body begins."""
    others: tuple[tuple[str, str], ...] = ()
    """More bodies and beginnings; every connection asks all of them in turn."""
    host: str = "127.0.0.1"
    path: str = "/predict"
    binary: str = ""
    """Base64 of the bytes that follow each body's JSON."""
    length_header: str = ""
    """Name of the header that gives the length of the JSON, if bytes follow it."""
    seed: int = 1
    group: str = ""
    """A control group of the lab to read at both edges of the window."""
    helper_group: str = ""
    """Another one, of a process that works for the server: a database."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the client counted in the window, times in seconds."""

    requests: int
    """Right answers."""
    seconds: float
    failures: dict[str, int]
    """By kind: connect, reset, timeout, status_500, wrong_body, wrong_prediction, …; those of
    requests that were on the way at the window's end are counted all the same."""
    failures_before: dict[str, int]
    """The same, from the first connection to the window's start."""
    response: Spread
    """From when the request was meant to go (sparse) or went (saturated) to the whole answer."""
    lag: Spread
    """sparse: how late the client itself was; saturated: from one look at the sockets to the
    next."""


class Outcome(Counted, frozen=True, kw_only=True):
    """What one run of the client found."""

    requests_before: int = 0
    """Right answers before the window."""
    client_cpu_s: float
    machine: Cpu
    server: Usage | None
    """Of the plan's group."""
    memory: cgroup.Memory | None = None
    """Of the same group at the window's end, with all connections open."""
    helper_cpu_s: float = 0.0
    """Of what works for the server."""


def check(plan: Plan) -> None:
    """Refuse a plan that would leave this machine or cannot work.

    Raises:
        PlanError: not a loopback address, numbers out of range, or too few open files allowed.
    """
    if not ipaddress.ip_address(plan.host).is_loopback:
        raise PlanError(f"host {plan.host}: load goes to loopback addresses only")
    in_order = 0 <= plan.think_s[0] <= plan.think_s[1]
    if plan.connections < 1 or plan.seconds <= 0 or plan.rate <= 0 or not in_order:
        raise PlanError("connections, seconds and rate must be positive, and think times in order")
    raise_open_files(plan.connections)


class _Edge(NamedTuple):
    """One edge of the window."""

    usages: list[Usage | None]
    """Of the server and of what works for it."""
    at: float
    client_s: float
    machine: Cpu


def carry_out(plan: Plan) -> Outcome:
    """Carry out a checked plan. A sparse one takes connections / rate + warm-up + window, and at
    most 5 s for the last answers; a saturated one the time to connect instead."""
    ledger = Ledger("bench", time.monotonic())
    groups = [cgroup.find(name) if name else None for name in (plan.group, plan.helper_group)]
    with closing(Engine(_load(plan), ledger, bench=True)) as engine:
        opening_s = plan.connections / plan.rate
        if plan.regime != "sparse":
            engine.open()
            opening_s = 0.0
        engine.turn(time.monotonic() + opening_s + plan.warmup_s)
        before, failures_before = ledger.response_us.total(), dict(ledger.failures)
        ledger.clear()
        start = _edge(groups)
        engine.turn(start.at + plan.seconds)
        end = _edge(groups)
        memory = groups[0].memory() if groups[0] else None
        response, lag = spread(ledger.response_us), spread(ledger.lag_us)
        if plan.regime == "sparse":
            engine.drain(min(_DRAIN_S, plan.timeout_s))
    server, helper = (
        last.since(first) if first and last else None
        for first, last in zip(start.usages, end.usages, strict=True)
    )
    return Outcome(
        requests=response.count,
        requests_before=before,
        failures=dict(ledger.failures),
        failures_before=failures_before,
        seconds=end.at - start.at,
        response=response,
        lag=lag,
        client_cpu_s=end.client_s - start.client_s,
        machine=end.machine.since(start.machine),
        server=server,
        memory=memory,
        helper_cpu_s=helper.cpu_s if helper else 0.0,
    )


def _edge(groups: Sequence[cgroup.Group | None]) -> _Edge:
    usages = [group.usage() if group else None for group in groups]
    return _Edge(usages, time.monotonic(), time.process_time(), read_cpu())


def _load(plan: Plan) -> Load:
    saturated = plan.regime != "sparse"
    think = [0.0, 0.0] if saturated else list(plan.think_s)
    return Load(
        addresses=[(plan.host, plan.port)],
        exchanges=[Exchange(*asked) for asked in ((plan.body, plan.prefix), *plan.others)],
        scenario=Scenario(says="", think=think, users=plan.connections, steady=1.0, open=True),
        users=plan.connections,
        rate=math.inf if saturated else plan.rate,
        smooth=True,
        seed=plan.seed,
        start=time.monotonic(),
        path=plan.path,
        binary=plan.binary,
        length_header=plan.length_header,
        timeout_s=plan.timeout_s,
    )


def main() -> None:
    """Carry out the plan of the standard input; exits 2 on one that cannot be carried out."""
    try:
        plan = msgspec.json.decode(sys.stdin.read(), type=Plan)
        check(plan)
        sharpen()
        outcome = carry_out(plan)
    except (PlanError, cgroup.Unavailable, msgspec.DecodeError) as error:
        # A command line speaks to its terminal
        print(f"loadlab.generator.epoll: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    print(msgspec.json.encode(outcome).decode())  # noqa: T201


if __name__ == "__main__":
    main()
