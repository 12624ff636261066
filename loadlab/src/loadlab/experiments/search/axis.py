"""One limit, searched: what to try next, from what has been tried. No clock, no server, no file:
history in, wish out.

Theory of operation: a value that failed once is refuted, whatever else was seen of it. A run that
was INVALID is repeated once, at full length, for a longer run is likelier to be valid; a value that
was INVALID twice in a row is undecided. Neither may be claimed, so both move the search upwards,
but only the first is ever called a failure. Between the greatest such value and the least passing
one above it lies the edge. The gap is opened on a ladder of usual sizes, halved on the logarithmic
scale until it is no wider than `step`, and then its upper end has to pass at full length, `REPEATS`
of `REPEATS` times. A failure there moves the edge up, and the gap is halved again. At last the
value below is run at full length too, for it may have failed only in a short run: if it passes, it
is repeated, and stays refuted, and how often it passed is reported.

As the wish depends on the history alone, a search that was killed continues with the same wish.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

REPEATS = 3
"""Runs at the edge, all of which have to pass."""

Judgement = Literal["PASS", "FAIL", "INVALID"]


class Try(NamedTuple):
    """A value that was tried."""

    value: int
    full: bool
    """At full length; else as short as the rules allow, to find the way."""
    outcome: Judgement


class Wish(NamedTuple):
    """A value to be tried next, and why."""

    value: int
    full: bool
    why: str


class Edge(NamedTuple):
    """What is known when nothing more is to be tried."""

    passes: int | None
    """The least that passed every time; None: not even the most did."""
    fails: int | None
    """The greatest below it that failed; None: none did."""
    undecided: tuple[int, ...] = ()
    """Values that were INVALID twice in a row: nothing is known of them."""


@dataclass(frozen=True)
class Axis:
    """The values that a limit may take, and how finely it is searched."""

    most: int
    rungs: Sequence[int]
    """Usual sizes, upwards; those above `most` are left out."""
    step: int
    """The gap between failing and passing need not be smaller."""
    grain: int = 1
    """Values between the rungs are multiples of it."""
    guess: int | None = None
    """Where the edge is expected, once something is known of it."""


def decide(axis: Axis, tries: Sequence[Try]) -> Wish | Edge:
    """What to try next, or what was found."""
    if tries and tries[-1].outcome == "INVALID" and not undecided(tries[-1].value, tries):
        return Wish(tries[-1].value, True, "again, for it was INVALID")
    low, high = gap(tries)
    if high is None:
        return (
            Wish(axis.most, False, "first") if low is None else _confirm(low, tries) or _edge(tries)
        )
    if (wish := _narrow(axis, low, high)) is not None:
        return wish
    if (passed := _passes(high, tries)) < REPEATS:
        return Wish(high, True, f"edge, {passed + 1} of {REPEATS}")
    return _confirm(low, tries) or _edge(tries)


def gap(tries: Sequence[Try]) -> tuple[int | None, int | None]:
    """The greatest value that may not be claimed, and the least above it that passed so far; None:
    there is none."""
    seen = {each.value for each in tries}
    blocked = [value for value in seen if _refuted(value, tries) or undecided(value, tries)]
    low = max(blocked, default=None)
    high = min(
        (
            each.value
            for each in tries
            if each.outcome == "PASS" and (low is None or each.value > low)
        ),
        default=None,
    )
    return low, high


def undecided(value: int, tries: Iterable[Try]) -> bool:
    """INVALID twice in a row: it is not tried a third time."""
    return ("INVALID", "INVALID") in pairwise(each.outcome for each in tries if each.value == value)


def _narrow(axis: Axis, low: int | None, high: int) -> Wish | None:
    """A value between the two, or below `high` while nothing failed; None: the gap is narrow
    enough."""
    below = [rung for rung in axis.rungs if rung < high and (low is None or rung > low)]
    if low is None:
        guess = axis.guess
        if high == axis.most and guess is not None and guess < high:
            return Wish(guess, False, "as predicted")
        return Wish(below[-1], False, "bracket") if below else None
    if high - low <= axis.step:
        return None
    if below:
        return Wish(below[0], False, "bracket")
    middle = _middle(low, high, axis.grain)
    return None if middle is None else Wish(middle, False, "bisect")


def _middle(low: int, high: int, grain: int) -> int | None:
    """The multiple of `grain` strictly between that is nearest to the geometric mean; None: there
    is none."""
    first, last = low // grain + 1, -(-high // grain) - 1
    if first > last:
        return None
    return min(max(round(math.sqrt(low * high) / grain), first), last) * grain


def _confirm(low: int | None, tries: Sequence[Try]) -> Wish | None:
    """The failing end at full length, once; while it passes there, again: a short run that failed
    is then in doubt, and that is shown."""
    if low is None or not _refuted(low, tries):
        return None
    full = [each.outcome for each in tries if each.value == low and each.full]
    if "FAIL" in full or full.count("PASS") >= REPEATS or undecided(low, tries):
        return None
    return Wish(
        low,
        True,
        "again, for it failed in a short run and passed in a long one"
        if "PASS" in full
        else "the failure, at full length",
    )


def _edge(tries: Sequence[Try]) -> Edge:
    _, high = gap(tries)
    values = sorted({each.value for each in tries})
    refuted = [value for value in values if _refuted(value, tries)]
    doubtful = tuple(
        value for value in values if undecided(value, tries) and not _refuted(value, tries)
    )
    return Edge(high, refuted[-1] if refuted else None, doubtful)


def _passes(value: int, tries: Iterable[Try]) -> int:
    return sum(1 for each in tries if each == Try(value, True, "PASS"))


def _refuted(value: int, tries: Iterable[Try]) -> bool:
    return any(each.value == value and each.outcome == "FAIL" for each in tries)
