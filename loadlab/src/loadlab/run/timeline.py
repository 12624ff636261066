"""A run as it passes: ticks become seconds of the record, the last seconds decide whether to go on,
and the live line shows them."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadlab.generator.ledger import Tick
from loadlab.record.histogram import merge
from loadlab.record.schema import Counts, EndKind, Objective, PhaseName, Sample, Second, Series
from loadlab.record.store import Recorder
from loadlab.report.page import number
from loadlab.report.terminal import say
from loadlab.verdict.figures import answered, done, failed, quantile_ms, response_ms
from loadlab.verdict.objective import TOO_SLOW_S, TOO_SLOW_TIMES

HUNG_S = 15
_ERROR_SHARE, _ERROR_S = 0.05, 5
_PRINT_EVERY_S = 10.0


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
        self._witnessed: Counter[int] = Counter()
        self._seconds: dict[int, list[Tick]] = {}
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
                self._witnessed[tick.t] += tick.answered
            self._write(tick, series)

    @property
    def whole(self) -> int:
        """The last second of which every worker has reported; -1 before the first."""
        reported = (t for t, ticks in self._seconds.items() if len(ticks) >= self._workers)
        return max(reported, default=-1)

    @property
    def next(self) -> int:
        """The first second that no worker has reported yet: a phase may begin there."""
        return max(self._seconds, default=-1) + 1

    def since(self, t: int) -> list[list[Tick]]:
        """All workers' ticks of each whole second from `t` on."""
        seconds = range(max(t, 0), self.whole + 1)
        return [self._seconds[each] for each in seconds if each in self._seconds]

    def witnessed(self, t: int) -> int:
        """Right answers that the witness got since second `t`."""
        return sum(count for at, count in self._witnessed.items() if at >= t)

    def _remember(self, tick: Tick) -> None:
        self._seconds.setdefault(tick.t, []).append(tick)
        self.failures.update(tick.failures)
        if self.first_s is None and tick.first_s is not None:
            self.first_s = tick.first_s
            self.begin("ramp", tick.first_s, self.ramp_users)

    def _write(self, tick: Tick, series: Series) -> None:
        counts = {name: getattr(tick, name) for name in Counts.__struct_fields__}
        if series != "users":
            counts["users"] = None
        self._recorder.second(Second(**counts, series=series, phase=self.phase(tick.t)))
        for t, count in tick.late.items():
            late = Second(t=t, series=series, phase=self.phase(t), intended=count)
            self._recorder.second(late)


class Fault(Exception):
    """The run ends here.

    Args:
        kind: as the record names it.
        sentence: for people.
    """

    def __init__(self, kind: EndKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


def hopeless(
    seconds: Sequence[Sequence[Tick]], objective: Objective, witnessed: int = 0
) -> Fault | None:
    """Why the run cannot succeed any more, by its last whole seconds; None: continue.

    A server that answered nothing for `HUNG_S` seconds although asked hangs, unless it answered the
    witness: then it is the generator that does. Time-outs alone are no errors to stop for: they
    begin before that time is over. A server with more than 5 % errors for 5 s, or with a p95 of ten
    times the objective for 10 s, will not meet its objective any more: the run ends, so that a
    search over many tiers takes no hours.
    """
    last = seconds[-HUNG_S:]
    if len(last) == HUNG_S and all(map(_silent, last)) and not witnessed:
        waiting = max(sum(tick.in_flight for tick in each) for each in last)
        return Fault(
            "server_hung",
            f"the server gave no answer for {HUNG_S} s while up to {waiting:,} requests waited",
        )
    last = seconds[-_ERROR_S:]
    over = [failed(each) > _ERROR_SHARE * done(each) for each in last]
    if len(last) == _ERROR_S and all(over) and not all(map(_silent, last)):
        share = sum(map(failed, last)) / sum(map(done, last))
        return Fault(
            "aborted",
            f"stopped early: {share:.0%} of the answers of the last {_ERROR_S} s were errors",
        )
    if objective.p95_ms is not None:
        too_slow_ms = TOO_SLOW_TIMES * objective.p95_ms
        p95s = [response_ms(each, 0.95) for each in seconds[-TOO_SLOW_S:]]
        if len(p95s) == TOO_SLOW_S and all(p95 is not None and p95 > too_slow_ms for p95 in p95s):
            return Fault(
                "aborted", f"stopped early: p95 was above {too_slow_ms:g} ms for {TOO_SLOW_S} s"
            )
    return None


def _silent(second: Sequence[Tick]) -> bool:
    """Whether the server, though asked, answered nothing, rightly or wrongly."""
    timeouts = sum(tick.failures.get("timeout", 0) for tick in second)
    asked = timeouts or any(tick.in_flight for tick in second)
    return bool(asked) and done(second) == timeouts


class LiveLine:
    """How a run goes, on a console: a line that is updated on a terminal; elsewhere a line at a
    phase's begin and every 10 s. With stderr, stdout stays free for the result.

    Args:
        users: asked for.
        quota_cores: of all replicas together.
        total_s: how long the run should take.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        users: int,
        quota_cores: float,
        total_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._clock = console, clock
        self._users, self._quota_cores, self._total_s = users, quota_cores, total_s
        live = Live(console=console, auto_refresh=False, transient=True)
        self._live = live if console.is_terminal else None
        self._printed: tuple[float, str] = float("-inf"), ""
        self.phase: PhaseName = "floor"
        self._shown = -1
        self._before: Sample | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """One line that stays: a phase's end, a warning."""
        say(self._console, sentence)

    def show(self, book: Book, sample: Sample | None) -> None:
        """Show the last whole second, if it has not been shown."""
        if book.whole in {-1, self._shown}:
            return
        self._shown = book.whole
        (second,) = book.since(book.whole)
        line = self._line(second, book.failures.total(), *self._used(sample))
        if self._live:
            self._live.update(line, refresh=True)
            return
        now, (at, phase) = self._clock(), self._printed
        if phase != self.phase or now - at >= _PRINT_EVERY_S:
            self._printed = now, self.phase
            self._console.print(line, soft_wrap=True, highlight=False)

    def _line(
        self, second: Sequence[Tick], failures: int, cores: float | None, throttled: float | None
    ) -> Text:
        """What is not known is a dash."""
        latencies = "/".join(number(response_ms(second, q), ".1f") for q in (0.5, 0.95, 0.99))
        lag_ms = quantile_ms(merge(tick.loop_lag for tick in second), 0.99)
        users, sent = (sum(map(attrgetter(name), second)) for name in ("users", "sent"))
        minutes, seconds = divmod(int(max(self._total_s - self._shown, 0.0)), 60)
        return Text.assemble(
            (f"{self.phase:<8}", "bold"),
            f" users {users:,}/{self._users:,}",
            f" · {sent:,} → {answered(second):,} req/s · p50/95/99 {latencies} ms",
            f" · cpu {number(cores, '.2f')}/{self._quota_cores:.3g}",
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
