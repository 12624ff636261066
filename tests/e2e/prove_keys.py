"""What an API key costs a request, and what the time of a refusal says about a key: `just
prove-keys`. The exit code tells.

Cost: the time of the look-up that each request of the hot lane makes, in this process, against the
same call of a server without keys; a key with a rate, too.

Guessing: refusals of two kinds of wrong keys, in random order: those that share all but the last
four characters with a valid key, and those that share nothing with one. If the mean times differ
by more than chance explains (Welch's t above 4.5, the limit that is usual for such tests), a
refusal tells how much was right. The slowest tenth of each kind is left out: it is the machine's. A
comparison that does stop at the first difference is timed in the same way, and must be found.
"""

import argparse
import random
import secrets
import statistics
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
"""Share of the samples that is compared."""
CONTROL_SAMPLES = 20_000


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


def refusal_times(
    refuse: Callable[[str], object], valid: str, samples: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nanoseconds of refusals: of keys that are right but for their end, and of keys that share
    nothing with a valid one; half of the samples each, in random order."""
    choose = random.Random(seed)  # noqa: S311  an order, not a secret
    right = valid[:-4]
    times: tuple[list[int], list[int]] = ([], [])
    for _ in track(range(samples), description="refusals"):
        tail = secrets.token_urlsafe(3)
        # Both are made each time, so that what runs before a look-up is the same for both
        guesses = ("_" + secrets.token_urlsafe(len(right))[: len(right) - 1] + tail, right + tail)
        near = choose.random() < 0.5
        guess = guesses[near]
        start = time.perf_counter_ns()
        refuse(guess)
        times[near].append(time.perf_counter_ns() - start)
    return np.array(times[True]), np.array(times[False])


def leaky(valid: str) -> Callable[[str], bool]:
    """A comparison that stops at the first character that differs, which the proof must find."""

    def same(guess: str) -> bool:
        return all(a == b for a, b in zip(guess, valid, strict=True))

    return same


def welch(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Welch's t of the samples that are not among the slowest."""
    limit = np.quantile(np.concatenate([first, second]), KEPT)
    a, b = first[first <= limit], second[second <= limit]
    return float((a.mean() - b.mean()) / sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)))


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000, help="refusals that are timed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        held = made(Path(folder))
        cost = costs(held)
        times = refusal_times(
            lambda guess: held.keys.allows({"x-api-key": guess}.get, "iris"),
            held.plain,
            arguments.samples,
            arguments.seed,
        )
        found = refusal_times(leaky(held.plain), held.plain, CONTROL_SAMPLES, arguments.seed)
    t, control = welch(*times), welch(*found)
    within = f"within ±{MOST_T:g}"
    checks = [
        *(
            Check(f"{name}: CPU time", f"{us:.2f} µs", f"≤ {MOST_COST_US:g} µs", us <= MOST_COST_US)
            for name, us in cost.items()
        ),
        Check(
            f"Welch's t of {arguments.samples:,} refusals, near and far guesses",
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
        "welch_t": t,
        "control_t": control,
        "near_ns": statistics.median(times[0].tolist()),
        "far_ns": statistics.median(times[1].tolist()),
        "samples": arguments.samples,
        "seed": arguments.seed,
    }
    return conclude(begun, "keys", "API keys", checks, figures, console=console)


if __name__ == "__main__":
    sys.exit(main())
