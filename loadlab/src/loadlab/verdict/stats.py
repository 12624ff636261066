"""Statistics of few runs and of many answers: bounds, intervals, and a test by pairs."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_Z99 = 2.3263478740408408
"""Of the normal distribution: 99 % below."""
_Z95 = 1.6448536269514722
PAIRS = 8
"""That `paired_saving` needs."""
_T99 = 2.9979515668685277
"""Of Student's distribution with 7 degrees of freedom: 99 % below."""


@dataclass(frozen=True)
class Interval:
    """An estimate and what it is likely between."""

    estimate: float
    low: float
    high: float


class Saving(NamedTuple):
    """By which share the first of two things is cheaper."""

    at_least: float
    """With 99 % confidence."""
    visible: float
    """A true saving of this size is found in 99 of 100 tests of this noise."""


def upper_bound(counts: Mapping[int, int], q: float) -> int | None:
    """A value that the quantile `q` does not exceed with 99 % confidence; None when there are too
    few values for one.

    The binomial order statistic, by its normal approximation: the rank n·q + z·√(n·q·(1 − q)) must
    exist. Values of one run depend on one another, so this is a lower limit of the doubt: verdicts
    rest on repeats.
    """
    total = sum(counts.values())
    rank = math.ceil(total * q + _Z99 * math.sqrt(total * q * (1 - q)))
    if not total or rank > total:
        return None
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= rank:
            return value
    return None


def rate_bound(errors: int, total: int) -> float | None:
    """The error share that is not exceeded with 95 % confidence: the rule of three without errors,
    Wilson's bound with some."""
    if not total:
        return None
    if not errors:
        return min(3 / total, 1.0)
    share, z2 = errors / total, _Z95 * _Z95
    spread = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return (share + z2 / (2 * total) + spread) / (1 + z2 / total)


def paired_saving(pairs: Sequence[tuple[float, float]], least: float) -> Saving | None:
    """How much cheaper the first of each pair is, of exactly `PAIRS`: Student's test on the
    logarithms of the ratios.

    It is found when the saving is surely more than `least`. Costs of neighbours in time are
    compared, so that drift is in both; outliers widen the bound, and do not accuse.
    """
    if len(pairs) != PAIRS:
        return None
    ratios = [math.log(first / second) for first, second in pairs]
    doubt = _T99 * statistics.stdev(ratios) / math.sqrt(PAIRS)
    return Saving(
        at_least=1 - math.exp(statistics.fmean(ratios) + doubt),
        visible=1 - (1 - least) * math.exp(-2 * doubt),
    )


def paired_ratio(
    pairs: Sequence[tuple[float, float]], *, resamples: int = 10_000, seed: int = 1
) -> Interval:
    """How many times the second is of the first, over blocks: the median of the ratios (on the log
    scale), with its percentile bootstrap interval (95 %); the same seed gives the same interval.

    With few blocks it is somewhat narrow (five blocks of one hour are more alike than the world):
    say how many there were.

    Raises:
        ValueError: a value that is not positive.
    """
    if any(first <= 0 or second <= 0 for first, second in pairs):
        raise ValueError("ratios need positive values")
    ratios = [second / first for first, second in pairs]
    dice = random.Random(seed)  # noqa: S311  reproducible
    found = sorted(_middle(dice.choices(ratios, k=len(ratios))) for _ in range(resamples))
    last = math.ceil(0.975 * resamples) - 1
    return Interval(_middle(ratios), found[int(0.025 * resamples)], found[last])


def _middle(ratios: Sequence[float]) -> float:
    """The median on the log scale: between two middle ratios lies their geometric mean.

    Without a logarithm: its last digit depends on the CPU, that of a square root does not.
    """
    return math.sqrt(statistics.median_low(ratios) * statistics.median_high(ratios))
