"""A run as it passes: ticks become seconds of the record, the last seconds decide whether to go on,
and the live line shows them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from loadlab.generator.ledger import Tick
from loadlab.record.criteria import Objective
from loadlab.record.histogram import pack, quantile
from loadlab.record.schema import EndKind, PhaseName, Sample, Second, Series
from loadlab.record.store import Recorder
from loadlab.report.page import number
from loadlab.report.terminal import Ticker
from loadlab.verdict.steadiness import Window

HUNG_S = 15
_ERROR_SHARE, _ERROR_S = 0.05, 5
_SLOW_TIMES, _SLOW_S = 10, 10


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

    def add(self, tick: Tick) -> None:
        """Count what one worker reported."""
        self.users += tick.users
        self.in_flight += tick.in_flight
        self.started += tick.started
        self.answered += sum(tick.response_us.values())
        self.failed += sum(tick.failures.values())
        self.timeouts += tick.failures.get("timeout", 0)
        self.response_us.update(tick.response_us)
        self.loop_us.update(tick.loop_us)

    @property
    def silent(self) -> bool:
        """Whether the server, though asked, answered nothing, rightly or wrongly."""
        asked = bool(self.in_flight or self.timeouts)
        return not self.answered and self.failed == self.timeouts and asked

    def p_ms(self, q: float) -> float | None:
        """A quantile of the right answers, milliseconds."""
        return quantile(self.response_us, q) / 1000 if self.response_us else None


class Book:
    """Keeps the users' seconds as they arrive.

    Args:
        recorder: takes every second at once.
        workers: how many ticks make a second whole.
        before: the book whose phases continue here.
    """

    def __init__(self, recorder: Recorder, workers: int, before: "Book | None" = None) -> None:
        self._recorder, self._workers = recorder, workers
        self.phases: list[tuple[float, PhaseName]] = list(before.phases) if before else []
        self._reports: Counter[int] = Counter()
        self._witnessed: Counter[int] = Counter()
        self.moments: dict[int, Moment] = {}
        self.failures: Counter[str] = Counter()
        self.first_s: float | None = None
        """When the first user arrived."""
        self.ramp_users = 0
        """Users that the ramp shall bring; it begins when the first of them arrives."""

    def begin(self, name: PhaseName, at_s: float, users: int = 0) -> None:
        """A phase begins; seconds belong to the phase in which they began, a second that is cut to
        the one that cuts it."""
        self.phases.append((at_s, name))
        self._recorder.begin(name, at_s, users)

    def phase(self, t: int) -> PhaseName:
        """The phase of second `t`."""
        begun = (name for at_s, name in reversed(self.phases) if int(at_s) <= t)
        return next(begun, self.phases[0][1])

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
        seconds = range(max(t, 0), self.whole + 1)
        return [self.moments[each] for each in seconds if each in self.moments]

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
        self.moments.setdefault(tick.t, Moment()).add(tick)
        self.failures.update(tick.failures)
        if self.first_s is None and tick.first_s is not None:
            self.first_s = tick.first_s
            self.begin("ramp", tick.first_s, self.ramp_users)
        self._reports[tick.t] += 1

    def _write(self, tick: Tick, series: Series) -> None:
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
        for t, count in tick.intended.items():
            if t != tick.t:  # requests that were meant for an earlier second
                self._recorder.second(
                    Second(t=t, series=series, phase=self.phase(t), intended=count)
                )


class Fault(Exception):
    """The run ends here.

    Args:
        kind: as the record names it.
        sentence: for people.
    """

    def __init__(self, kind: EndKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


def hopeless(moments: Sequence[Moment], objective: Objective, witnessed: int = 0) -> Fault | None:
    """Why the run cannot succeed any more, by its last whole seconds; None: continue.

    A server that answered nothing for `HUNG_S` seconds although asked hangs, unless it answered the
    witness: then it is the generator that does. Time-outs alone are no errors to stop for: they
    begin before that time is over. A server with more than 5 % errors for 5 s, or with a p95 of ten
    times the objective for 10 s, will not meet its objective any more: the run ends, so that a
    search over many tiers takes no hours.
    """
    last = moments[-HUNG_S:]
    if len(last) == HUNG_S and all(each.silent for each in last) and not witnessed:
        waiting = max(each.in_flight for each in last)
        return Fault(
            "server_hung",
            f"the server gave no answer for {HUNG_S} s while up to {waiting:,} requests waited",
        )
    last = moments[-_ERROR_S:]
    over = [each.failed > _ERROR_SHARE * (each.answered + each.failed) for each in last]
    if len(last) == _ERROR_S and all(over) and not all(each.silent for each in last):
        failed = sum(each.failed for each in last)
        share = failed / (failed + sum(each.answered for each in last))
        return Fault(
            "aborted",
            f"stopped early: {share:.0%} of the answers of the last {_ERROR_S} s were errors",
        )
    if objective.p95_ms is not None:
        too_slow_ms = _SLOW_TIMES * objective.p95_ms
        p95s = [each.p_ms(0.95) for each in moments[-_SLOW_S:]]
        if len(p95s) == _SLOW_S and all(p95 is not None and p95 > too_slow_ms for p95 in p95s):
            return Fault(
                "aborted", f"stopped early: p95 was above {too_slow_ms:g} ms for {_SLOW_S} s"
            )
    return None


@dataclass
class View:
    """Feeds the live line, once for every whole second."""

    ticker: Ticker
    users: int
    """Asked for."""
    quota_cores: float
    """Of all replicas together."""
    total_s: float
    """How long the run should take."""
    phase: PhaseName = "floor"
    _shown: int = -1
    _before: Sample | None = None

    def show(self, book: Book, sample: Sample | None) -> None:
        """Show the last whole second, if it has not been shown."""
        second = book.moments.get(book.whole)
        if second is None or book.whole == self._shown:
            return
        self._shown = book.whole
        line = self._line(second, book.failures.total(), *self._used(sample))
        self.ticker.update(self.phase, line)

    def _line(
        self, second: Moment, failures: int, cores: float | None, throttled: float | None
    ) -> Text:
        """What is not known is a dash."""
        latencies = "/".join(number(second.p_ms(q), ".1f") for q in (0.5, 0.95, 0.99))
        lag_ms = quantile(second.loop_us, 0.99) / 1000 if second.loop_us else None
        minutes, seconds = divmod(int(max(self.total_s - self._shown, 0.0)), 60)
        return Text.assemble(
            (f"{self.phase:<8}", "bold"),
            f" users {second.users:,}/{self.users:,}",
            f" · {second.started:,} → {second.answered:,} req/s · p50/95/99 {latencies} ms",
            f" · cpu {number(cores, '.2f')}/{self.quota_cores:.3g}",
            (f" · throttled {number(throttled, '.0%')}", "yellow" if throttled else ""),
            f" · lag {number(lag_ms, '.1f')} ms",
            (f" · failed {failures:,}", "bold red" if failures else ""),
            (f" · {minutes}:{seconds:02} left", "dim"),
        )

    def _used(self, sample: Sample | None) -> tuple[float | None, float | None]:
        """The server's cores, and share of throttled periods, since the last second shown."""
        then, self._before = self._before, sample
        if not (sample and sample.server and then and then.server and sample.t > then.t):
            return None, None
        now, before = sample.server, then.server
        periods = now.periods - before.periods
        throttled = now.throttled_periods - before.throttled_periods
        cores = (now.cpu_s - before.cpu_s) / (sample.t - then.t)
        return cores, throttled / periods if periods > 0 else None
