"""Bounds, intervals and the test by pairs against values that are known."""

import math
import random
import statistics
from collections import Counter

import pytest

from loadlab.verdict.stats import (
    PAIRS,
    paired_ratio,
    paired_saving,
    rate_bound,
    upper_bound,
)


def test_a_p99_needs_enough_values_for_a_bound():
    """Of 500 values the rank of the bound would lie beyond the last."""
    assert upper_bound(Counter(range(500)), 0.99) is None
    bound = upper_bound(Counter(range(10_000)), 0.99)
    assert bound == 9923  # rank ⌈9900 + 2.326 · √99⌉ = 9924 of the values 0, 1, 2, …
    assert upper_bound(Counter(), 0.5) is None


def test_the_bound_covers_the_true_quantile():
    """In 99 of 100 samples of a known distribution, give or take chance."""
    dice = random.Random(3)  # noqa: S311  reproducible
    missed = sum(
        (upper_bound(Counter(int(dice.random() * 10_000) for _ in range(2000)), 0.95) or 0) < 9500
        for _ in range(400)
    )
    assert missed <= 12


def test_error_bounds():
    """The rule of three; Wilson's bound, one-sided, as tables have it."""
    assert rate_bound(0, 277_000) == pytest.approx(1.083e-5, rel=1e-3)
    assert rate_bound(10, 100) == pytest.approx(0.1602, abs=1e-3)
    assert rate_bound(0, 0) is None


def test_the_interval_of_a_ratio_is_the_median_s_known_one():
    """For the median of many normal values: ± 1.96 standard errors, each 1.253 of the mean's."""
    dice = random.Random(1)  # noqa: S311  reproducible
    pairs = [(1.0, dice.gauss(10, 2)) for _ in range(400)]
    found = paired_ratio(pairs, resamples=2000)
    error = 1.253 * statistics.stdev(second for _, second in pairs) / 20
    assert found.low == pytest.approx(found.estimate - 1.96 * error, abs=0.1)
    assert found.high == pytest.approx(found.estimate + 1.96 * error, abs=0.1)
    assert found == paired_ratio(pairs, resamples=2000)


def test_a_ratio_over_blocks():
    """Twice as much in every block is exactly twice, whatever the blocks' own level."""
    found = paired_ratio([(1, 2), (10, 20), (3, 6), (7, 14), (5, 10)], resamples=500)
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([(0, 1)])


def test_a_saving_by_pairs():
    """Without noise it is what it is; with noise its bound is Student's; of other than eight pairs
    nothing is said."""
    sure = paired_saving([(level * 0.6, level) for level in range(1, PAIRS + 1)], 0.1)
    assert sure is not None
    assert sure == pytest.approx((0.4, 0.1))
    noisy = paired_saving([(1.1, 1), (1, 1.1)] * (PAIRS // 2), 0.1)
    assert noisy is not None
    bound = 2.998 * 0.0953 * (8 / 7) ** 0.5 / 8**0.5  # of ±ln 1.1
    assert noisy.at_least == pytest.approx(1 - math.exp(bound), rel=1e-3)
    assert noisy.visible == pytest.approx(1 - 0.9 * math.exp(-2 * bound), rel=1e-3)
    assert paired_saving([(1, 2)] * (PAIRS - 1), 0.1) is None
