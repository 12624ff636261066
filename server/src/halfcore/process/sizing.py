"""Fits the server to its limits: how many workers, how many connections, and how its threads are
scheduled.

Every choice is logged at the start, one line with its reason; a setting overrides it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, NamedTuple, TypeVar

from halfcore import host

MEMORY_PER_CONNECTION = 14_000
"""Bytes of an open keep-alive connection, kernel's part included (docs/operations.md)."""
MEMORY_AT_REST = 70_000_000
"""Bytes of a worker with a small model and no connection (docs/operations.md)."""
MEMORY_PER_MODEL_BYTE = 4
"""Bytes of memory per byte of model.onnx, for tree ensembles, once loaded (docs/operations.md)."""
MEMORY_SPARE = 10_000_000
"""Bytes that a worker takes on top after its models are loaded: code that is run for the first
time, and the heap's fragments."""
MEMORY_PER_REQUEST = 12_000
"""Bytes of a request in progress, without its connection (docs/operations.md)."""
CONNECTIONS_PER_REQUEST = 4
"""When memory is short, room is kept for one request in progress per so many connections."""
BUDGET_SHARE = 0.5
"""Share of what the connections leave that large bodies, rows and answers may take. The rest is for
small requests in progress, and for the copies that are made while one body is read and decoded."""
MOST_CONNECTIONS = 12_000
PROMISED_USERS = 10_000
SPARE_FILES = 64
"""Open files besides connections: listener, event loop, bundle files while loading, log."""

GATHER_S = 0.002
"""Most CPU time of the quota, in seconds, that passes while requests gather: 4 ms of the clock at
half a core, 20 at a tenth (docs/decisions/0012)."""
LONGEST_GATHER_S = 0.02

Switch = Literal["auto", "on", "off"]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How the server will run, and why."""

    workers: int
    max_connections: int
    """Per worker."""
    pin: bool
    batch_scheduling: bool
    max_in_flight: int
    """Per worker."""
    coalesce_quota: float
    """Cores' worth of CPU time; requests gather where a good part of it is used. 0: they never
    do."""
    coalesce_delay_s: float
    """Seconds that they gather at most."""
    bytes_in_flight: int
    """Of large bodies, rows and answers; per worker."""
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Decision(Generic[T]):
    """One choice."""

    value: T
    reason: str
    """The line for the log: the name of the setting, the value, and why."""
    warning: str | None = None


class _Gathering(NamedTuple):
    """How requests gather, as in `Plan`."""

    quota: float
    delay_s: float


def plan(
    *,
    workers: int,
    max_connections: int,
    pin: Switch,
    batch_scheduling: Switch,
    max_in_flight: int,
    bytes_in_flight: int,
    max_body_bytes: int,
    coalesce: Switch,
    coalesce_delay_s: float,
    quota: float | None,
    cpus: int,
    memory_limit: int | None,
    model_bytes: int,
    raise_open_files: Callable[[int], int],
) -> Plan:
    """Decide from the process's limits; 0 and `auto` leave the choice to this function.

    Args:
        workers: worker processes, or 0.
        max_connections: open connections per worker, or 0.
        pin: run each worker on one CPU.
        batch_scheduling: run workers as `SCHED_BATCH`.
        max_in_flight: predictions in progress per worker, or 0.
        bytes_in_flight: most bytes of large bodies, rows and answers per worker, or 0.
        max_body_bytes: largest body.
        coalesce: let requests gather while much of the quota is used; only one worker does.
        coalesce_delay_s: seconds that they gather at most, or 0.
        quota: cores' worth of CPU time, None if unlimited.
        cpus: how many CPUs this process may run on.
        memory_limit: bytes, None if unlimited: then the machine's memory counts.
        model_bytes: size of all models' files.
        raise_open_files: asks for a number of open files and returns how many there may be.
    """
    processes = _workers(workers, quota)
    memory = _Memory(memory_limit, processes.value, model_bytes)
    fitting = _connections_in_memory(max_connections, memory)
    nofile = _open_files(fitting.value, raise_open_files)
    connections = _connections_in_files(fitting, nofile.value)
    in_flight = _requests_in_flight(max_in_flight, memory, connections.value)
    one_core = cpus == 1 or (quota is not None and quota <= 1)
    share = "one core at most" if one_core else "more than one core"
    why = f"the server may use {share}"
    pinned = _switch("pin_cpu", pin, default=one_core, why=why)
    pinned_why = "each worker runs on one CPU" if pinned.value else why
    batch = _switch(
        "batch_scheduling", batch_scheduling, default=one_core or pinned.value, why=pinned_why
    )
    gathers = Decision(_on(coalesce, one_core), _why(coalesce != "auto", why))
    gathering = _gathering(gathers, coalesce_delay_s, processes.value, quota)
    room = memory.beyond_rest(memory_limit or host.memory()) - MEMORY_SPARE
    large = _bytes_in_flight(bytes_in_flight, room, connections.value, max_body_bytes)
    decisions = (processes, connections, nofile, in_flight, large, pinned, batch, gathering)
    return Plan(
        workers=processes.value,
        max_connections=connections.value,
        pin=pinned.value,
        batch_scheduling=batch.value,
        max_in_flight=in_flight.value,
        coalesce_quota=gathering.value.quota,
        coalesce_delay_s=gathering.value.delay_s,
        bytes_in_flight=large.value,
        reasons=[decision.reason for decision in decisions],
        warnings=[decision.warning for decision in decisions if decision.warning is not None],
    )


def after_loading(
    chosen: Plan,
    *,
    memory_left: int | None,
    given: int,
    bytes_given: int,
    max_body_bytes: int,
) -> Plan:
    """The plan once the models are loaded: what they take is known now, and was estimated before.

    Args:
        chosen: the plan.
        memory_left: bytes that the limit leaves now, None if there is no limit.
        given: `max_connections` as it was set, or 0.
        bytes_given: `max_bytes_in_flight` as it was set, or 0.
        max_body_bytes: largest body.

    Returns:
        The same plan, or one with fewer connections and requests, and with other room for large
        ones; its reasons and warnings are the new ones only.
    """
    unchanged = replace(chosen, reasons=[], warnings=[])
    if memory_left is None:
        return unchanged
    fitted = _fitted(unchanged, memory_left, given)
    room = memory_left - MEMORY_SPARE
    large = _bytes_in_flight(bytes_given, room, fitted.max_connections, max_body_bytes)
    if large.value == chosen.bytes_in_flight:
        return fitted
    return replace(fitted, bytes_in_flight=large.value, reasons=[*fitted.reasons, large.reason])


def _fitted(unchanged: Plan, memory_left: int, given: int) -> Plan:
    """The plan with as many connections as fit into what is left, unless they are set."""
    each = MEMORY_PER_CONNECTION + MEMORY_PER_REQUEST / CONNECTIONS_PER_REQUEST
    fitting = max(1, int((memory_left - MEMORY_SPARE) / each))
    if fitting >= unchanged.max_connections:
        return unchanged
    text = f"the loaded models leave {memory_left / 1e6:.0f} MB, some {fitting} connections"
    if given:
        danger = f"max_connections {given}: {text}; with more the worker may be killed"
        return replace(unchanged, warnings=[danger])
    fewer = fitting < PROMISED_USERS <= unchanged.max_connections
    return replace(
        unchanged,
        max_connections=fitting,
        max_in_flight=min(unchanged.max_in_flight, max(1, fitting // CONNECTIONS_PER_REQUEST)),
        reasons=[f"max_connections {fitting}: {text}"],
        warnings=[f"{PROMISED_USERS} users do not fit: {text}; raise the limit"] if fewer else [],
    )


def apply(chosen: Plan) -> None:
    """Schedule this process as planned; called before it starts a thread, because threads
    inherit it."""
    if chosen.pin:
        host.pin(host.quietest_cpu())
    if chosen.batch_scheduling:
        host.schedule_as_batch()


class _Memory(NamedTuple):
    """What the memory limit leaves to a worker."""

    limit: int | None
    """Bytes for all workers; None: unlimited."""
    workers: int
    model_bytes: int

    def beyond_rest(self, limit: int) -> float:
        """Bytes of one worker's share that a worker without connections does not take."""
        return limit / self.workers - MEMORY_AT_REST - self.model_bytes * MEMORY_PER_MODEL_BYTE

    def taken(self) -> float:
        """Bytes that all workers take without connections."""
        return (MEMORY_AT_REST + self.model_bytes * MEMORY_PER_MODEL_BYTE) * self.workers


def _workers(given: int, quota: float | None) -> Decision[int]:
    """A worker per whole core of the quota."""
    workers = given or max(1, int(quota or 1))
    why = (
        "no CPU quota is set; set workers to use more cores"
        if quota is None
        else f"the CPU quota is {quota:g} cores"
    )
    return Decision(workers, f"workers {workers}: {_why(bool(given), why)}")


def _connections_in_memory(given: int, memory: _Memory) -> Decision[int]:
    """What is set, even if the estimate says that it does not fit; otherwise as many as fit."""
    connections = given or MOST_CONNECTIONS
    why = _why(bool(given), "10,000 users and room to spare")
    decision = Decision(connections, f"max_connections {connections}: {why}")
    if memory.limit is None:
        return decision
    room = memory.beyond_rest(memory.limit)
    each = MEMORY_PER_CONNECTION + MEMORY_PER_REQUEST / CONNECTIONS_PER_REQUEST
    fitting = max(0, int(room / each))
    if connections <= fitting:
        return decision
    limit_mb = memory.limit / 1e6
    if room <= 0:
        return Decision(
            given or 1,
            f"max_connections {given or 1}: {_why(bool(given), 'the models leave no memory')}",
            f"the models' files of {memory.model_bytes / 1e6:.0f} MB take some "
            f"{memory.taken() / 1e6:.0f} MB in memory, and the memory limit is {limit_mb:.0f} MB: "
            "the kernel may kill the server, already while it loads them; raise the limit, or "
            "serve fewer models",
        )
    text = f"the memory limit of {limit_mb:.0f} MB holds some {fitting} connections per worker"
    if given:
        danger = f"max_connections {given}: {text}; with more the worker may be killed"
        return replace(decision, warning=danger)
    warning = f"{PROMISED_USERS} users do not fit: {text}" if fitting < PROMISED_USERS else None
    connections = max(fitting, 1)
    return Decision(connections, f"max_connections {connections}: {text}", warning)


def _open_files(connections: int, raise_limit: Callable[[int], int]) -> Decision[int]:
    """As many open files as the connections need, or as the hard limit allows."""
    limit = raise_limit(connections + SPARE_FILES)
    if (files := limit - SPARE_FILES) >= connections:
        return Decision(limit, f"nofile {limit}: enough for max_connections")
    return Decision(
        limit,
        f"nofile {limit}: the hard limit, up to which the server raises it by itself",
        f"max_connections {connections}: nofile allows {files}; raise its hard limit, or more "
        "connections wait unanswered",
    )


def _connections_in_files(fitting: Decision[int], open_files: int) -> Decision[int]:
    """The connections that fit into memory, as far as there are open files for them."""
    if (files := open_files - SPARE_FILES) >= fitting.value:
        return fitting
    connections = max(files, 1)
    reason = f"max_connections {connections}: nofile allows no more"
    return replace(fitting, value=connections, reason=reason)


def _requests_in_flight(given: int, memory: _Memory, connections: int) -> Decision[int]:
    """A prediction per connection; when memory is short, as many as fit next to the connections,
    but at least one on every `CONNECTIONS_PER_REQUEST`-th connection."""
    requests = given or connections
    if memory.limit is not None and not given:
        room = memory.beyond_rest(memory.limit) - connections * MEMORY_PER_CONNECTION
        fitting = int(room / MEMORY_PER_REQUEST)
        requests = min(connections, max(1, connections // CONNECTIONS_PER_REQUEST, fitting))
    why = (
        "one per connection"
        if requests == connections
        else "the memory limit leaves no room for more next to the connections"
    )
    return Decision(requests, f"max_in_flight {requests}: {_why(bool(given), why)}")


def _bytes_in_flight(
    given: int, room: float, connections: int, max_body_bytes: int
) -> Decision[int]:
    """What is set; otherwise a share of the room that the connections leave, and one body at
    least."""
    share = int(max(0.0, room - connections * MEMORY_PER_CONNECTION) * BUDGET_SHARE)
    value = given or max(max_body_bytes, share)
    why = (
        "half of the memory that is left next to the connections"
        if share >= max_body_bytes
        else "one body of max_body_bytes; the memory limit leaves no more next to the connections"
    )
    return Decision(value, f"max_bytes_in_flight {value}: {_why(bool(given), why)}")


def _switch(setting: str, given: Switch, *, default: bool, why: str) -> Decision[bool]:
    """What is set, or the default and why."""
    on = _on(given, default)
    return Decision(on, f"{setting} {'on' if on else 'off'}: {_why(given != 'auto', why)}")


def _gathering(
    coalesce: Decision[bool], given_delay_s: float, workers: int, quota: float | None
) -> Decision[_Gathering]:
    """How requests gather, if there is one worker; the less CPU time, the longer."""
    on = workers == 1 and coalesce.value
    why = coalesce.reason if workers == 1 else "several workers share the CPU time"
    cores = quota or 1.0
    delay_s = given_delay_s or min(LONGEST_GATHER_S, GATHER_S / cores)
    text = f"for up to {delay_s * 1000:g} ms" if on else "off"
    return Decision(
        _Gathering(quota=cores if on else 0.0, delay_s=delay_s), f"coalesce {text}: {why}"
    )


def _on(given: Switch, default: bool) -> bool:
    return default if given == "auto" else given == "on"


def _why(given: bool, reason: str) -> str:
    return "as set" if given else reason
