"""`loadlab load` and `loadlab load-doctor`: words in, a verdict and an exit code out."""

import os
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadlab import scenarios, tiers
from loadlab.backends.choice import choose
from loadlab.backends.serving import BackendFailed
from loadlab.record.read import read
from loadlab.run import arguments, session
from loadlab.run.arguments import UsageError
from loadlab.run.session import Busy, Place
from loadlab.scenarios import ScenarioError
from loadlab.tiers import TierError
from loadlab.verdict.judge import judge, store
from loadlab.verdict.repeats import Judged, combine

USAGE, INFRASTRUCTURE, INTERRUPTED = 3, 4, 130


def load(words: list[str], root: Path, console: Console) -> int:
    """Carry out what the words ask for; returns the exit code: 0 PASS, 1 FAIL, 2 INVALID, 3 wrong usage, 4 no run could be made, 130 interrupted."""
    try:
        order = arguments.parse(words, tiers.read(root / tiers.FILE, os.environ), scenarios.read())
    except (UsageError, TierError, ScenarioError) as error:
        console.print(f"loadlab: {error}", highlight=False, markup=False, soft_wrap=True)
        return USAGE
    place = Place(root, root / ".halfcore/bundles", root / session.STORE)
    try:
        with session.alone(root):
            return _repeats(order, place, console)
    except (Busy, BackendFailed) as error:
        console.print(f"loadlab: {error}", highlight=False, markup=False, soft_wrap=True)
        return INFRASTRUCTURE


def _repeats(order: arguments.Order, place: Place, console: Console) -> int:
    backend, why = choose(order, place.root)
    console.print(f"tier {order.tier.name}, scenario {order.scenario.name}, {order.users:,} users; backend {backend}: {why}", highlight=False)
    set_id = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}" if order.repeats > 1 else ""
    judged: list[Judged] = []
    for repeat in range(1, order.repeats + 1):
        folder, ended = session.carry_out(order, place, backend, console, set_id=set_id, repeat=repeat)
        verdict = judge(read(folder))
        store(verdict, folder)
        judged.append(Judged(read(folder).run, verdict))
        console.print(f"{verdict.outcome}: {verdict.sentence}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"stored in {folder}", highlight=False, soft_wrap=True)
        if ended.kind == "interrupted":
            return INTERRUPTED
    if order.repeats == 1:
        return judged[0].verdict.exit_code
    together = combine(judged)
    console.print(f"{together.outcome}: {together.sentence}\n{together.claim}", highlight=False, markup=False, soft_wrap=True)
    return together.exit_code
