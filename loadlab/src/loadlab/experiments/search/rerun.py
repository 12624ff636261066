"""The minimum of a stored search, run again: one that holds only in the hour in which it was found
is not worth its name."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loadlab.experiments.search import form
from loadlab.experiments.search.form import Goal, Probe, Rerun
from loadlab.experiments.search.plan import Found, Step, decide
from loadlab.run.order import Order
from loadlab.words import UsageError


class Claim(NamedTuple):
    """What is run again."""

    file: Path
    """Of the search that claims it."""
    centicores: int
    mib: int
    number: int
    """Of the next probe, after those of the search and of its reruns: seeds are not repeated."""


def newest(runs: Path, order: Order, goal: Goal) -> Claim:
    """The minimum of the last search of the same server, users and limits.

    Args:
        runs: where searches are stored.
        order: what is asked for now.
        goal: of the search that is looked for.

    Raises:
        UsageError: there is none, or it found no minimum.
        StoreError: one cannot be read.
    """
    wanted = (
        order.service,
        order.tier.name,
        order.scenario.name,
        order.users,
        order.model,
        order.engine,
        goal,
    )
    for file in sorted(
        runs.glob(f"*-search-{order.service}-{order.scenario.name}-{order.users}.json"),
        reverse=True,
    ):
        search = form.load(file)
        if (
            search.service,
            search.tier,
            search.scenario,
            search.users,
            search.model,
            search.engine,
            search.goal,
        ) == wanted:
            found = decide(search.goal, search.probes)
            if not isinstance(found, Found) or found.minimum is None:
                raise UsageError(f"rerun=yes: {file.name} found no minimum that could be run again")
            before = sum(len(rerun.probes) for rerun in of(runs, file))
            return Claim(file, *found.minimum, number=len(search.probes) + before + 1)
    raise UsageError(
        "rerun=yes: no search of these words is stored; the same words without rerun= make one"
    )


def of(runs: Path, file: Path) -> list[Rerun]:
    """All reruns of a stored search, the oldest first; raises `StoreError`."""
    kind = file.stem.partition("-search-")[2]
    reruns = [form.load_rerun(each) for each in sorted(runs.glob(f"*-rerun-{kind}.json"))]
    return [each for each in reruns if each.of == file.name]


def carry_out(claim: Claim, run: Callable[[Step, int], Probe]) -> list[Probe]:
    """Run a minimum again at full length, and once more if that is INVALID, as the search does;
    `run` carries a probe out."""
    probes = list[Probe]()
    for why in ("the minimum, run again", "again, for it was INVALID"):
        probes.append(
            run(Step(claim.centicores, claim.mib, full=True, why=why), claim.number + len(probes))
        )
        if probes[-1].outcome != "INVALID":
            break
    return probes
