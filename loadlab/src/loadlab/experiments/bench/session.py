"""A whole run: all servers, models and regimes, in rounds, each round in another order; then
stored."""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loadlab.experiments.bench.cases import Case, case, hold
from loadlab.experiments.bench.measure import first_answer, measure
from loadlab.experiments.bench.recorded import database
from loadlab.experiments.bench.subjects import OURS, Place, Subject, prepare_baseline
from loadlab.experiments.bench.surroundings import surrounded
from loadlab.generator.plan import raise_open_files
from loadlab.record import machine, store
from loadlab.record.store import Load, Round, Run
from loadlab.target import cgroup


class Refused(RuntimeError):
    """The run would prove nothing; the message says why, and what would help."""


@dataclass(frozen=True)
class Task:
    """One server under one load."""

    subject: Subject
    model: str
    load: Load


@dataclass(frozen=True)
class Order:
    """What the user asked for."""

    what: Literal["bench", "ablate", "ladder"]
    root: Path
    bundles: Path
    tracking_uri: str
    tasks: Sequence[Task]
    left_out: Sequence[Round]
    """What is not measured, with the reason; stored with the rest."""
    rounds: int
    seed: int
    quick: bool
    despite_noise: bool


def carry_out(order: Order, console: Console) -> Run:
    """Measure everything; takes minutes.

    Raises:
        Refused: the machine is busy with others.
        cgroup.Unavailable, cases.CaseError, process.CannotStart, measure.ClientFailed,
            plan.PlanError: see there.
    """
    cgroup.version()
    nofile = raise_open_files(
        max(task.load.connections for task in order.tasks)
    )  # the servers inherit it
    cases = {
        model: case(order.bundles, model) for model in sorted({task.model for task in order.tasks})
    }
    baseline = (
        prepare_baseline(order.root)
        if any(task.subject.needs_baseline for task in order.tasks)
        else {}
    )
    quiet = machine.watch()
    if quiet.reasons and not (order.despite_noise or order.quick):
        raise Refused(
            f"the machine is not quiet: {'; '.join(quiet.reasons)}. Wait, or accept doubtful "
            "figures with --despite-noise"
        )
    started, began = datetime.now(UTC), time.monotonic()
    with ExitStack() as stack:
        place = Place(
            order.root,
            order.tracking_uri,
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadlab-"))),
        )
        if any(task.subject.needs_surroundings for task in order.tasks):
            place = stack.enter_context(surrounded(place))
        if any(task.subject.needs_database for task in order.tasks):
            place = stack.enter_context(database(place))
        cases = {model: hold(found, place.scratch / "bundles") for model, found in cases.items()}
        for each in cases.values():
            place.answer_file(each.model).write_bytes(first_answer(place, OURS, each))
        rounds = _measure_all(order, place, cases, console)
    return Run(
        format=store.FORMAT,
        what=order.what,
        started_at=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        minutes=round((time.monotonic() - began) / 60, 1),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        seed=order.seed,
        quick=order.quick,
        fingerprint=machine.fingerprint(order.root, baseline, nofile),
        quiet=quiet,
        loads=list({task.load.regime: task.load for task in order.tasks}.values()),
        rounds=[*order.left_out, *rounds],
    )


def shuffled(tasks: Sequence[Task], *, number: int, seed: int) -> list[Task]:
    """The order of one round: drawn for each round, the same for the same seed."""
    drawn = list(tasks)
    random.Random(f"{seed}/{number}").shuffle(drawn)  # noqa: S311  an order, not a secret
    return drawn


def _measure_all(
    order: Order, place: Place, cases: dict[str, Case], console: Console
) -> list[Round]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    rounds = []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=order.rounds * len(order.tasks))
        for number in range(1, order.rounds + 1):
            for task in shuffled(order.tasks, number=number, seed=order.seed):
                progress.update(
                    bar,
                    description=f"round {number}: {task.subject.key}, {task.model}, "
                    f"{task.load.regime}",
                )
                measured = measure(
                    place,
                    task.subject,
                    cases[task.model],
                    task.load,
                    number=number,
                    seed=order.seed + number,
                )
                rounds.append(measured)
                progress.console.print(
                    line(measured), highlight=False, markup=False, soft_wrap=True
                )
                progress.advance(bar)
    return rounds


def line(measured: Round) -> str:
    """One round for the terminal."""
    name = f"{measured.number} {measured.regime:9} {measured.model:12} {measured.server:16}"
    if measured.figures is None:
        return f"{name} {measured.reason}"
    found = measured.figures
    rate, latency = found.requests / found.seconds, found.response.quantiles_ms
    doubts = f"  doubtful: {'; '.join(found.doubts)}" if found.doubts else ""
    times = f"p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} ms"
    return (
        f"{name} {found.cpu_us:8.1f} µs/request {rate:8.0f}/s {times}, {found.failed} "
        f"failures{doubts}"
    )
