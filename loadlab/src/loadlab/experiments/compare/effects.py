"""What a comparison says: per measure the ratio of the sides, from blocks in which both were
measured validly."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from loadlab.experiments.compare.form import Comparison, Trial
from loadlab.verdict.stats import Interval, paired_ratio

MEASURES = (
    ("cpu_us", "CPU time per right answer", False),
    ("p99_ms", "p99", True),
    ("memory_mib", "memory peak", True),
)
"""Field of a trial, name, and whether a server that failed shows a lower bound of it: with more
time it would take more. Its CPU time includes the overload, and bounds nothing."""
ENOUGH = 5
"""With fewer blocks an interval is shown, but nothing is concluded from it."""
_ATTEMPTED = ("PASS", "FAIL")


@dataclass(frozen=True)
class Effect:
    """One measure: how many times the baseline's value is of halfcore's."""

    name: str
    pairs: Sequence[tuple[float, float]]
    """(halfcore, baseline) of each block that counts."""
    failed: int
    """Of these blocks, those in which the baseline failed: the ratio is at least what is shown."""
    ratio: Interval | None
    """With its 95 % bootstrap interval over the blocks; None without any pair."""

    @property
    def text(self) -> str:
        """The ratio; a lower bound as such."""
        return f"{'≥ ' if self.failed else ''}{times(self.ratio.estimate)}" if self.ratio else "–"


def effects(comparison: Comparison) -> list[Effect]:
    """All measures, from blocks in which halfcore passed: the figures of a server that failed
    cannot be divided by. The same comparison gives the same intervals."""
    found = []
    for field, name, bounds in MEASURES:
        counted = [
            (getattr(ours, field), getattr(theirs, field), theirs.outcome)
            for ours, theirs in valid_blocks(comparison)
            if ours.outcome == "PASS" and (bounds or theirs.outcome == "PASS")
        ]
        known = [each for each in counted if each[0] and each[1]]
        pairs = tuple((ours, theirs) for ours, theirs, _ in known)
        failed = sum(outcome == "FAIL" for _, _, outcome in known)
        interval = _ratio(pairs, comparison.seed) if pairs else None
        found.append(Effect(name, pairs, failed, interval))
    return found


@cache
def _ratio(pairs: tuple[tuple[float, float], ...], seed: int) -> Interval:
    """Kept: a page asks several times for what takes 10,000 resamples."""
    return paired_ratio(pairs, seed=seed)


def valid_blocks(comparison: Comparison) -> list[tuple[Trial, Trial]]:
    """(halfcore, baseline) of every block in which both runs say something about the server."""
    blocks = []
    for number in range(1, comparison.blocks + 1):
        sides = {trial.side: trial for trial in comparison.trials if trial.block == number}
        ours, theirs = sides.get("halfcore"), sides.get(comparison.against)
        if ours and theirs and ours.outcome in _ATTEMPTED and theirs.outcome in _ATTEMPTED:
            blocks.append((ours, theirs))
    return blocks


def sentences(comparison: Comparison) -> list[str]:
    """What may be said, the baseline's failure and what is missing included."""
    said = [_outcomes(comparison, side) for side in ("halfcore", comparison.against)]
    blocks = len(valid_blocks(comparison))
    if not blocks:
        return [*said, "No block in which both sides were measured validly: there is no ratio."]
    said += [_effect(effect, comparison.against) for effect in effects(comparison)]
    if blocks < ENOUGH:
        said.append(
            f"Only {blocks} of at least {ENOUGH} blocks are valid on both sides: nothing is "
            "concluded."
        )
    return said


def _effect(effect: Effect, against: str) -> str:
    if effect.ratio is None:
        bounds = next(bounds for _, name, bounds in MEASURES if name == effect.name)
        needed = "halfcore" if bounds else "both sides"
        return f"{effect.name}: no ratio, for it needs blocks in which {needed} passed."
    reason = (
        f"; {against} failed in {effect.failed} of them, so its figure is a lower bound"
        if effect.failed
        else ""
    )
    return (
        f"{effect.name}: {against} takes {effect.text} × of halfcore's (95 % interval "
        f"{times(effect.ratio.low)}–{times(effect.ratio.high)}, {len(effect.pairs)} "
        f"blocks{reason})."
    )


def times(ratio: float) -> str:
    """A ratio in three digits, or whole where it has more of them: 2.75, 1,470."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def counted(comparison: Comparison, side: str) -> str:
    """How a side's runs ended, in a few words: `5 PASS of 5`."""
    trials = [trial for trial in comparison.trials if trial.side == side]
    if trials and not any(trial.could_start for trial in trials):
        return "cannot start"
    kinds = [
        (kind, len([trial for trial in trials if trial.outcome == kind]))
        for kind in ("PASS", "FAIL", "INVALID", "ERROR")
    ]
    return (
        f"{', '.join(f'{count} {kind}' for kind, count in kinds if count)} of {comparison.blocks}"
    )


def _outcomes(comparison: Comparison, side: str) -> str:
    trials = [trial for trial in comparison.trials if trial.side == side]
    if trials and not any(trial.could_start for trial in trials):
        return f"{side} cannot start in this tier: {trials[0].sentence}"
    reason = next(
        (f" {trial.outcome}: {trial.sentence}" for trial in trials if trial.outcome != "PASS"), ""
    )
    return f"{side}: {counted(comparison, side)}.{reason}"
