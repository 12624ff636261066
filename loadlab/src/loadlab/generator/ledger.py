"""What a generator counts: one `Ledger` per process, emptied once a second into a `Tick`.

Counting is a few additions per request; everything more expensive happens once a second. Latencies
are in the HDR buckets of `latency.bucket`, so that ticks of many processes and seconds can be added
up without loss.
"""

import time
from collections import Counter

import msgspec

from loadlab.record.histogram import bucket
from loadlab.record.schema import HostSample

_HISTOGRAMS = ("response_us", "service_us", "failed_us", "lag_us", "loop_us", "connect_us")


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker on another machine reports of itself and its machine."""

    name: str
    cores: int
    cpu_s: float
    """Of the worker since its start."""
    sample: HostSample
    clock_error_s: float
    """By how much its seconds may differ from the lab's: half of the fastest answer of the lab to
    a question for the time."""


class Tick(msgspec.Struct, kw_only=True):
    """One generator process, one second. Histograms: microseconds (lower edge of the bucket) →
    count."""

    worker: str
    t: int
    """The second [t, t + 1) since the run's start."""
    users: int
    """Alive at the end."""
    first_s: float | None
    """When the first user of all arrived, since the run's start."""
    in_flight: int
    """Requests without an answer at the end."""
    started: int
    intended: dict[int, int]
    """Requests that were sent in this second, by the second that they were meant for."""
    response_us: dict[int, int]
    """Right answers, from the intended start to the last byte."""
    service_us: dict[int, int]
    """The same, from the first byte sent."""
    failed_us: dict[int, int]
    """Everything else, from the intended start to when it was known."""
    lag_us: dict[int, int]
    """How late requests were sent, measured from the intended start: the generator's own fault."""
    loop_us: dict[int, int]
    """How late a timer of 10 ms was."""
    connect_us: dict[int, int]
    """Connections opened."""
    failures: dict[str, int]
    """By kind: connect, reset, timeout, unanswered, status_500, wrong_body, wrong_prediction, …"""
    checked: int
    """Answers that were compared with the expected one, whole."""
    dropped: int
    """Open model: requests that were due while their user still waited; they are sent late, and
    count from when they were due."""
    errors: int
    """Exceptions in a user's code: faults of the generator."""
    cpu_s: float
    """Of the process, in this second."""
    host: Host | None = None
    """None: a worker of the lab's own machine, which the lab watches itself."""


class Ledger:
    """Counters of the running second; `epoch` is when the run started, on this process's monotonic
    clock."""

    def __init__(self, worker: str, epoch: float) -> None:
        self.worker, self.epoch = worker, epoch
        self.users = self.started = self.finished = 0
        self.first_s: float | None = None
        self.checked = self.dropped = self.errors = 0
        self.intended, self.failures = Counter[int](), Counter[str]()
        self.response_us, self.service_us, self.failed_us = (Counter[int]() for _ in range(3))
        self.lag_us, self.loop_us, self.connect_us = (Counter[int]() for _ in range(3))
        self._started_before, self._cpu_s = 0, time.process_time()

    def arrive(self) -> None:
        """A user is there."""
        self.users += 1
        if self.first_s is None:
            self.first_s = time.monotonic() - self.epoch

    def begun(self, due: float) -> None:
        """A request that was due then is sent now."""
        self.started += 1
        self.intended[int(due - self.epoch)] += 1

    def answered(
        self, due: float, sent: float, now: float, *, could: float = 0.0, checked: bool = True
    ) -> None:
        """A right answer; `could`: when the request could be sent at the earliest, if that was
        after it was due."""
        self.finished += 1
        self.checked += checked
        self.response_us[int((now - due) * 1e6)] += 1
        self.service_us[int((now - sent) * 1e6)] += 1
        self.lag_us[max(int((sent - (could or due)) * 1e6), 0)] += 1

    def failed(self, kind: str, due: float, now: float) -> None:
        """A wrong answer, or none."""
        self.finished += 1
        self.checked += kind == "wrong_prediction"
        self.failures[kind] += 1
        self.failed_us[int((now - due) * 1e6)] += 1

    def seconds_left(self) -> float:
        """Until the running second ends: call `tick` then."""
        return 1.0 - (time.monotonic() - self.epoch) % 1.0

    def tick(self) -> Tick:
        """Close the second that has just ended, and begin the next."""
        cpu_s = time.process_time()
        closed = Tick(
            worker=self.worker,
            t=round(time.monotonic() - self.epoch) - 1,
            users=self.users,
            first_s=self.first_s,
            in_flight=self.started - self.finished,
            started=self.started - self._started_before,
            intended=dict(self.intended),
            failures=dict(self.failures),
            checked=self.checked,
            dropped=self.dropped,
            errors=self.errors,
            cpu_s=cpu_s - self._cpu_s,
            **{name: _bucketed(getattr(self, name)) for name in _HISTOGRAMS},  # type: ignore[arg-type]
        )
        self.clear()
        self._cpu_s = cpu_s
        return closed

    def clear(self) -> None:
        """Forget the second's counts; requests on the way stay so."""
        for name in (*_HISTOGRAMS, "intended", "failures"):
            getattr(self, name).clear()
        self.checked = self.dropped = self.errors = 0
        self._started_before = self.started


def _bucketed(counts: Counter[int]) -> dict[int, int]:
    buckets: dict[int, int] = {}
    for value, count in counts.items():
        edge = bucket(value)
        buckets[edge] = buckets.get(edge, 0) + count
    return buckets
