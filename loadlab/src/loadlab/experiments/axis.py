"""One limit, searched: what to try next, from what has been tried. No clock, no server, no file:
history in, next value out.

Theory of operation: a value that failed once is refuted, whatever else was seen of it. A run that
was INVALID is repeated at full length, for a longer run is likelier to be valid; and if that is
INVALID too, twice as long: the rule that is broken near the edge (V13) extrapolates over one more
run of the same length, and a run twice as long sees whether that is true. A value that is INVALID
then too is undecided. Neither may be claimed, so both move the search upwards, but only the first
is ever called a failure. Between the greatest such value and the least passing one above it lies
the edge. The gap is opened on a ladder of usual sizes, halved on the logarithmic scale until it is
no wider than `step`, and then its upper end has to pass at full length, `REPEATS` of `REPEATS`
times. A failure there moves the edge up, and the gap is halved again. At last the value below is
run at full length too, for it may have failed only in a short run: if it passes, it is repeated,
and stays refuted, and how often it passed is reported.

As the next value depends on the history alone, a search that was killed continues with the same
one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

REPEATS = 3
"""Runs at the edge, all of which have to pass."""
PATIENCE = 3
"""INVALID runs in a row after which a value is undecided."""

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
    twice: bool = False
    """Twice the full length."""


class Edge(NamedTuple):
    """What is known when nothing more is to be tried."""

    passes: int | None
    """The least that passed every time; None: not even the most did."""
    fails: int | None
    """The greatest below it that failed; None: none did."""
    undecided: tuple[int, ...] = ()
    """Values that were INVALID again and again: nothing is known of them."""


@dataclass(frozen=True)
class Axis:
    """The values that a limit may take, and how finely it is searched."""

    most: int
    rungs: Sequence[int]
    """Usual sizes, upwards, up to `most`."""
    step: int
    """The gap between failing and passing need not be smaller."""
    grain: int = 1
    """Values between the rungs are multiples of it."""
    guess: int | None = None
    """Where the edge is expected, once something is known of it."""
    patience: int = PATIENCE


def decide(axis: Axis, tries: Sequence[Try]) -> Wish | Edge:
    """What to try next, or what was found."""
    last = tries[-1].value if tries else 0
    outcomes = _outcomes(last, tries)
    invalid = len(outcomes) - len(outcomes.rstrip("I"))
    if invalid and not undecided(last, tries, axis.patience):
        why = f"again, for it was INVALID{' twice' if invalid > 1 else ''}"
        return Wish(last, True, why, twice=invalid > 1)
    low, high = gap(tries, axis.patience)
    if low is None and high is None:
        return Wish(axis.most, False, "first")
    if high is not None:
        if (following := _narrow(axis, low, high)) is not None:
            return following
        if (passed := tries.count(Try(high, True, "PASS"))) < REPEATS:
            return Wish(high, True, f"edge, {passed + 1} of {REPEATS}")
    if low is not None and (following := _confirm(low, tries, axis.patience)) is not None:
        return following
    values = sorted({each.value for each in tries})
    failed = [value for value in values if _refuted(value, tries)]
    doubtful = [value for value in values if undecided(value, tries, axis.patience)]
    return Edge(
        high,
        max(failed, default=None),
        tuple(value for value in doubtful if value not in failed),
    )


def gap(tries: Sequence[Try], patience: int) -> tuple[int | None, int | None]:
    """The greatest value that may not be claimed, and the least above it that passed so far; None:
    there is none."""
    values = {each.value for each in tries}
    blocked = [v for v in values if _refuted(v, tries) or undecided(v, tries, patience)]
    low = max(blocked, default=None)
    passed = [each.value for each in tries if each.outcome == "PASS"]
    return low, min((v for v in passed if low is None or v > low), default=None)


def undecided(value: int, tries: Sequence[Try], patience: int) -> bool:
    """INVALID so often in a row: it is not tried once more."""
    return "I" * patience in _outcomes(value, tries)


def _outcomes(value: int, tries: Sequence[Try]) -> str:
    """A letter for each."""
    return "".join(each.outcome[0] for each in tries if each.value == value)


def _narrow(axis: Axis, low: int | None, high: int) -> Wish | None:
    """A value between the two, or below `high` while nothing failed; None: the gap is narrow
    enough."""
    below = [rung for rung in axis.rungs if rung < high and (low is None or rung > low)]
    if low is None:
        if high == axis.most and axis.guess is not None and axis.guess < high:
            return Wish(axis.guess, False, "as predicted")
        return Wish(below[-1], False, "bracket") if below else None
    if high - low <= axis.step:
        return None
    if below:
        return Wish(below[0], False, "bracket")
    # The multiple of `grain` strictly between that is nearest to the geometric mean
    first, last = low // axis.grain + 1, -(-high // axis.grain) - 1
    middle = min(max(round(math.sqrt(low * high) / axis.grain), first), last) * axis.grain
    return Wish(middle, False, "bisect") if first <= last else None


def _confirm(low: int, tries: Sequence[Try], patience: int) -> Wish | None:
    """The failing end at full length, once; while it passes there, again: a short run that failed
    is then in doubt, and that is shown."""
    full = [each.outcome for each in tries if each.value == low and each.full]
    if (
        not _refuted(low, tries)
        or "FAIL" in full
        or full.count("PASS") >= REPEATS
        or undecided(low, tries, patience)
    ):
        return None
    again = "again, for it failed in a short run and passed in a long one"
    return Wish(low, True, again if "PASS" in full else "the failure, at full length")


def _refuted(value: int, tries: Sequence[Try]) -> bool:
    return "F" in _outcomes(value, tries)
