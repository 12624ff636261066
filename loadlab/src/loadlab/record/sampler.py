"""The thread that looks at everything five times a second, and writes it down at once."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from loadlab.record import counters
from loadlab.record.cgroup import Group
from loadlab.record.schema import HostSample, NetSample, ProcessSample, Sample, ServerSample

EVERY_S = 0.2
_CONNECTIONS_EVERY_S = 1.0
"""Counting 10,000 connections costs a few milliseconds."""


class Watched(Protocol):
    """What the sampler has to know of a server."""

    @property
    def groups(self) -> Sequence[Group]:
        """One per replica."""

    @property
    def balancer(self) -> Group | None:
        """Of the process before the replicas, if the lab started one."""

    @property
    def port(self) -> int:
        """That users connect to."""

    @property
    def network_pid(self) -> int:
        """A process in the server's network namespace; 0: this one's."""


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
        self._connections, self._connections_at = 0, float("-inf")
        self.server: Watched | None = None
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
            server=_server(server.groups, server.balancer) if server and server.groups else None,
            host=counters.host(),
            net=self._net(server, now) if server else None,
            processes={name: found for name, found in processes.items() if found} | self.remote,
            hosts=self.hosts.copy(),
            generator_throttled_periods=counters.throttled_periods(self.generators),
        )

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S - (time.monotonic() - self._epoch) % EVERY_S):
            self._keep()
            if self.failure:
                return

    def _keep(self) -> None:
        try:
            self.latest = self.look()
            self._write(self.latest)
        except OSError as error:
            self.failure = error

    def _net(self, server: Watched, now: float) -> NetSample:
        own = theirs = counters.tcp()
        if server.network_pid:
            theirs = counters.tcp(counters.PROC / str(server.network_pid))
        if now - self._connections_at >= _CONNECTIONS_EVERY_S:
            with suppress(OSError):
                self._connections, self._connections_at = counters.established(server.port), now
        return NetSample(
            established=max(self._connections - self.uncounted, 0),
            time_wait=own["tw"],
            ports_used=self._connections + own["tw"],
            active_opens=own["ActiveOpens"],
            listen_overflows=theirs["ListenOverflows"],
            listen_drops=theirs["ListenDrops"],
            retransmits=own["RetransSegs"],
            segments_out=own["OutSegs"],
        )


def _server(groups: Sequence[Group], balancer: Group | None) -> ServerSample | None:
    """All replicas and their balancer together; None if a group is gone."""
    try:
        before_s = balancer.usage().cpu_s if balancer else None
        before_bytes = balancer.memory().peak_bytes if balancer else 0
        usages, memories = [group.usage() for group in groups], [group.memory() for group in groups]
    except (OSError, KeyError):
        return None
    return ServerSample(
        cpu_s=math.fsum([*(each.cpu_s for each in usages), before_s or 0.0]),
        balancer_cpu_s=before_s,
        balancer_memory_bytes=before_bytes,
        periods=sum(each.periods for each in usages),
        throttled_periods=sum(each.throttled_periods for each in usages),
        throttled_s=math.fsum(each.throttled_s for each in usages),
        memory_bytes=sum(each.current_bytes for each in memories),
        memory_peak_bytes=sum(each.peak_bytes for each in memories),
        oom_kills=sum(each.oom_kills for each in memories),
        limit_hits=sum(each.limit_hits for each in memories),
    )
