"""Whom V15 accuses over the noise of real runs: pairs of turns drawn from the steady phases of the
kept ones, with a cache put into them."""

import random
from functools import cache
from pathlib import Path

import msgspec

from loadlab.record.schema import Phase, criteria
from loadlab.record.store import Log, read
from loadlab.verdict import load
from loadlab.verdict.stats import PAIRS, paired_saving

RUNS = Path(__file__).parents[2] / "docs" / "runs"
FULL = 1000 / 1080
"""What a full cache saves where inference takes 1,000 µs of 1,080 µs a request."""
SAVINGS = (0.0, 0.25, 0.4, 0.5, FULL)
_DRAWS = 200
"""Of each run, by even and by odd seconds."""
_LATE = 0.15
"""Share of a turn in which users still send the other bodies: orders take up to 0.3 s of 2 s."""


@cache
def over_real_noise() -> dict[float, float]:
    """For each share that a cache may save, 0 for an honest server: the share of runs in which V15
    accuses it."""
    dice = random.Random(1)  # noqa: S311  reproducible
    real = [turns for turns in _real_turns() if len(turns) >= 2 * PAIRS] * _DRAWS
    return {
        saving: sum(_accused(turns, saving, dice) for turns in real) / len(real)
        for saving in SAVINGS
    }


def _real_turns() -> list[list[float]]:
    """CPU time per answer of neighbouring turns of 2 s, microseconds, of the steady phase of every
    kept run; twice for each, by even and odd seconds."""
    found = []
    for folder in sorted(RUNS.glob("*/run.json")):
        log = read(folder.parent)
        steady = log.phase("steady")
        assert steady
        for first in (steady.start_s, steady.start_s + 1):
            starts = range(int(first), int(log.end_of(steady)) - 3, 4)
            turns: list[Phase] = []
            for t in starts:
                turns.append(Phase(name="pool", start_s=t, end_s=t + 2))
                turns.append(Phase(name="fresh", start_s=t + 2, end_s=t + 4))
            of_turn = {int(turn.start_s) + more: turn.name for turn in turns for more in (0, 1)}
            lines = [
                msgspec.structs.replace(line, phase=of_turn[line.t])
                for line in log.of("users", "steady")
                if line.t in of_turn
            ]
            run = msgspec.structs.replace(log.run, phases=turns)
            pairs = load.turns(Log(run, lines, log.samples))
            found.append([us for pair in pairs for us in pair])
    return found


def _accused(turns: list[float], saving: float, dice: random.Random) -> bool:
    """Whether V15 accuses a server whose turns cost so much, and whose cache saves that share."""
    order = [True] * (PAIRS // 2) + [False] * (PAIRS // 2)
    dice.shuffle(order)
    start, pairs = dice.randrange(len(turns) - 2 * PAIRS + 1), []
    for number, pool_first in enumerate(order):
        both = turns[start + 2 * number : start + 2 * number + 2]
        pool, fresh = both if pool_first else both[::-1]
        saved = saving * (1 - _LATE), saving * _LATE
        pairs.append((pool * (1 - saved[0]), fresh * (1 - saved[1])))
    found = paired_saving(pairs, criteria().rules.v15_cheaper)
    return found is not None and found.at_least > criteria().rules.v15_cheaper
