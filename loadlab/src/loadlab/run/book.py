"""From ticks to the record: which phase a second belongs to, what the last seconds were like, and
what the live line shows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from loadlab.generator.ledger import Tick
from loadlab.record.form import PhaseName, Second, Series
from loadlab.record.latency import quantile
from loadlab.record.packed import pack
from loadlab.record.write import Recorder
from loadlab.verdict.steadiness import Window


@dataclass
class Moment:
    """One second of all workers together."""

    users: int = 0
    in_flight: int = 0
    started: int = 0
    answered: int = 0
    failed: int = 0
    timeouts: int = 0
    """Of those that failed: no byte arrived."""
    response_us: Counter[int] = field(default_factory=Counter)
    loop_us: Counter[int] = field(default_factory=Counter)

    @property
    def silent(self) -> bool:
        """Whether the server, though asked, answered nothing, rightly or wrongly."""
        return (
            not self.answered
            and self.failed == self.timeouts
            and bool(self.in_flight or self.timeouts)
        )

    def p_ms(self, q: float) -> float | None:
        """A quantile of the right answers, milliseconds."""
        return quantile(self.response_us, q) / 1000 if self.response_us else None


class Book:
    """Keeps the users' seconds as they arrive.

    Args:
        recorder: takes every second at once.
        workers: how many ticks make a second whole.
    """

    def __init__(self, recorder: Recorder, workers: int) -> None:
        self._recorder, self._workers = recorder, workers
        self._phases: list[tuple[float, PhaseName]] = []
        self._reports: Counter[int] = Counter()
        self.moments: dict[int, Moment] = {}
        self.failures: Counter[str] = Counter()
        self._witnessed: Counter[int] = Counter()
        self.first_s: float | None = None
        """When the first user arrived."""
        self.ramp_users = 0
        """Users that the ramp shall bring; it begins when the first of them arrives."""

    def begin(self, name: PhaseName, at_s: float, users: int = 0) -> None:
        """A phase begins; seconds belong to the phase in which they began, a second that is cut to
        the one that cuts it."""
        self._phases.append((at_s, name))
        self._recorder.begin(name, at_s, users)

    def begin_as(self, other: "Book") -> None:
        """Take over the phases that another book has begun."""
        self._phases = list(other._phases)  # noqa: SLF001  of the same class

    def phase(self, t: int) -> PhaseName:
        """The phase of second `t`."""
        return next(
            (name for at_s, name in reversed(self._phases) if int(at_s) <= t), self._phases[0][1]
        )

    def take(self, ticks: Iterable[Tick], series: Series = "users") -> None:
        """Write ticks down; those of users are also remembered."""
        for tick in ticks:
            if series == "users":
                self._remember(tick)
            elif series == "witness":
                self._witnessed[tick.t] += sum(tick.response_us.values())
            self._write(tick, series)

    @property
    def whole(self) -> int:
        """The last second of which every worker has reported; -1 before the first."""
        return max((t for t, count in self._reports.items() if count >= self._workers), default=-1)

    @property
    def next(self) -> int:
        """The first second that no worker has reported yet: a phase may begin there."""
        return max(self._reports, default=-1) + 1

    def since(self, t: int) -> list[Moment]:
        """Whole seconds from `t` on."""
        return [
            self.moments[each] for each in range(max(t, 0), self.whole + 1) if each in self.moments
        ]

    def witnessed(self, t: int) -> int:
        """Right answers that the witness got since second `t`."""
        return sum(count for at, count in self._witnessed.items() if at >= t)

    def windows(self, start: int, seconds: int) -> list[Window]:
        """The seconds since `start` in windows, as the rules look at them."""
        found = []
        for first in range(start, self.whole + 2 - seconds, seconds):
            inside = [self.moments[t] for t in range(first, first + seconds) if t in self.moments]
            responses = sum((each.response_us for each in inside), Counter())
            p95 = quantile(responses, 0.95) / 1000 if responses else None
            found.append(Window(seconds, sum(each.answered for each in inside), p95))
        return found

    def _remember(self, tick: Tick) -> None:
        moment = self.moments.setdefault(tick.t, Moment())
        moment.users += tick.users
        moment.in_flight += tick.in_flight
        moment.started += tick.started
        moment.answered += sum(tick.response_us.values())
        moment.failed += sum(tick.failures.values())
        moment.timeouts += tick.failures.get("timeout", 0)
        moment.response_us.update(tick.response_us)
        moment.loop_us.update(tick.loop_us)
        self.failures.update(tick.failures)
        if self.first_s is None and tick.first_s is not None:
            self.first_s = tick.first_s
            self.begin("ramp", tick.first_s, self.ramp_users)
        self._reports[tick.t] += 1

    def _write(self, tick: Tick, series: Series) -> None:
        late = {t: count for t, count in tick.intended.items() if t != tick.t}
        self._recorder.second(
            Second(
                t=tick.t,
                series=series,
                phase=self.phase(tick.t),
                users=tick.users if series == "users" else None,
                user_errors=tick.errors,
                intended=tick.intended.get(tick.t, 0),
                sent=tick.started,
                answered=sum(tick.response_us.values()),
                failures=tick.failures,
                deep_checked=tick.checked,
                opens=sum(tick.connect_us.values()),
                response=pack(tick.response_us),
                service=pack(tick.service_us),
                failed=pack(tick.failed_us),
                connect=pack(tick.connect_us),
                lag=pack(tick.lag_us),
                loop_lag=pack(tick.loop_us),
            )
        )
        for t, count in late.items():  # requests that were meant for an earlier second
            self._recorder.second(Second(t=t, series=series, phase=self.phase(t), intended=count))
