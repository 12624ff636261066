"""Bench, ablation, ladder and protocols: what their tables show, and what follows from the
figures."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from loadlab.experiments.bench.measure import Figures, Round, Run
from loadlab.experiments.bench.subjects import (
    BOOSTED,
    ENDPOINTS,
    HEAVY,
    PEER_REGIMES,
    PEERS,
    PROTOCOLS,
    QUESTIONS,
    STEPS,
    SUBJECTS,
    VARIANTS,
)
from loadlab.generator.epoll import Regime
from loadlab.pages.template import median, page, ratio
from loadlab.report.page import number

OURS, PYFUNC, NULL_SERVERS = "b", "e", ("a", "a2", "a3")
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
    goals: Mapping[str, float] = {}
    """Of single models, instead."""


RATIOS = (
    Ratio("a", "saturated", 2.5),
    Ratio("a2", "saturated"),
    Ratio("c", "saturated"),
    Ratio("d", "saturated", 1 / 3),
    Ratio(PYFUNC, "saturated", 1 / 150, {BOOSTED: 1 / 20}),
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


class Goal(NamedTuple):
    """CPU time per request of one route over another's."""

    route: str
    other: str
    most: float
    model: str = ""
    """Judged for this model only; empty: for each."""


GOALS = (
    Goal("v2-binary", "v2-json", 0.7, "wide"),
    Goal("invocations", "predict", 1.3),
)


class Server(NamedTuple):
    """The rounds of one server in one table; figures are medians over the rounds that have any."""

    key: str
    title: str
    rounds: list[Round]
    measured: list[Figures]
    all_us: list[float]
    """CPU time per right answer of every round, microseconds."""
    cpu_us: float
    rate_hz: float
    """Right answers a second."""
    ms: dict[str, float]
    """Response time by quantile, milliseconds."""
    peak_mb: float
    throttled: float | None
    """Share of the quota's periods; None without a quota."""
    failures: Counter[str]
    """By kind, of all rounds."""
    reasons: list[str]
    """Why rounds have no figures."""

    @property
    def failed(self) -> bool:
        """So often that its CPU time is compared with nothing."""
        return self.failures.total() > _FEW_FAILURES * sum(each.requests for each in self.measured)


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
    subjects = {
        "bench": SUBJECTS,
        "ablate": VARIANTS,
        "ladder": STEPS,
        "protocols": PROTOCOLS,
        "peers": PEERS,
    }
    return {key: subject.title for key, subject in subjects[run.kind].items()}


def server(run: Run, key: str, regime: Regime, model: str) -> Server:
    """One server; it has no rounds where it was not asked for."""
    wanted = (key, model, regime)
    mine = [each for each in run.rows if (each.server, each.model, each.regime) == wanted]
    found = [each.figures for each in mine if each.figures and each.figures.requests]
    return Server(
        key=key,
        title=titles(run).get(key, ""),
        rounds=mine,
        measured=found,
        all_us=[each.cpu_us for each in found],
        cpu_us=median(each.cpu_us for each in found) or math.nan,
        rate_hz=median(each.requests / each.seconds for each in found) or math.nan,
        ms={
            name: median(each.response.quantiles_ms[name] for each in found) or math.nan
            for name in ("p50", "p95", "p99")
        },
        peak_mb=median(each.memory.peak_bytes / 1e6 for each in found) or math.nan,
        throttled=median(
            usage.throttled_periods / usage.periods
            for usage in (each.usage for each in found)
            if usage.periods
        ),
        failures=sum(
            (Counter(each.failures) + Counter(each.failures_before) for each in found), Counter()
        ),
        reasons=list(dict.fromkeys(each.reason for each in mine if each.reason)),
    )


def panels(run: Run) -> list[Panel]:
    """A table per regime and model, each with every server that was asked for, measured or not."""
    order = list(titles(run))
    cells = {(each.regime, each.model): dict[str, None]() for each in run.rows}
    for each in run.rows:
        cells[each.regime, each.model][each.server] = None
    found = []
    for (regime, model), keys in sorted(
        cells.items(), key=lambda cell: PEER_REGIMES.index(cell[0][0])
    ):
        ordered = sorted(keys, key=lambda key: order.index(key) if key in order else len(order))
        found.append(Panel(regime, model, [server(run, key, regime, model) for key in ordered]))
    return found


def section(run: Run, link: str, picture: str, about: str = "") -> str:
    """A run as a section of docs/benchmarks.md; `link` leads to its file, and `about` says which of
    several of its kind it is."""
    kind, context = run.kind, {"run": run, "link": link, "picture": picture, "about": about}
    doubtful = [each for each in run.rows if each.figures and each.figures.doubts]
    if kind == "ladder":
        said = [(*each, ladder_sentences(each[0])) for each in ladder(run)]
        return page("ladder", **context, ladders=said, doubtful=doubtful)
    says: dict[str, Callable[[Run], Sequence[object]]] = {
        "bench": findings,
        "ablate": worth,
        "protocols": protocol_findings,
    }
    return page(kind, **context, panels=panels(run), doubtful=doubtful, found=says[kind](run))


def findings(run: Run) -> list[Finding]:
    """What catalogue and log cost, all ratios that the run contains, then latency and failures of
    our server."""
    found: list[Finding] = []
    for panel in panels(run):
        ours = server(run, OURS, panel.regime, panel.model)
        others = {each.key: each for each in panel.servers}
        asked = [each for each in RATIOS if each.regime == panel.regime and each.other in others]
        mine = [_growth(ours, others[RECORDED])] if RECORDED in others else []
        mine += [_ratio(each, panel.model, ours, others[each.other]) for each in asked]
        if ours.measured:
            failed, requests = ours.failures.total(), sum(each.requests for each in ours.measured)
            text = f"{failed} failures (goal: none), {requests:,} right answers"
            mine.append(Finding(text, not failed))
        if ours.measured and panel.regime == "sparse":
            text = f"p99 {ours.ms['p99']:.2f} ms (goal: at most {SPARSE_P99_MS:g} ms)"
            mine.append(Finding(text, ours.ms["p99"] <= SPARSE_P99_MS))
        where = f"{panel.regime}, {panel.model}"
        found += [Finding(f"{where}: {each.text}", each.reached) for each in mine]
    return found


def _ratio(asked: Ratio, model: str, ours: Server, other: Server) -> Finding:
    name, goal = f"{OURS} / {asked.other}", asked.goals.get(model, asked.goal)
    if not ours.measured or not other.measured:
        return Finding(f"{name}: not measured")
    if other.failed:
        failed = f"{other.failures.total():,} requests"
        return Finding(f"{name}: no ratio, for {asked.other} failed {failed}")
    value = ours.cpu_us / other.cpu_us
    if goal is None:
        return Finding(f"{name} = {ratio(value)}")
    return Finding(f"{name} = {ratio(value)} (goal: at most {ratio(goal)})", value <= goal)


def _growth(ours: Server, both: Server) -> Finding:
    """What catalogue and log add."""
    name = f"{RECORDED} - {OURS}, the feature catalogue and the prediction log"
    if not ours.measured or not both.measured:
        return Finding(f"{name}: not measured")
    grown, failed = both.cpu_us - ours.cpu_us, both.failures.total()
    cost = f"{grown:+.1f} µs CPU time per request, {failed} failures"
    text = f"{name}: {cost} (goal: at most {RECORDED_US:g} µs, none)"
    return Finding(text, grown <= RECORDED_US and not failed)


def protocol_findings(run: Run) -> list[Finding]:
    """Of the bench of protocols: all ratios that the run contains, and the failures."""
    found = []
    for panel in panels(run):
        found += [_protocol_ratio(panel, goal) for goal in GOALS]
        failed = sum(each.failures.total() for each in panel.servers)
        found.append(Finding(f"{panel.model}: {failed} failures (goal: none)", not failed))
    return found


def _protocol_ratio(panel: Panel, goal: Goal) -> Finding:
    name = f"{panel.model}: {goal.route} / {goal.other}"
    measured = {each.key: each for each in panel.measured}
    if not {goal.route, goal.other} <= measured.keys():
        return Finding(f"{name}: not measured")
    value = measured[goal.route].cpu_us / measured[goal.other].cpu_us
    if goal.model not in ("", panel.model):
        return Finding(f"{name} = {ratio(value)}")
    return Finding(f"{name} = {ratio(value)} (goal: at most {goal.most:g})", value <= goal.most)


def worth(run: Run) -> list[str]:
    """What each default of our server is worth: a sentence per question of the ablation and model
    that the run can answer."""
    models = dict.fromkeys(each.model for each in run.rows)
    answers = []
    for (variant, regime), model in product(QUESTIONS, models):
        ours = server(run, variant.against, regime, model)
        theirs = server(run, variant.key, regime, model)
        if ours.measured and theirs.measured:
            mine, others = ours.all_us, theirs.all_us
            overlap = max(min(mine), min(others)) <= min(max(mine), max(others))
            answers.append((variant, regime, model, ours, theirs, overlap))
    said = page("ablate_said", answers=answers, heavy=HEAVY, noticeable=_NOTICEABLE)
    return said.splitlines()


def ladder(run: Run) -> list[tuple[Panel, Panel]]:
    """The steps of each model, and the endpoints, which are no steps."""
    ends = {step.key for step in ENDPOINTS}
    return [
        (
            panel._replace(servers=[each for each in panel.servers if each.key not in ends]),
            panel._replace(servers=[each for each in panel.servers if each.key in ends]),
        )
        for panel in panels(run)
    ]


def ladder_sentences(steps: Panel) -> list[str]:
    """What the ladder says in words."""
    measured = steps.measured
    if len(measured) < 2:
        return []
    gains = list(pairwise(measured))
    said = page(
        "ladder_said",
        first=measured[0],
        last=measured[-1],
        most=max(gains, key=lambda gain: gain[0].cpu_us - gain[1].cpu_us),
        factors=sorted(gains, key=lambda gain: gain[1].cpu_us / gain[0].cpu_us)[:3],
        costlier=[after for before, after in gains if after.cpu_us > before.cpu_us],
    )
    return said.splitlines()


def boosted_lines(run: Run, link: str) -> list[str]:
    """What a request of boosted trees takes, for the first page."""
    ours, other = (server(run, key, "saturated", BOOSTED) for key in (OURS, PYFUNC))
    if not ours.measured or not other.measured or other.failed:
        return []
    said = f"{number(ours.cpu_us)} µs in Halfcore, {number(other.cpu_us, ',.0f')} µs in FastAPI"
    share = ratio(ours.cpu_us / other.cpu_us)
    about = "CPU time per request of 300 trees of LightGBM"
    return [f"{about}: {said} with `mlflow.pyfunc`: {share}. ([bench, {BOOSTED}]({link}))"]


def ladder_lines(run: Run, link: str) -> list[str]:
    """What all steps from the first service to ours are worth, for the first page."""
    said = [(steps.model, ladder_sentences(steps)) for steps, _ in ladder(run)]
    return [f"{about[0]} ([ladder, {model}]({link}))" for model, about in said if about]
