"""What a generator counts: one `Ledger` per process, emptied once a second into a `Tick`.

Counting is a few additions per request; everything more expensive happens once a second.
"""

import time
from collections import Counter

import msgspec

from loadlab.record.histogram import pack
from loadlab.record.schema import Counts, HostSample

_HISTOGRAMS = ("response", "service", "failed", "connect", "lag", "loop_lag")


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


class Tick(Counts, kw_only=True, omit_defaults=True):
    """One generator process, one second."""

    worker: str
    first_s: float | None = None
    """When the first user of all arrived, since the run's start."""
    in_flight: int = 0
    """Requests without an answer at the end."""
    late: dict[int, int] = msgspec.field(default_factory=dict)
    """Requests that were sent in this second and meant for an earlier one, by that second."""
    host: Host | None = None
    """None: a worker of the lab's own machine, which the lab watches itself."""


class Ledger:
    """Counters of the running second; `epoch` is when the run started, on this process's monotonic
    clock."""

    def __init__(self, worker: str, epoch: float) -> None:
        self.worker, self.epoch = worker, epoch
        self.users = self.started = self.finished = 0
        self.first_s: float | None = None
        self.checked = self.errors = self._started_before = 0
        self.intended, self.failures = Counter[int](), Counter[str]()
        self.response_us, self.service_us, self.failed_us = (Counter[int]() for _ in range(3))
        self.lag_us, self.loop_lag_us, self.connect_us = (Counter[int]() for _ in range(3))

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
        t = round(time.monotonic() - self.epoch) - 1
        closed = Tick(
            worker=self.worker,
            t=t,
            users=self.users,
            user_errors=self.errors,
            first_s=self.first_s,
            in_flight=self.started - self.finished,
            intended=self.intended.pop(t, 0),
            late=dict(self.intended),
            sent=self.started - self._started_before,
            answered=self.response_us.total(),
            failures=dict(self.failures),
            deep_checked=self.checked,
            opens=self.connect_us.total(),
            **{name: pack(getattr(self, f"{name}_us")) for name in _HISTOGRAMS},  # type: ignore[arg-type]
        )
        self.clear()
        return closed

    def clear(self) -> None:
        """Forget the second's counts; requests on the way stay so."""
        for counts in (*(f"{name}_us" for name in _HISTOGRAMS), "intended", "failures"):
            getattr(self, counts).clear()
        self.checked = self.errors = 0
        self._started_before = self.started
