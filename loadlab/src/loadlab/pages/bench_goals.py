"""What the figures are to reach, and whether they do."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadlab.experiments.bench.stored import (
    REGIMES,
    Figures,
    Regime,
    Round,
    Run,
    figures,
    median_cpu_us,
)

OURS = "b"


@dataclass(frozen=True)
class Ratio:
    """CPU time per request of our server over another's."""

    other: str
    regime: Regime
    goal: float | None
    """At most this; None: shown, not judged."""


RATIOS = (
    Ratio("a", "saturated", 2.5),
    Ratio("a2", "saturated", None),
    Ratio("c", "saturated", None),
    Ratio("d", "saturated", 1 / 3),
    Ratio("e", "saturated", 1 / 150),
    Ratio("a", "sparse", 2.5),
    Ratio("a2", "sparse", None),
    Ratio("a3", "sparse", None),
    Ratio("c", "sparse", None),
    Ratio("d", "sparse", None),
)
RECORDED, RECORDED_US = "b2", 10.0
"""Our server with feature catalogue and prediction log, and what both may cost a request,
microseconds of CPU time."""
SPARSE_P99_MS = 5.0


@dataclass(frozen=True)
class Finding:
    """One figure against its goal."""

    text: str
    reached: bool | None
    """None: there is no goal, or nothing to compare."""


def findings(run: Run) -> list[Finding]:
    """What catalogue and log cost, all ratios that the run contains, then latency and failures of
    our server."""
    cells = sorted(
        {(each.regime, each.model) for each in run.rows},
        key=lambda cell: (REGIMES.index(cell[0]), cell[1]),
    )
    found: list[Finding | None] = []
    for regime, model in cells:
        ours = figures(run.rows, server=OURS, model=model, regime=regime)
        found.append(_growth(run.rows, ours, model, regime))
        found += [
            _ratio(run.rows, ratio, ours, model) for ratio in RATIOS if ratio.regime == regime
        ]
        if ours:
            found += _latency_and_failures(ours, regime, model)
    return [finding for finding in found if finding is not None]


def p99_ms(measured: Sequence[Figures]) -> float:
    """The median over the rounds of the 99th percentile, milliseconds."""
    return statistics.median(each.response.quantiles_ms["p99"] for each in measured)


def _ratio(
    rounds: Sequence[Round], ratio: Ratio, ours: Sequence[Figures], model: str
) -> Finding | None:
    """None where the other server was never meant to be measured."""
    if not any(
        (each.server, each.model, each.regime) == (ratio.other, model, ratio.regime)
        for each in rounds
    ):
        return None
    name = f"{ratio.regime}, {model}: {OURS} / {ratio.other}"
    mine = median_cpu_us(ours)
    theirs = median_cpu_us(figures(rounds, server=ratio.other, model=model, regime=ratio.regime))
    if mine is None or theirs is None:
        return Finding(f"{name}: not measured", None)
    value = mine / theirs
    if ratio.goal is None:
        return Finding(f"{name} = {_spell(value)}", None)
    return Finding(
        f"{name} = {_spell(value)} (goal: at most {_spell(ratio.goal)})", value <= ratio.goal
    )


def _growth(
    rounds: Sequence[Round], ours: Sequence[Figures], model: str, regime: Regime
) -> Finding | None:
    """What catalogue and log add; None where they were never meant to be measured."""
    if not any(
        (each.server, each.model, each.regime) == (RECORDED, model, regime) for each in rounds
    ):
        return None
    name = f"{regime}, {model}: {RECORDED} - {OURS}, the feature catalogue and the prediction log"
    measured = figures(rounds, server=RECORDED, model=model, regime=regime)
    with_both, plain = median_cpu_us(measured), median_cpu_us(ours)
    if with_both is None or plain is None:
        return Finding(f"{name}: not measured", None)
    grown = with_both - plain
    failed = sum(each.failed for each in measured)
    text = (
        f"{name}: {grown:+.1f} µs CPU time per request, {failed} failures (goal: at most "
        f"{RECORDED_US:g} µs, none)"
    )
    return Finding(text, grown <= RECORDED_US and not failed)


def _latency_and_failures(ours: Sequence[Figures], regime: Regime, model: str) -> list[Finding]:
    failed, requests = sum(each.failed for each in ours), sum(each.requests for each in ours)
    found = [
        Finding(
            f"{regime}, {model}: {failed} failures (goal: none), {requests:,} right answers",
            failed == 0,
        )
    ]
    if regime == "sparse":
        value = p99_ms(ours)
        found.append(
            Finding(
                f"{regime}, {model}: p99 {value:.2f} ms (goal: at most {SPARSE_P99_MS:g} ms)",
                value <= SPARSE_P99_MS,
            )
        )
    return found


def _spell(ratio: float) -> str:
    return (
        f"{ratio:.2f}" if ratio >= 0.5 else f"1/{1 / ratio:.1f}"
    )  # below a half people read fractions
