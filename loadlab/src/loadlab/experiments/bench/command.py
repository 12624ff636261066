"""`loadlab bench`, `ablate` and `ladder`: CPU time per request of several servers, side by side in
one run: measured in rounds, each in another order, then stored."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from loadlab.experiments.bench import services, stored
from loadlab.experiments.bench.measure import answer_of, measure
from loadlab.experiments.bench.stored import Load, Round, Run
from loadlab.experiments.bench.subjects import (
    MODELS,
    OURS,
    STEPS,
    SUBJECTS,
    VARIANTS,
    Place,
    Subject,
)
from loadlab.generator.epoll.plan import raise_open_files
from loadlab.record import machine
from loadlab.target import cgroup, programs
from loadlab.target.cgroup import Limits
from loadlab.target.programs import Case

T = TypeVar("T")
Option = tuple[str, Callable[[str], Any] | None, Any, str]
"""Flag, type (None: a switch), default, help."""


class Refused(RuntimeError):
    """The run would prove nothing; the message says why, and what would help."""


@dataclass(frozen=True)
class Task:
    """One server under one load."""

    subject: Subject
    model: str
    load: Load


def names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _think(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


PATHS: tuple[Option, ...] = (
    ("--bundles", Path, ".halfcore/bundles", "folder of the bundles"),
    ("--store", Path, "docs/runs", "where runs are stored"),
)
_OPTIONS: tuple[Option, ...] = (
    ("--models", names, "iris,cover-middle", "saturated: names of bundles"),
    ("--sparse-models", names, "iris", "sparse: names of bundles"),
    ("--regimes", names, "saturated,sparse", "some of the default's"),
    ("--rounds", int, 3, "how often each is measured, each time in another order"),
    ("--seed", int, 1, "seed of the orders and the think times"),
    ("--seconds", float, 10.0, "saturated: measured per round"),
    ("--connections", int, 64, "saturated: open connections"),
    ("--sparse-seconds", float, 30.0, "sparse: measured per round"),
    ("--sparse-connections", int, 10_000, "sparse: open connections"),
    ("--rate", float, 500.0, "sparse: connections opened per second"),
    ("--think", _think, "4-9", "sparse: think time in seconds, LOW-HIGH"),
    ("--cpus", float, 0.5, "sparse: the server's CPU quota in cores"),
    ("--memory-mb", float, None, "sparse: the server's memory limit in MB of 1e6 bytes"),
    ("--sparse-server-cpus", str, "", "sparse: CPUs that the server may use; empty: all"),
    ("--quick", None, False, "a smoke test of under a minute; its figures mean nothing"),
    (
        "--despite-noise",
        None,
        False,
        "measure although other processes use the machine; the stored run says so",
    ),
    ("--tracking-uri", str, None, "MLflow's registry; without it the checkout's in .halfcore"),
    *PATHS,
)


@dataclass(frozen=True)
class Comparison:
    """One of the three commands."""

    help: str
    flag: str
    """Chooses some of the subjects."""
    subjects: dict[str, Subject]
    defaults: dict[str, Any] = field(default_factory=dict)
    """Other ones than in the options' table."""
    options: tuple[Option, ...] = ()


COMMANDS = {
    "bench": Comparison(
        "CPU time per request of halfcore, a minimal server and other servers",
        "--servers",
        SUBJECTS,
        options=(
            ("--sparse-all", None, False, "sparse: also the servers that are left out (b2, e)"),
        ),
    ),
    "ablate": Comparison(
        "what each default of halfcore is worth",
        "--variants",
        VARIANTS,
        {"models": ",".join(MODELS), "sparse_models": "cover-small"},
    ),
    "ladder": Comparison(
        "from the course's first service to halfcore, one change at a time",
        "--steps",
        STEPS,
        {"models": "cover-small", "regimes": "saturated", "seconds": 4.0, "sparse_models": ""},
    ),
}
_COLUMNS = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
_QUICK_SPARSE = ("a", "b")
"""A smoke test starts few servers under a quota: they start slowly there."""


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add options from a table; a default of text is read like an argument."""
    for flag, kind, default, text in options:
        if kind is None:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            shown = "none" if default is None else "%(default)s"
            parser.add_argument(flag, type=kind, default=default, help=f"{text} (default: {shown})")


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands and their arguments."""
    for name, comparison in COMMANDS.items():
        parser = commands.add_parser(name, help=comparison.help)
        known = ", ".join(comparison.subjects)
        parser.add_argument(
            comparison.flag,
            dest="subjects",
            type=names,
            default=list(comparison.subjects),
            help=f"of {known} (default: all)",
        )
        add_options(parser, [*comparison.options, *_OPTIONS])
        parser.set_defaults(sparse_all=False, **comparison.defaults)


def main(asked: argparse.Namespace, root: Path, console: Console) -> Path:
    """Measure and store, which takes minutes; returns the file.

    Raises:
        Refused: unknown names, nothing to measure, or the machine is busy with others.
        cgroup.Unavailable, programs.CaseError, process.CannotStart, measure.ClientFailed,
            plan.PlanError: see there.
    """
    tasks, left_out = chosen(asked)
    cgroup.version()
    # The servers inherit it.
    nofile = raise_open_files(max(task.load.connections for task in tasks))
    models = sorted({task.model for task in tasks})
    cases = [programs.case(asked.bundles.resolve(), model) for model in models]
    needs = {need for task in tasks for need in task.subject.needs}
    packages = programs.prepare_baseline(root) if "baseline" in needs else {}
    quiet = machine.watch()
    if quiet.reasons and not (asked.despite_noise or asked.quick):
        raise Refused(
            f"the machine is not quiet: {'; '.join(quiet.reasons)}. Wait, or accept doubtful "
            "figures with --despite-noise"
        )
    started, began = datetime.now(UTC), time.monotonic()
    rounds = _measure_all(asked, root, tasks, cases, console)
    run = Run(
        format=stored.FORMAT,
        what=asked.command,
        started_at=f"{started:%Y-%m-%dT%H:%M:%SZ}",
        minutes=round((time.monotonic() - began) / 60, 1),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        seed=asked.seed,
        quick=asked.quick,
        fingerprint=machine.fingerprint(root, packages, nofile),
        quiet=quiet,
        loads=list({task.load.regime: task.load for task in tasks}.values()),
        rounds=[*left_out, *rounds],
    )
    return stored.save(run, asked.store)


def chosen(asked: argparse.Namespace) -> tuple[list[Task], list[Round]]:
    """What is to be measured, and what is left out with the reason; raises `Refused`."""
    subjects = _known(asked.subjects, COMMANDS[asked.command].subjects)
    tasks: list[Task] = []
    left_out: list[Round] = []
    for load in _known(asked.regimes, _loads(asked)):
        models = asked.models if load.regime == "saturated" else asked.sparse_models
        for model in models[:1] if asked.quick else models:
            for subject in subjects:
                if load.regime in subject.regimes or (asked.sparse_all and load.regime == "sparse"):
                    tasks.append(Task(subject, model, load))
                elif load.regime == "sparse" and asked.command == "bench":
                    left_out.append(_left_out(subject, model))
    if asked.quick and asked.command == "bench":
        tasks = [
            task
            for task in tasks
            if task.load.regime == "saturated" or task.subject.key in _QUICK_SPARSE
        ]
    if not tasks:
        raise Refused("nothing to measure: no server, model and regime fit together")
    return tasks, left_out


def shuffled(tasks: Sequence[Task], *, number: int, seed: int) -> list[Task]:
    """The order of one round: drawn for each round, the same for the same seed."""
    drawn = list(tasks)
    random.Random(f"{seed}/{number}").shuffle(drawn)  # noqa: S311  an order, not a secret
    return drawn


def _known(wanted: Sequence[str], known: Mapping[str, T]) -> list[T]:
    if unknown := [name for name in wanted if name not in known]:
        raise Refused(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def _loads(asked: argparse.Namespace) -> dict[str, Load]:
    saturated = Load(
        regime="saturated",
        connections=asked.connections,
        seconds=asked.seconds,
        warmup_s=2.0,
        timeout_s=30.0,
        limits=Limits(),
        server_cpus="0",
        # A row that is asked again and again leaves its way through a large forest in the cache,
        # and batching nothing to gain.
        rows="golden" if asked.command == "ablate" else "one",
    )
    sparse = Load(
        regime="sparse",
        connections=asked.sparse_connections,
        seconds=asked.sparse_seconds,
        warmup_s=asked.think[1],
        timeout_s=10.0,
        limits=Limits(
            cpus=asked.cpus,
            memory_bytes=round(asked.memory_mb * 1e6) if asked.memory_mb else None,
        ),
        server_cpus=asked.sparse_server_cpus,
        rate=asked.rate,
        think_s=asked.think,
    )
    if asked.quick:
        saturated = replace(saturated, seconds=1.0, warmup_s=0.3, connections=16)
        sparse = replace(sparse, seconds=1.5, warmup_s=0.3, connections=200, think_s=(0.2, 0.5))
    return {load.regime: load for load in (saturated, sparse)}


def _left_out(subject: Subject, model: str) -> Round:
    return Round(
        server=subject.key,
        model=model,
        regime="sparse",
        number=0,
        environment={},
        figures=None,
        reason=f"not run: {subject.left_out} (--sparse-all runs it)",
    )


def _measure_all(
    asked: argparse.Namespace,
    root: Path,
    tasks: Sequence[Task],
    cases: Sequence[Case],
    console: Console,
) -> list[Round]:
    uri = asked.tracking_uri or f"sqlite:///{(root / '.halfcore/mlflow.db').resolve()}"
    rounds = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadlab-")))
        place = Place(root, uri, scratch)
        needs = {need for task in tasks for need in task.subject.needs}
        for need, start in services.STARTED.items():
            if need in needs:
                place = stack.enter_context(start(place))
        held = {case.model: programs.hold(case, scratch / "bundles") for case in cases}
        for case in held.values():
            place.answer_file(case.model).write_bytes(answer_of(place, OURS, case))
        progress = stack.enter_context(Progress(*_COLUMNS, console=console))
        numbers = range(1, 2 if asked.quick else asked.rounds + 1)
        bar = progress.add_task("", total=len(numbers) * len(tasks))
        for number in numbers:
            for task in shuffled(tasks, number=number, seed=asked.seed):
                what = f"{task.subject.key}, {task.model}, {task.load.regime}"
                progress.update(bar, description=f"round {number}: {what}")
                case, seed = held[task.model], asked.seed + number
                rounds.append(
                    measure(place, task.subject, case, task.load, number=number, seed=seed)
                )
                progress.console.print(
                    line(rounds[-1]), highlight=False, markup=False, soft_wrap=True
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
