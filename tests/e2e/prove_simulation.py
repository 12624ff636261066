"""Batcher, swap and prediction log under many schedules drawn from seeds, without and with planted
errors: `just prove-simulation`. A seed that fails is printed; `--part swap --seed 7` replays it."""

import argparse
import logging
import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.proof import Check, begin, conclude
from support.simulated.loop import simulate
from support.simulated.planted import PLANTED, SCENARIOS, first_failure, planted

SEARCHED = 3_000
"""Schedules in which a planted error must be found."""


def main() -> int:
    """Run; 0 if no schedule fails and every planted error is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000, help="of each part")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--part", choices=list(SCENARIOS), help="of the seed to replay")
    parser.add_argument("--seed", type=int, help="replay only this one, with its log")
    flags = parser.parse_args()
    if flags.seed is not None:
        simulate(flags.seed, SCENARIOS[flags.part or "batcher"])
        return 0
    logging.disable(logging.CRITICAL)
    console = Console()
    begun = begin(console)
    console.print(f"first seed: {flags.first}; a schedule's number is its seed")
    checks, figures = [], {"schedules": flags.schedules, "first": flags.first}
    for part, scenario in SCENARIOS.items():
        failed = first_failure(scenario, range(flags.first, flags.first + flags.schedules))
        if failed:
            console.print(
                f"{part}: {failed[1]}; replay it: just prove-simulation --part {part} "
                f"--seed {failed[0]}",
                style="red",
            )
        found = f"schedule {failed[0]}" if failed else f"none of {flags.schedules}"
        checks.append(Check(f"{part}: schedules that fail", found, "none", failed is None))
    for name, error in PLANTED.items():
        with planted(error):
            failed = first_failure(SCENARIOS[error.part], range(SEARCHED))
        schedule = f"in schedule {failed[0]}" if failed else "not found"
        checks.append(
            Check(f"planted in {error.part}: {name}", schedule, "found", failed is not None)
        )
    return conclude(begun, "simulation", "simulated schedules", checks, figures, console=console)


if __name__ == "__main__":
    sys.exit(main())
