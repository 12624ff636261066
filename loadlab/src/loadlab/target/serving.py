"""What a run knows of the server under load, whichever backend started it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadlab.record import counters
from loadlab.record.schema import Replica
from loadlab.target.cgroup import Group

_INITS = ("docker-init", "tini")
"""A container's first process does nothing but wait; it may run anywhere."""


class BackendFailed(RuntimeError):
    """The server could not be started for a reason that is not the server's: no such bundle, no
    Docker, no image."""


@dataclass
class Serving:
    """A server that is ready, one or more replicas."""

    addresses: list[tuple[str, int]]
    """Where users connect; taken in turn."""
    groups: Sequence[Group]
    """One per replica; none where the lab cannot read them (target=)."""
    pids: Sequence[int]
    """Main process of each replica."""
    ended: Callable[[], str]
    """Why the server is no more, or nothing."""
    network_pid: int = 0
    path: str = "/predict"
    """Where the model answers."""
    balancer: Group | None = None
    """Of the process that deals requests out to the replicas; its CPU time is charged with
    theirs."""
    balancer_pid: int = 0
    settled: Callable[[], None] = lambda: None
    """Called once all users are there: a replica that joins under load joins now."""
    answered: Callable[[], Sequence[int | None]] = tuple
    """Predictions that each replica has answered since its start; empty where they report none."""
    manifest: dict[str, Any] | None = None
    """Of the bundle that it serves."""
    graph: Path | None = None
    """That bundle's `model.onnx`, where the lab can read it and the server answers in full."""
    details: dict[str, str] = field(default_factory=dict)
    """For the record: image and digest, balancer, …"""

    @property
    def port(self) -> int:
        """That users connect to."""
        return self.addresses[0][1]

    def replicas(self) -> list[Replica]:
        """Limits read back, and whether all processes are inside."""
        return [_replica(group, pid) for group, pid in zip(self.groups, self.pids, strict=True)]

    def cpus(self) -> frozenset[int]:
        """CPUs that the server's processes hold themselves to; empty if any may run anywhere."""
        held: set[int] = set()
        everywhere = set(counters.cpus(0))
        for group in (*self.groups, *([self.balancer] if self.balancer else [])):
            for pid in group.processes():
                if counters.name(pid) in _INITS:
                    continue
                allowed = _allowed(pid)
                if allowed >= everywhere:
                    return frozenset()
                held |= allowed
        return frozenset(held)


def _replica(group: Group, pid: int) -> Replica:
    inside, family = set(group.processes()), set(counters.descendants(pid))
    return Replica(
        limits=group.limits(), processes_inside=len(inside), processes_outside=len(family - inside)
    )


def _allowed(pid: int) -> set[int]:
    """CPUs of a process's threads: a server may hold its threads, and not the first one, to a
    CPU."""
    allowed: set[int] = set()
    for thread in (counters.PROC / str(pid) / "task").glob("*"):
        try:
            allowed |= set(counters.cpus(int(thread.name)))
        except OSError:
            continue
    return allowed
