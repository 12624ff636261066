"""What the live line shows during a run."""

from loadlab.record.form import PhaseName, Sample
from loadlab.record.latency import quantile
from loadlab.report.live import Moment, Ticker
from loadlab.run.book import Book


class View:
    """Feeds the live line, once for every whole second.

    Args:
        ticker: the line.
        users: asked for.
        quota_cores: of all replicas together.
        total_s: how long the run should take.
    """

    def __init__(self, ticker: Ticker, users: int, quota_cores: float, total_s: float) -> None:
        self._ticker, self._users, self._quota_cores, self._total_s = (
            ticker,
            users,
            quota_cores,
            total_s,
        )
        self.phase: PhaseName = "floor"
        self._shown = -1
        self._before: Sample | None = None

    def say(self, sentence: str) -> None:
        """One line that stays."""
        self._ticker.say(sentence)

    def show(self, book: Book, sample: Sample | None) -> None:
        """Show the last whole second, if it has not been shown."""
        if book.whole == self._shown or not (last := book.since(book.whole)):
            return
        self._shown, second = book.whole, last[-1]
        cores, throttled = self._used(sample)
        self._ticker.update(
            Moment(
                phase=self.phase,
                users=second.users,
                users_wanted=self._users,
                left_s=max(self._total_s - book.whole, 0.0),
                offered_hz=second.started,
                achieved_hz=second.answered,
                failures=book.failures.total(),
                p50_ms=second.p_ms(0.5),
                p95_ms=second.p_ms(0.95),
                p99_ms=second.p_ms(0.99),
                cpu_cores=cores,
                quota_cores=self._quota_cores,
                throttled=throttled,
                lag_p99_ms=quantile(second.loop_us, 0.99) / 1000 if second.loop_us else None,
            )
        )

    def _used(self, sample: Sample | None) -> tuple[float | None, float | None]:
        """The server's cores, and share of throttled periods, since the last second shown."""
        before, self._before = self._before, sample
        if (
            not before
            or not sample
            or not before.server
            or not sample.server
            or sample.t <= before.t
        ):
            return None, None
        periods = sample.server.periods - before.server.periods
        throttled = (
            (sample.server.throttled_periods - before.server.throttled_periods) / periods
            if periods > 0
            else None
        )
        return (sample.server.cpu_s - before.server.cpu_s) / (sample.t - before.t), throttled
