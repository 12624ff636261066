"""Fits the server to its limits: how many workers, how many connections, and how its threads are
scheduled.

Every choice is one line with its reason, printed at start; every choice gives way to a setting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from halfcore import host

MEMORY_PER_CONNECTION = 14_000
"""Bytes of an open keep-alive connection, kernel's part included (docs/operations.md)."""
MEMORY_AT_REST = 70_000_000
"""Bytes of a worker with a small model and no connection (docs/operations.md)."""
MEMORY_PER_MODEL_BYTE = 4
"""Bytes of memory per byte of model.onnx, for tree ensembles, once loaded (docs/operations.md)."""
MEMORY_PER_REQUEST = 12_000
"""Bytes of a request in progress, beside its connection's (docs/operations.md)."""
CONNECTIONS_PER_REQUEST = 4
"""When memory is short, room is kept for a request in progress on every so many-th connection."""
MOST_CONNECTIONS = 12_000
PROMISED_USERS = 10_000
SPARE_FILES = 64
"""Open files beside connections: listener, event loop, bundle files while loading, log."""

GATHER_S = 0.002
"""Most seconds of CPU time of the quota while requests gather: 4 ms of the clock at half a core, 20
at a tenth (docs/decisions/0012)."""
LONGEST_GATHER_S = 0.02

Choice = Literal["auto", "on", "off"]


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
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan(
    *,
    workers: int,
    max_connections: int,
    pin: Choice,
    batch_scheduling: Choice,
    max_in_flight: int,
    coalesce: Choice,
    coalesce_delay_s: float,
    quota: float | None,
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
        coalesce: let requests gather while much of the quota is used; only one worker does.
        coalesce_delay_s: seconds that they gather at most, or 0.
        quota: cores' worth of CPU time, None if unlimited.
        memory_limit: bytes, None if unlimited.
        model_bytes: size of all models' files.
        raise_open_files: asks for a number of open files and returns how many there may be.
    """
    reasons: list[str] = []
    warnings: list[str] = []
    workers_why = _why(bool(workers), _quota_text(quota))
    workers = workers or max(1, int(quota or 1))
    reasons.append(f"workers {workers}: {workers_why}")
    connections, why = (
        max_connections or MOST_CONNECTIONS,
        _why(bool(max_connections), "10,000 users and room to spare"),
    )
    if memory_limit is not None and connections > (
        fitting := _fitting_connections(memory_limit, workers, model_bytes)
    ):
        text = (
            f"the memory limit of {memory_limit / 1e6:.0f} MB holds some {fitting} connections "
            "per worker"
        )
        if max_connections:
            warnings.append(
                f"max_connections {connections}: {text}; with more the worker may be killed"
            )
        else:
            if fitting < PROMISED_USERS:
                warnings.append(f"{PROMISED_USERS} users do not fit: {text}")
            connections, why = max(fitting, 1), text
    limit = raise_open_files(connections + SPARE_FILES)
    files, files_why = limit - SPARE_FILES, "enough for max_connections"
    if files < connections:
        warnings.append(
            f"max_connections {connections}: nofile allows {files}; raise its hard limit, or more "
            "connections wait unanswered"
        )
        connections, why = max(files, 1), "nofile allows no more"
        files_why = "the hard limit, up to which the server raises it by itself"
    reasons.append(f"max_connections {connections}: {why}")
    reasons.append(f"nofile {limit}: {files_why}")
    in_flight = max_in_flight or _fitting_requests(memory_limit, workers, model_bytes, connections)
    reasons.append(
        f"max_in_flight {in_flight}: "
        f"{_why(bool(max_in_flight), _in_flight_text(in_flight, connections))}"
    )
    below = quota is not None and quota < 1
    why = "the CPU quota is below one core" if below else "the CPU quota is not below one core"
    reasons.append(f"pin_cpu {_word(_on(pin, below))}: {_why(pin != 'auto', why)}")
    reasons.append(
        f"batch_scheduling {_word(_on(batch_scheduling, below))}: "
        f"{_why(batch_scheduling != 'auto', why)}"
    )
    gather = workers == 1 and _on(coalesce, below)
    why = _why(coalesce != "auto", why) if workers == 1 else "several workers share the quota"
    coalesce_quota = (quota or 1.0) if gather else 0.0
    delay_s = coalesce_delay_s or min(LONGEST_GATHER_S, GATHER_S / (quota or 1.0))
    reasons.append(f"coalesce {f'for up to {delay_s * 1000:g} ms' if gather else 'off'}: {why}")
    return Plan(
        workers=workers,
        max_connections=connections,
        pin=_on(pin, below),
        batch_scheduling=_on(batch_scheduling, below),
        max_in_flight=in_flight,
        coalesce_quota=coalesce_quota,
        coalesce_delay_s=delay_s,
        reasons=reasons,
        warnings=warnings,
    )


def apply(chosen: Plan) -> None:
    """Schedule this process as planned; called before it starts a thread, for threads inherit
    it."""
    if chosen.pin:
        host.pin(host.quietest_cpu())
    if chosen.batch_scheduling:
        host.schedule_as_batch()


def _quota_text(quota: float | None) -> str:
    return (
        "no CPU quota is set; set workers to use more cores"
        if quota is None
        else f"the CPU quota is {quota:g} cores"
    )


def _fitting_connections(memory_limit: int, workers: int, model_bytes: int) -> int:
    at_rest = MEMORY_AT_REST + model_bytes * MEMORY_PER_MODEL_BYTE
    return max(
        0,
        int(
            (memory_limit / workers - at_rest)
            / (MEMORY_PER_CONNECTION + MEMORY_PER_REQUEST / CONNECTIONS_PER_REQUEST)
        ),
    )


def _fitting_requests(
    memory_limit: int | None, workers: int, model_bytes: int, connections: int
) -> int:
    if memory_limit is None:
        return connections
    at_rest = MEMORY_AT_REST + model_bytes * MEMORY_PER_MODEL_BYTE
    left = memory_limit / workers - at_rest - connections * MEMORY_PER_CONNECTION
    return min(
        connections, max(1, connections // CONNECTIONS_PER_REQUEST, int(left / MEMORY_PER_REQUEST))
    )


def _in_flight_text(requests: int, connections: int) -> str:
    return (
        "one per connection"
        if requests == connections
        else "the memory limit leaves no room for more next to the connections"
    )


def _on(choice: Choice, default: bool) -> bool:
    return default if choice == "auto" else choice == "on"


def _word(on: bool) -> str:
    return "on" if on else "off"


def _why(given: bool, reason: str) -> str:
    return "as set" if given else reason
