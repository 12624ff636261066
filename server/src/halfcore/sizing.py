"""Fits the server to its limits: how many workers, how many connections, and how its threads are scheduled.

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
MOST_CONNECTIONS = 12_000
PROMISED_USERS = 10_000
SPARE_FILES = 64
"""Open files beside connections: listener, event loop, bundle files while loading, log."""

Choice = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Plan:
    """How the server will run, and why."""

    workers: int
    max_connections: int
    """Per worker."""
    pin: bool
    batch_scheduling: bool
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan(
    *,
    workers: int,
    max_connections: int,
    pin: Choice,
    batch_scheduling: Choice,
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
    connections, why = max_connections or MOST_CONNECTIONS, _why(bool(max_connections), "10,000 users and room to spare")
    if memory_limit is not None and connections > (fitting := _fitting_connections(memory_limit, workers, model_bytes)):
        text = f"the memory limit of {memory_limit / 1e6:.0f} MB holds some {fitting} connections per worker"
        if max_connections:
            warnings.append(f"max_connections {connections}: {text}; with more the worker may be killed")
        else:
            if fitting < PROMISED_USERS:
                warnings.append(f"{PROMISED_USERS} users do not fit: {text}")
            connections, why = max(fitting, 1), text
    files = raise_open_files(connections + SPARE_FILES) - SPARE_FILES
    if files < connections:
        warnings.append(f"max_connections {connections}: nofile allows {files}; raise it, or more connections wait unanswered")
        connections, why = max(files, 1), "nofile allows no more"
    reasons.append(f"max_connections {connections}: {why}")
    below = quota is not None and quota < 1
    why = "the CPU quota is below one core" if below else "the CPU quota is not below one core"
    reasons.append(f"pin_cpu {_word(_on(pin, below))}: {_why(pin != 'auto', why)}")
    reasons.append(f"batch_scheduling {_word(_on(batch_scheduling, below))}: {_why(batch_scheduling != 'auto', why)}")
    return Plan(workers, connections, _on(pin, below), _on(batch_scheduling, below), reasons, warnings)


def apply(chosen: Plan) -> None:
    """Schedule this process as planned; called before it starts a thread, for threads inherit it."""
    if chosen.pin:
        host.pin(host.quietest_cpu())
    if chosen.batch_scheduling:
        host.schedule_as_batch()


def _quota_text(quota: float | None) -> str:
    return "no CPU quota is set; set workers to use more cores" if quota is None else f"the CPU quota is {quota:g} cores"


def _fitting_connections(memory_limit: int, workers: int, model_bytes: int) -> int:
    at_rest = MEMORY_AT_REST + model_bytes * MEMORY_PER_MODEL_BYTE
    return max(0, int((memory_limit / workers - at_rest) / MEMORY_PER_CONNECTION))


def _on(choice: Choice, default: bool) -> bool:
    return default if choice == "auto" else choice == "on"


def _word(on: bool) -> str:
    return "on" if on else "off"


def _why(given: bool, reason: str) -> str:
    return "as set" if given else reason
