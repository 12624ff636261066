"""`loadlab load` and `loadlab doctor`: words in, a verdict and an exit code out."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadlab.generator import scenarios
from loadlab.generator.scenarios import ScenarioError
from loadlab.record.read import read_run
from loadlab.report.command import STORE, conclude
from loadlab.run import arguments, doctor, session
from loadlab.run.session import Busy, Place
from loadlab.target import tiers
from loadlab.target.serving import BackendFailed
from loadlab.target.start import choose
from loadlab.target.tiers import TierError
from loadlab.verdict.repeats import Judged, combine
from loadlab.words import UsageError

COMMANDS = ("load", "doctor")
USAGE, INFRASTRUCTURE, INTERRUPTED = 3, 4, 130


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    load = commands.add_parser("load", help="how many users in which limits: a judged run")
    load.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help=f"of {', '.join(arguments.KEYS)}"
    )
    commands.add_parser("doctor", help="what this machine can carry, and what is missing")


def main(asked: argparse.Namespace, root: Path, console: Console) -> int:
    """Carry out one of them; returns the exit code: 0 PASS, 1 FAIL, 2 INVALID, 3 wrong usage, 4 no
    run could be made, 130 interrupted."""
    try:
        found = tiers.read(root / tiers.FILE, os.environ)
        if asked.command == "doctor":
            return doctor.show(found, root, console)
        return _load(arguments.parse(asked.words, found, scenarios.read()), root, console)
    except (UsageError, TierError, ScenarioError) as error:
        _say(console, f"loadlab: {error}")
        return USAGE
    except (Busy, BackendFailed, OSError) as error:
        _say(console, f"loadlab: {error}")
        return INFRASTRUCTURE


def _load(order: arguments.Order, root: Path, console: Console) -> int:
    place = Place(root, root / ".halfcore/bundles", root / STORE)
    with session.alone(root):
        backend, why = choose(order, root)
        _say(
            console,
            (
                f"tier {order.tier.name}, scenario {order.scenario.name}, {order.users:,} users; "
                f"backend {backend} ({why})"
            ),
        )
        set_id = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}" if order.repeats > 1 else ""
        judged: list[Judged] = []
        for repeat in range(1, order.repeats + 1):
            folder, ended = session.carry_out(
                order, place, backend, console, set_id=set_id, repeat=repeat
            )
            if ended.kind == "disk_full":
                raise OSError(f"{ended.sentence}; what was seen before is in {folder}")
            judged.append(Judged(read_run(folder), conclude(folder, Console())))
            if ended.kind == "interrupted":
                return INTERRUPTED
    if order.repeats == 1:
        return judged[0].verdict.exit_code
    together = combine(judged)
    _say(console, f"{together.outcome}: {together.sentence}")
    if together.claim:
        Console().print(together.claim, highlight=False, markup=False, soft_wrap=True)
    return together.exit_code


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
