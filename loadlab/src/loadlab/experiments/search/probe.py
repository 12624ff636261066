"""One probe: a load run in its own limits, and what it says to the search."""

import time
from collections.abc import Sequence

import msgspec
from rich.console import Console

from loadlab.experiments.search.axis import Judgement
from loadlab.experiments.search.form import Goal, Probe
from loadlab.experiments.search.plan import Step
from loadlab.record.read import read
from loadlab.record.schema import Ended, Phase
from loadlab.report.command import conclude
from loadlab.run import session
from loadlab.run.order import Order
from loadlab.run.session import Place, cool_down
from loadlab.verdict.judge import Verdict

_STARTING = ("start", "warmup")


class LabFailed(RuntimeError):
    """The run broke for a reason that no limit of the server explains: the search cannot
    continue."""


class Interrupted(Exception):
    """The user ended the search; the probes before are kept."""


def carry_out(
    step: Step, number: int, order: Order, goal: Goal, place: Place, console: Console
) -> Probe:
    """Carry out one probe on a fresh server.

    Args:
        step: its limits and length.
        number: of the probe; moves the seed, so that repeats do not repeat chance too.
        order: everything else.
        goal: how long a run is.
        place: where things are.
        console: shows how it goes.

    Raises:
        LabFailed, Interrupted: see there.
    """
    began = time.monotonic()
    cool_down()
    folder, ended = session.carry_out(
        order_of(step, number, order, goal), place, "cgroup", console, set_id="", repeat=1
    )
    verdict, log = conclude(folder, Console(quiet=True)), read(folder)
    outcome = judgement(ended, log.run.phases, verdict)
    could_start = ended.kind != "infrastructure"
    return Probe(
        centicores=step.centicores,
        mib=step.mib,
        full=step.full,
        why=step.why,
        outcome=outcome,
        could_start=could_start,
        sentence=verdict.sentence,
        run=log.run.id,
        seconds=round(time.monotonic() - began, 1),
        figures=verdict.figures if could_start else None,
    )


def order_of(step: Step, number: int, order: Order, goal: Goal) -> Order:
    """The load run that a step asks for."""
    cpus = step.centicores / 100
    limits = {"name": f"search-{cpus:g}-{step.mib}m", "cpus": cpus, "memory_bytes": step.mib << 20}
    return msgspec.structs.replace(
        order,
        tier=msgspec.structs.replace(order.tier, **limits),
        steady_s=goal.steady_s(full=step.full),
        seed=order.seed + number,
    )


def judgement(ended: Ended, phases: Sequence[Phase], verdict: Verdict) -> Judgement:
    """What a run says of its limits: a server that cannot start in them, or not answer without
    load, fails in them.

    Raises:
        LabFailed: the generator could not start, the disk is full, the server answers wrongly,
            which limits do not explain, …
        Interrupted: by the user.
    """
    if ended.kind == "interrupted":
        raise Interrupted
    starting = bool(phases) and phases[-1].name in _STARTING
    if ended.kind in ("disk_full", "wrong_answer") or (
        ended.kind == "infrastructure" and not starting
    ):
        raise LabFailed(ended.sentence)
    return "FAIL" if verdict.outcome == "ERROR" else verdict.outcome
