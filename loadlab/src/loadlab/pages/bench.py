"""Bench, ablation and ladder: what their tables show, and what follows from the figures."""

import statistics
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from loadlab.experiments.bench.ladder import ENDPOINTS, LADDER
from loadlab.experiments.bench.subjects import SUBJECTS
from loadlab.experiments.bench.variants import HEAVY, QUESTIONS, VARIANTS, Question
from loadlab.pages.template import page, ratio
from loadlab.record.store import REGIMES, Figures, Regime, Round, Run, figures

OURS, NULL_SERVERS = "b", ("a", "a2", "a3")
RECORDED, RECORDED_US = "b2", 10.0
"""Our server with feature catalogue and prediction log, and what both may cost a request,
microseconds of CPU time."""
SPARSE_P99_MS = 5.0
_NOTICEABLE = 0.02
"""Differences below 2 % are called none."""
_FEW_FAILURES = 0.01
"""Share of failures up to which CPU time per right answer can be compared: what failed has used CPU
time too."""


class Ratio(NamedTuple):
    """CPU time per request of our server over another's."""

    other: str
    regime: Regime
    goal: float | None = None
    """At most this; None: shown, not judged."""


RATIOS = (
    Ratio("a", "saturated", 2.5),
    Ratio("a2", "saturated"),
    Ratio("c", "saturated"),
    Ratio("d", "saturated", 1 / 3),
    Ratio("e", "saturated", 1 / 150),
    Ratio("a", "sparse", 2.5),
    Ratio("a2", "sparse"),
    Ratio("a3", "sparse"),
    Ratio("c", "sparse"),
    Ratio("d", "sparse"),
)


class Finding(NamedTuple):
    """One figure against its goal."""

    text: str
    reached: bool | None = None
    """None: there is no goal, or nothing to compare."""


class Server(NamedTuple):
    """The rounds of one server in one table; medians are over those with figures."""

    key: str
    title: str
    rounds: list[Round]
    measured: list[Figures]

    def median(self, read: Callable[[Figures], float]) -> float:
        """Over the rounds."""
        return statistics.median(map(read, self.measured))

    def ms(self, quantile: str) -> float:
        """Response time, milliseconds."""
        return self.median(lambda each: each.response.quantiles_ms[quantile])

    @property
    def cpu_us(self) -> float:
        """CPU time per right answer, microseconds."""
        return self.median(lambda each: each.cpu_us)

    @property
    def all_us(self) -> list[float]:
        """CPU time per right answer of every round."""
        return [each.cpu_us for each in self.measured]

    @property
    def rate_hz(self) -> float:
        """Right answers a second."""
        return self.median(lambda each: each.requests / each.seconds)

    @property
    def peak_mb(self) -> float:
        """Memory."""
        return self.median(lambda each: each.memory.peak_bytes / 1e6)

    @property
    def throttled(self) -> float | None:
        """Share of the quota's periods; None without a quota."""
        used = [each.usage for each in self.measured if each.usage.periods]
        shares = [each.throttled_periods / each.periods for each in used]
        return statistics.median(shares) if shares else None

    @property
    def failures(self) -> Counter[str]:
        """By kind, of all rounds."""
        kinds: Counter[str] = Counter()
        for each in self.measured:
            kinds.update(each.failures)
            kinds.update(each.failures_before)
        return kinds

    @property
    def failed(self) -> bool:
        """So often that its CPU time is compared with nothing."""
        return self.failures.total() > _FEW_FAILURES * sum(each.requests for each in self.measured)

    @property
    def reasons(self) -> list[str]:
        """Why rounds have no figures."""
        return list(dict.fromkeys(each.reason for each in self.rounds if each.reason))


class Panel(NamedTuple):
    """One table."""

    regime: Regime
    model: str
    servers: list[Server]

    @property
    def measured(self) -> list[Server]:
        """Those with figures."""
        return [each for each in self.servers if each.measured]

    @property
    def null_us(self) -> float | None:
        """CPU time per request of the null server that takes the least."""
        return min(
            (each.cpu_us for each in self.measured if each.key in NULL_SERVERS), default=None
        )


def titles(run: Run) -> dict[str, str]:
    """What each server of a run is, by its key, in the tables' order."""
    if run.what == "bench":
        return {key: subject.title for key, subject in SUBJECTS.items()}
    if run.what == "ladder":
        return {step.key: step.change for step in (*LADDER, *ENDPOINTS)}
    return {
        name: " ".join(f"`{key}={value}`" for key, value in variant.environment.items())
        or "as it is"
        for name, variant in VARIANTS.items()
    }


def server(run: Run, key: str, regime: Regime, model: str) -> Server:
    """One server; it has no rounds where it was not asked for."""
    wanted = (key, model, regime)
    mine = [each for each in run.rounds if (each.server, each.model, each.regime) == wanted]
    measured = figures(mine, server=key, model=model, regime=regime)
    return Server(key, titles(run).get(key, ""), mine, measured)


def panels(run: Run) -> list[Panel]:
    """A table per regime and model, each with every server that was asked for, measured or not."""
    order, every = list(titles(run)), run.rounds
    found = []
    for regime in REGIMES:
        for model in dict.fromkeys(each.model for each in every if each.regime == regime):
            keys = dict.fromkeys(
                each.server for each in every if (each.regime, each.model) == (regime, model)
            )
            ordered = sorted(keys, key=lambda key: order.index(key) if key in order else len(order))
            servers = [server(run, key, regime, model) for key in ordered]
            found.append(Panel(regime, model, servers))
    return found


def section(run: Run, link: str, picture: str) -> str:
    """A run as a section of docs/benchmarks.md; `link` leads to its file."""
    kind, context = run.what, {"run": run, "link": link, "picture": picture}
    doubtful = [each for each in run.rounds if each.figures and each.figures.doubts]
    if kind == "ladder":
        said = [(*each, ladder_sentences(each[0])) for each in ladder(run)]
        return page("ladder", **context, ladders=said, doubtful=doubtful)
    more = {"findings": findings(run)} if kind == "bench" else {"worth": worth(run)}
    return page(kind, **context, panels=panels(run), doubtful=doubtful, **more)


def findings(run: Run) -> list[Finding]:
    """What catalogue and log cost, all ratios that the run contains, then latency and failures of
    our server."""
    found: list[Finding] = []
    for panel in panels(run):
        ours = server(run, OURS, panel.regime, panel.model)
        others = {each.key: each for each in panel.servers}
        where = f"{panel.regime}, {panel.model}"
        if RECORDED in others:
            found.append(_growth(where, ours, others[RECORDED]))
        found += [
            _ratio(where, each, ours, others[each.other])
            for each in RATIOS
            if each.regime == panel.regime and each.other in others
        ]
        if ours.measured:
            failed, requests = ours.failures.total(), sum(each.requests for each in ours.measured)
            text = f"{where}: {failed} failures (goal: none), {requests:,} right answers"
            found.append(Finding(text, not failed))
        if ours.measured and panel.regime == "sparse":
            text = f"{where}: p99 {ours.ms('p99'):.2f} ms (goal: at most {SPARSE_P99_MS:g} ms)"
            found.append(Finding(text, ours.ms("p99") <= SPARSE_P99_MS))
    return found


def _ratio(where: str, asked: Ratio, ours: Server, other: Server) -> Finding:
    name = f"{where}: {OURS} / {asked.other}"
    if not ours.measured or not other.measured:
        return Finding(f"{name}: not measured")
    if other.failed:
        return Finding(
            f"{name}: no ratio, for {asked.other} failed {other.failures.total():,} requests"
        )
    value = ours.cpu_us / other.cpu_us
    if asked.goal is None:
        return Finding(f"{name} = {ratio(value)}")
    text = f"{name} = {ratio(value)} (goal: at most {ratio(asked.goal)})"
    return Finding(text, value <= asked.goal)


def _growth(where: str, ours: Server, both: Server) -> Finding:
    """What catalogue and log add."""
    name = f"{where}: {RECORDED} - {OURS}, the feature catalogue and the prediction log"
    if not ours.measured or not both.measured:
        return Finding(f"{name}: not measured")
    grown, failed = both.cpu_us - ours.cpu_us, both.failures.total()
    text = (
        f"{name}: {grown:+.1f} µs CPU time per request, {failed} failures (goal: at most "
        f"{RECORDED_US:g} µs, none)"
    )
    return Finding(text, grown <= RECORDED_US and not failed)


def worth(run: Run) -> list[str]:
    """What each default of our server is worth: a sentence per question of the ablation and model
    that the run can answer."""
    models = dict.fromkeys(each.model for each in run.rounds)
    answers = [_answer(run, question, model) for question in QUESTIONS for model in models]
    return [answer for answer in answers if answer]


def _answer(run: Run, question: Question, model: str) -> str:
    chosen, other = (
        server(run, key, question.regime, model) for key in (question.chosen, question.other)
    )
    if not chosen.measured or not other.measured:
        return ""
    change, goal = chosen.cpu_us / other.cpu_us - 1, ""
    if (question.other, model) == ("batching off", HEAVY):
        times = chosen.rate_hz / other.rate_hz
        reached = times >= 2 and chosen.ms("p99") <= other.ms("p99")
        goal = (
            f" ({'reached' if reached else '**short**'}: {times:.2f} × the throughput; "
            "goal: 2 × at a p99 no worse)"
        )
    difference = f"{abs(change):.0%} {'less' if change < 0 else 'more'}"
    if abs(change) < _NOTICEABLE:
        difference = "no difference"
    ours, theirs = chosen.all_us, other.all_us
    overlap = max(min(ours), min(theirs)) <= min(max(ours), max(theirs))
    return (
        f"{question.setting} ({question.regime}, {model}): {chosen.cpu_us:.1f} µs/request against "
        f"{other.cpu_us:.1f} µs with “{question.other}”, "
        f"{difference}{' (the rounds overlap)' if overlap else ''}; "
        f"{chosen.rate_hz:,.0f} against {other.rate_hz:,.0f} requests/s, p99 "
        f"{chosen.ms('p99'):.2f} against {other.ms('p99'):.2f} ms{goal}."
    )


def ladder(run: Run) -> list[tuple[Panel, Panel]]:
    """The steps of each model, and the endpoints, which are no steps."""
    found = []
    for regime, model, servers in panels(run):
        ends = [each for each in servers if each.key in {step.key for step in ENDPOINTS}]
        steps = [each for each in servers if each not in ends]
        found.append((Panel(regime, model, steps), Panel(regime, model, ends)))
    return found


def ladder_sentences(steps: Panel) -> list[str]:
    """What the ladder says in words."""
    measured = steps.measured
    if len(measured) < 2:
        return []
    first, last, gains = measured[0], measured[-1], list(pairwise(measured))
    before, after = max(gains, key=lambda gain: gain[0].cpu_us - gain[1].cpu_us)
    most, whole = before.cpu_us - after.cpu_us, first.cpu_us - last.cpu_us
    factors = sorted(gains, key=lambda gain: gain[1].cpu_us / gain[0].cpu_us)[:3]
    listed = ", ".join(f"`{new.key}` {old.cpu_us / new.cpu_us:.2f} ×" for old, new in factors)
    span = (
        f"CPU time per request: {first.cpu_us:,.0f} µs in `{first.key}`, {last.cpu_us:,.1f} µs in "
        f"`{last.key}`, a {first.cpu_us / last.cpu_us:,.0f}th; requests/s on one core: "
        f"{first.rate_hz:,.0f} and {last.rate_hz:,.0f}."
    )
    found = [
        span,
        f"Most microseconds: `{after.key}` saves {most:,.0f} of {whole:,.0f} ({most / whole:.0%}).",
        f"Largest factors: {listed}.",
    ]
    if costlier := [f"`{new.key}`" for old, new in gains if new.cpu_us > old.cpu_us]:
        found.append(f"Steps that cost rather than saved: {', '.join(costlier)}.")
    return found


def ladder_lines(run: Run, link: str) -> list[str]:
    """What all steps from the first service to ours are worth, for the first page."""
    said = [(steps.model, ladder_sentences(steps)) for steps, _ in ladder(run)]
    return [f"{about[0]} ([ladder, {model}]({link}))" for model, about in said if about]
