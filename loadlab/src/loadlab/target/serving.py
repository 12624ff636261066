"""What a run asks of the server under load and knows of it, whichever backend started it; and the
thread that looks at everything five times a second, and writes it down at once."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from loadlab.record import counters
from loadlab.record.cgroup import Group
from loadlab.record.schema import (
    HostSample,
    NetSample,
    ProcessSample,
    Replica,
    Sample,
    ServerSample,
)
from loadlab.target.tiers import Tier
from loadlab.words import BackendChoice, Balancer

_EVERY_S = 0.2
_CONNECTIONS_EVERY_S = 1.0
"""Counting 10,000 connections costs a few milliseconds."""
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
    backend: BackendChoice
    target: str
    """host:port of a server that runs already; empty: the lab starts one."""
    service: str = "halfcore"
    """Or a variant of the baseline, for comparisons; `image` is a published image."""
    image: str = ""
    """Its name, for service `image`."""
    service_workers: int = 0
    """Worker processes in each replica of a baseline; 0: as the variant chooses."""
    balancer: Balancer = "none"
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
    rows_of: dict[str, Any] | None = None
    """The bundle's manifest whose rows are sent to a server that is not held to it."""
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

    def sample(self) -> ServerSample | None:
        """All replicas and their balancer together; None if there is no group to read, or one is
        gone."""
        try:
            before_s = self.balancer.usage().cpu_s if self.balancer else None
            usages = [group.usage() for group in self.groups]
            memories = [group.memory() for group in self.groups]
        except (OSError, KeyError):
            return None
        if not usages:
            return None
        return ServerSample(
            cpu_s=math.fsum([*(each.cpu_s for each in usages), before_s or 0.0]),
            balancer_cpu_s=before_s,
            periods=sum(each.periods for each in usages),
            throttled_periods=sum(each.throttled_periods for each in usages),
            memory_bytes=sum(each.current_bytes for each in memories),
            memory_peak_bytes=sum(each.peak_bytes for each in memories),
            oom_kills=sum(each.oom_kills for each in memories),
        )

    def cpus(self) -> frozenset[int]:
        """CPUs that the server's processes hold themselves to; empty if any may run anywhere."""
        groups = [*self.groups, *([self.balancer] if self.balancer else [])]
        pids = [pid for group in groups for pid in group.processes()]
        held = [_allowed(pid) for pid in pids]
        anywhere = any(each >= os.sched_getaffinity(0) for each in held)
        return frozenset() if anywhere else frozenset[int]().union(*held)


class Sampler:
    """Watches until stopped.

    Args:
        write: takes each sample; its `OSError` (a full disk) stops the sampler and is kept in
            `failure`.
        epoch: the run's start on the monotonic clock.
    """

    def __init__(self, write: Callable[[Sample], None], epoch: float) -> None:
        self._write, self._epoch = write, epoch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._connections: int | None = None
        self._connections_at = float("-inf")
        self.server: Serving | None = None
        self.processes: dict[str, int] = {}
        """Name → process id."""
        self.generators: list[int] = []
        """Processes whose own quota, if they have one, would be measured as the server's
        latency."""
        self.remote: dict[str, ProcessSample] = {}
        """Workers on other machines, as they last reported themselves."""
        self.hosts: dict[str, HostSample] = {}
        """Those machines."""
        self.uncounted = 0
        """Connections to the server's port that are not the users': the witness's."""
        self.latest: Sample | None = None
        self.failure: OSError | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Look once more, for what ended the run may be younger than the last sample (a kill for
        want of memory), and then no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.failure is None:
            self._keep()

    def look(self) -> Sample:
        """One sample."""
        now = time.monotonic()
        server, looked = self.server, self.processes.copy()
        processes = {name: counters.process(pid) for name, pid in looked.items()}
        return Sample(
            t=round(now - self._epoch, 3),
            server=server.sample() if server else None,
            host=counters.host(),
            net=self._net(server, now) if server else None,
            processes={name: found for name, found in processes.items() if found} | self.remote,
            hosts=self.hosts.copy(),
            generator_throttled_periods=counters.throttled_periods(self.generators),
        )

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S - (time.monotonic() - self._epoch) % _EVERY_S):
            self._keep()
            if self.failure:
                return

    def _keep(self) -> None:
        try:
            self.latest = self.look()
            self._write(self.latest)
        except OSError as error:
            self.failure = error

    def _net(self, server: Serving, now: float) -> NetSample | None:
        own = theirs = counters.tcp()
        if server.network_pid:
            theirs = counters.tcp(counters.PROC / str(server.network_pid))
        if now - self._connections_at >= _CONNECTIONS_EVERY_S:
            with suppress(OSError):
                self._connections, self._connections_at = counters.established(server.port), now
        if self._connections is None:  # this kernel does not say how many there are
            return None
        return NetSample(
            established=max(self._connections - self.uncounted, 0),
            ports_used=self._connections + own["tw"],
            active_opens=own["ActiveOpens"],
            listen_overflows=theirs["ListenOverflows"],
            listen_drops=theirs["ListenDrops"],
            retransmits=own["RetransSegs"],
            segments_out=own["OutSegs"],
        )


def _outside(group: Group, pid: int) -> int:
    """How many of a replica's processes are not in its group."""
    # Those that live are read first: a new process is inside. One that was killed is in no group.
    family = set[int]()
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        family = {each.pid for each in (first, *first.children(recursive=True)) if _is_alive(each)}
    return len(family - set(group.processes()))


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return False


def _allowed(pid: int) -> set[int]:
    """CPUs of a process's threads, empty for a container's first process: a server may hold its
    threads, and not the first one, to a CPU."""
    allowed = set[int]()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for thread in process.threads() if process.name() not in _INITS else ():
            with suppress(ProcessLookupError):
                allowed |= os.sched_getaffinity(thread.id)
    return allowed
