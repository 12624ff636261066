"""A queue that stands is bounded by what is run in the target's time; a burst is not."""

from math import inf

import pytest

from halfcore.pipeline.standing import FEWEST, STANDING_S, Standing

STEP_S = 0.05
TARGET_S = 0.1


def run(standing: Standing, start: float, seconds: float, waited_s: float, each: int) -> float:
    """Take batches of `each` requests, the oldest of which has waited so long; return the time
    after them."""
    for step in range(round(seconds / STEP_S)):
        standing.look(start + step * STEP_S, waited_s)
        standing.took(each)
    return start + seconds


def test_a_burst_is_not_bounded() -> None:
    """A long wait that ends within the time, and one that comes back later."""
    standing = Standing(TARGET_S)
    now = run(standing, 100.0, STANDING_S, 4.0, 50)
    now = run(standing, now, 0.2, 0.01, 50)
    run(standing, now, STANDING_S, 4.0, 50)
    assert standing.most == inf


def test_a_queue_that_stands_is_bounded_by_the_rate() -> None:
    """At 1,000 requests a second and 0.1 s, 100 may wait."""
    standing = Standing(TARGET_S)
    run(standing, 100.0, STANDING_S + 0.5, 4.0, 50)
    assert standing.most == pytest.approx(100.0, rel=0.01)


@pytest.mark.parametrize(
    ("each", "target_s"),
    [(0, TARGET_S), (1, 0.05), (1, 0.01)],
    ids=["the model stands still", "20 requests a second", "a request takes 5 times the target"],
)
def test_one_may_always_wait(each: int, target_s: float) -> None:
    """However slow the model is; and no more than that where one is run in the target's time."""
    standing = Standing(target_s)
    run(standing, 100.0, STANDING_S + 0.5, 4.0, each)
    assert standing.most == FEWEST == 1


def test_it_ends_when_nothing_was_refused_for_a_while() -> None:
    """Short waits alone do not end it: they are what the bound is for."""
    standing = Standing(TARGET_S)
    now = run(standing, 100.0, STANDING_S + 0.5, 4.0, 50)
    standing.refused_at = now
    now = run(standing, now, STANDING_S - 0.1, 0.05, 50)
    assert standing.most < inf
    run(standing, now, 0.3, 0.05, 50)
    assert standing.most == inf


def test_without_a_target_queues_may_stand() -> None:
    """As long as they like."""
    standing = Standing(0.0)
    run(standing, 100.0, 10.0, 4.0, 1)
    assert standing.most == inf
