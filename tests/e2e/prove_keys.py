"""What an API key costs a request, and what the time of a refusal says about a key: `just
prove-keys`. The exit code tells.

Cost: the time of the look-up that each request of the hot lane makes, in this process, against the
same call of a server without keys; a key with a rate, too.

Guessing: refusals of two kinds of wrong keys: those that share all but the last four characters
with a valid key, and those that share nothing with one. They are timed in blocks, within which
their order is random, and each block gives the difference of the two means, without the slowest
tenth, which is the machine's. If these differences are not about zero by more than chance explains
(Student's t above 4.5, the limit that is usual for such tests), a refusal tells how much was right.
A comparison that does stop at the first difference is timed in the same way, and must be found.
"""

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from halfcore.predict.keys import Keys, new_key
from support.proof import Check, begin, conclude

MOST_COST_US = 1.0
MOST_T = 4.5
ROUNDS, CALLS = 15, 20_000
KEPT = 0.9
"""Share of a kind's samples that is compared."""
CONTROL_SAMPLES = 20_000
BLOCK = 1_000
"""Samples, half of each kind."""
ENDING = 4
"""Characters of a key that are not guessed."""


class Held(NamedTuple):
    """A file of keys, and two of them."""

    keys: Keys
    plain: str
    rated: str


def made(folder: Path) -> Held:
    """A hundred keys, of which one has a rate."""
    entries = [new_key(f"team-{number}", []) for number in range(99)]
    rated, rated_lines = new_key("rated", [], 1_000_000)
    file = folder / "keys.toml"
    file.write_text("".join(lines for _, lines in entries) + rated_lines)
    return Held(Keys(file), entries[0][0], rated)


def cost_us(ask: Callable[[], object]) -> float:
    """Microseconds of CPU that a call takes: the least of several rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        for _ in range(CALLS):
            ask()
        rounds.append((time.thread_time_ns() - start) / CALLS / 1000)
    return min(rounds)


def costs(held: Held) -> dict[str, float]:
    """What each kind of key adds to a request, microseconds."""
    bearer = {"authorization": f"Bearer {held.plain}"}.get
    header = {"x-api-key": held.plain}.get
    rated = {"x-api-key": held.rated}.get
    without = cost_us(lambda: None)
    return {
        "Authorization: Bearer": cost_us(lambda: held.keys.allows(bearer, "iris")) - without,
        "X-API-Key": cost_us(lambda: held.keys.allows(header, "iris")) - without,
        "X-API-Key with a rate": cost_us(lambda: held.keys.allows(rated, "iris")) - without,
    }


def differences(
    refuse: Callable[[str], object], valid: str, samples: int, seed: int
) -> NDArray[np.float64]:
    """Nanoseconds that refusals of keys that are right but for their end take longer than those of
    keys that share nothing with a valid one: the differences of the means of each block, half of
    whose samples are of each kind, in random order.

    Where a text lies in memory is measurable, and so is what is done between two looks at the
    clock; so the texts of a block are new ones, made by the same code before any is timed.
    """
    choose = random.Random(seed)  # noqa: S311  an order, not a secret
    length = len(valid) - ENDING
    found = []
    for _ in track(range(samples // BLOCK), description="refusals"):
        # Either kind may be the first, and have the first of two lists
        texts = [valid, "_" + secrets.token_urlsafe(length)]
        choose.shuffle(texts)
        kinds = [("".join(list(text[:length])), list[int]()) for text in texts]
        guesses = [
            (beginning + secrets.token_urlsafe(ENDING)[:ENDING], times)
            for beginning, times in choose.sample(kinds * (BLOCK // 2), BLOCK)
        ]
        for guess, times in guesses:
            start = time.perf_counter_ns()
            refuse(guess)
            end = time.perf_counter_ns()
            times.append(end - start)
        first, second = (usual_mean(times) for _, times in kinds)
        found.append(first - second if texts[0] == valid else second - first)
    return np.array(found)


def usual_mean(times: list[int]) -> float:
    """The mean without the slowest tenth."""
    return float(np.sort(times)[: int(KEPT * len(times))].mean())


def t_of(differences: NDArray[np.float64]) -> float:
    """Student's t of their mean."""
    return float(differences.mean() / (differences.std(ddof=1) / sqrt(len(differences))))


def leaky(valid: str) -> Callable[[str], bool]:
    """A comparison that stops at the first character that differs, which the proof must find."""

    def same(guess: str) -> bool:
        return all(a == b for a, b in zip(guess, valid, strict=True))

    return same


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000, help="refusals that are timed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.samples < 2 * BLOCK:
        parser.error(f"--samples is {arguments.samples}, expected at least {2 * BLOCK:,}")
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        held = made(Path(folder))
        cost = costs(held)
        refused = differences(
            lambda guess: held.keys.allows({"x-api-key": guess}.get, "iris"),
            held.plain,
            arguments.samples,
            arguments.seed,
        )
        compared = differences(leaky(held.plain), held.plain, CONTROL_SAMPLES, arguments.seed)
    t, control = t_of(refused), t_of(compared)
    within = f"within ±{MOST_T:g}"
    checks = [
        *(
            Check(f"{name}: CPU time", f"{us:.2f} µs", f"≤ {MOST_COST_US:g} µs", us <= MOST_COST_US)
            for name, us in cost.items()
        ),
        Check(
            f"Student's t of {arguments.samples:,} refusals, near and far guesses",
            f"{t:+.2f}",
            within,
            abs(t) <= MOST_T,
        ),
        Check(
            "the same of a comparison that stops at the first difference",
            f"{control:+.2f}",
            f"not {within}",
            abs(control) > MOST_T,
        ),
    ]
    figures = {
        "cost_us": cost,
        "t": t,
        "control_t": control,
        "difference_ns": float(refused.mean()),
        "samples": arguments.samples,
        "seed": arguments.seed,
    }
    return conclude(begun, "keys", "API keys", checks, figures, console=console)


if __name__ == "__main__":
    sys.exit(main())
