"""What is counted, and where the window that counts begins and ends."""

import time
from collections import Counter

from loadlab.generator.epoll.plan import Outcome
from loadlab.record import machine
from loadlab.record.histogram import spread
from loadlab.target import cgroup


class Tally:
    """Counts of one run; `begin` throws away the warm-up's, `end` closes the window."""

    def __init__(self, group: str = "", helper_group: str = "") -> None:
        self._group = cgroup.find(group) if group else None
        self._helper = cgroup.find(helper_group) if helper_group else None
        self.response_us: Counter[int] = Counter()
        self.lag_us: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.failures_before: Counter[str] = Counter()
        self.requests = self.requests_before = 0
        self._start = self._stop = self._read()

    def begin(self) -> None:
        """The window begins: what was counted until now was warm-up."""
        self.failures_before = self.failures.copy()
        self.requests_before = self.response_us.total()
        for counter in (self.response_us, self.lag_us, self.failures):
            counter.clear()
        self.requests = 0
        self._start = self._read()

    def end(self) -> None:
        """The window ends; failures of requests that are still on the way are counted after it all
        the same."""
        self._stop = self._read()
        self.requests = self.response_us.total()
        self.response_us, self._response_us = Counter(), self.response_us
        self.lag_us, self._lag_us = Counter(), self.lag_us

    def outcome(self) -> Outcome:
        """The result; call `end` first."""
        (
            (at, cpu_s, whole, server, helper_s),
            (at_start, cpu_s_start, whole_start, server_start, helper_s_start),
        ) = self._stop, self._start
        return Outcome(
            requests=self.requests,
            requests_before=self.requests_before,
            failures=dict(self.failures),
            failures_before=dict(self.failures_before),
            seconds=at - at_start,
            response=spread(self._response_us),
            lag=spread(self._lag_us),
            client_cpu_s=cpu_s - cpu_s_start,
            machine=whole.since(whole_start),
            server=server.since(server_start) if server and server_start else None,
            helper_cpu_s=helper_s - helper_s_start,
        )

    def _read(self) -> tuple[float, float, machine.Cpu, cgroup.Usage | None, float]:
        server = self._group.usage() if self._group else None
        helper_s = self._helper.usage().cpu_s if self._helper else 0.0
        return time.monotonic(), time.process_time(), machine.read_cpu(), server, helper_s
