"""What a run asks of the server under load and knows of it, whichever backend started it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadlab.record import counters
from loadlab.record.cgroup import Group
from loadlab.record.schema import Replica
from loadlab.target.tiers import Tier

_INITS = ("docker-init", "tini")
"""A container's first process does nothing but wait; it may run anywhere."""


class BackendFailed(RuntimeError):
    """The server could not be started for a reason that is not the server's: no such bundle, no
    Docker, no image."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run's order that says which server to start."""

    tier: Tier
    model: str
    users: int
    backend: Literal["auto", "cgroup", "compose"]
    target: str
    """host:port of a server that runs already; empty: the lab starts one."""
    service: str = "halfcore"
    """Or a variant of the baseline, for comparisons; `image` is a published image."""
    image: str = ""
    """Its name, for service `image`."""
    service_workers: int = 0
    """Worker processes in each replica of a baseline; 0: as the variant chooses."""
    balancer: Literal["none", "http", "tcp"] = "none"
    """What the lab puts before the replicas that it starts as processes: `http` deals out requests,
    `tcp` connections; `none`: users take the replicas' addresses in turn."""
    listen: str = ""
    """Address of this machine for users on others; empty: all users are here."""
    late: bool = False
    """The last replica joins when all users are there; for studies."""


@dataclass
class Serving:
    """A server that is ready, one or more replicas."""

    addresses: list[tuple[str, int]]
    """Where users connect; taken in turn."""
    groups: Sequence[Group] = ()
    """One per replica; none where the lab cannot read them (target=)."""
    pids: Sequence[int] = ()
    """Main process of each replica."""
    ended: Callable[[], str] = lambda: ""
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
        return [
            Replica(
                limits=group.limits(),
                processes_inside=len(group.processes()),
                processes_outside=_outside(group, pid),
            )
            for group, pid in zip(self.groups, self.pids, strict=True)
        ]

    def cpu_s(self) -> list[float]:
        """CPU time of each replica since its group was made."""
        return [group.usage().cpu_s for group in self.groups]

    def read_back(self, replicas: Sequence[Replica], cpu_s_before: list[float]) -> list[Replica]:
        """The replicas with their limits now, the CPU time that they used since `cpu_s_before`, and
        the processes that have left their group; without them where the group is gone, as that of a
        container that has ended."""
        read = list(replicas)
        of_each = zip(self.groups, self.pids, cpu_s_before, strict=True)
        for number, (group, pid, before) in enumerate(of_each):
            with suppress(OSError, KeyError):
                read[number] = msgspec.structs.replace(
                    read[number],
                    processes_outside=max(read[number].processes_outside, _outside(group, pid)),
                    limits_at_end=group.limits(),
                    cpu_used_s=group.usage().cpu_s - before,
                )
        return read

    def cpus(self) -> frozenset[int]:
        """CPUs that the server's processes hold themselves to; empty if any may run anywhere."""
        groups = [*self.groups, *([self.balancer] if self.balancer else [])]
        pids = [pid for group in groups for pid in group.processes()]
        held = [_allowed(pid) for pid in pids if counters.name(pid) not in _INITS]
        anywhere = any(each >= set(counters.cpus(0)) for each in held)
        return frozenset() if anywhere else frozenset[int]().union(*held)


def _outside(group: Group, pid: int) -> int:
    """How many of a replica's processes are not in its group."""
    # Those that live are read first: a new process is inside. One that was killed is in no group.
    family = set(filter(_is_alive, counters.descendants(pid)))
    return len(family - set(group.processes()))


def _is_alive(pid: int) -> bool:
    try:
        state = (counters.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def _allowed(pid: int) -> set[int]:
    """CPUs of a process's threads: a server may hold its threads, and not the first one, to a
    CPU."""
    allowed: set[int] = set()
    for thread in (counters.PROC / str(pid) / "task").glob("*"):
        with suppress(OSError):
            allowed |= set(counters.cpus(int(thread.name)))
    return allowed
