"""`loadlab bench`, `ablate` and `ladder`: CPU time per request of several servers, side by side in
one run: measured in rounds, each in another order, then stored."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.bench import subjects
from loadlab.experiments.bench.measure import HELPERS, answer_of, measure
from loadlab.experiments.bench.stored import Load, Round, Run
from loadlab.experiments.bench.subjects import Need, Place, Subject
from loadlab.experiments.runner import Experiment
from loadlab.generator.plan import raise_open_files
from loadlab.record import machine
from loadlab.record.cgroup import Limits
from loadlab.target import cgroup, programs
from loadlab.target.programs import Case

C = TypeVar("C")
E = TypeVar("E", bound=Experiment[Any])
T = TypeVar("T")
Option = tuple[str, Callable[[str], Any] | None, Any, str]
"""Flag, type (None: a switch), default, help."""


class Refused(RuntimeError):
    """The run would prove nothing; the message says why, and what would help."""


class Task(NamedTuple):
    """One server under one load."""

    subject: Subject
    model: str
    load: Load


class Comparison(NamedTuple):
    """One of the three commands."""

    help: str
    option: str
    """Chooses some of the subjects."""
    subjects: dict[str, Subject]
    defaults: dict[str, Any]
    """Other ones than in the options' table."""


def names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _think(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


COMMANDS = {
    "bench": Comparison(
        "CPU time per request of halfcore, a minimal server and other servers",
        "servers",
        subjects.SUBJECTS,
        {},
    ),
    "ablate": Comparison(
        "what each default of halfcore is worth",
        "variants",
        subjects.VARIANTS,
        {"models": ",".join(subjects.MODELS), "sparse_models": "cover-small"},
    ),
    "ladder": Comparison(
        "from the course's first service to halfcore, one change at a time",
        "steps",
        subjects.STEPS,
        {"models": "cover-small", "sparse_models": "", "regimes": "saturated", "seconds": 4.0},
    ),
}
PATHS: tuple[Option, ...] = (
    ("--bundles", Path, ".halfcore/bundles", "folder of the bundles"),
    ("--store", Path, "docs/runs", "where runs are stored"),
)
_SMOKE = "a smoke test of under a minute: few users, one round; its figures mean nothing"
_NOISE = "measure although other processes use the machine; the stored run says so"
_OPTIONS: tuple[Option, ...] = (
    ("--models", names, "iris,cover-middle", "saturated: names of bundles"),
    ("--sparse-models", names, "iris", "sparse: names of bundles"),
    ("--regimes", names, "saturated,sparse", "of saturated, sparse"),
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
    ("--sparse-server-cpus", str, None, "sparse: CPUs that the server may use; none: all"),
    ("--quick", None, False, _SMOKE),
    ("--despite-noise", None, False, _NOISE),
    ("--again", None, False, "begin again, although the same run was cut off and would continue"),
    ("--tracking-uri", str, None, "MLflow's registry; none: the one in the checkout's .halfcore"),
    *PATHS,
)
_SPARSE_ALL = ("--sparse-all", None, False, "sparse: also the servers that are left out (b2, e)")
_QUICK_SPARSE = ("a", "b")
"""A smoke test starts few servers under a quota: they start slowly there."""


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add options from a table; a default of text is read like an argument."""
    for flag, kind, default, text in options:
        if kind is None:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            shown = "none" if default is None else "%(default)s"
            text_with = f"{text} (default: {shown})"
            parser.add_argument(flag, type=kind, default=default, help=text_with)


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands and their arguments."""
    for name, comparison in COMMANDS.items():
        parser = commands.add_parser(name, help=comparison.help)
        known = ",".join(comparison.subjects)
        which = (f"--{comparison.option}", names, known, "some of the default's")
        sparse_all = [_SPARSE_ALL] if name == "bench" else []
        add_options(parser, [which, *sparse_all, *_OPTIONS])
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
    cells = [(task.subject.key, task.model) for task in tasks]
    needs = {need for task in tasks for need in task.subject.needs}
    packages = programs.prepare_baseline(root) if "baseline" in needs else {}
    quiet = machine.watch()
    if quiet.reasons and not (asked.despite_noise or asked.quick):
        raise Refused(
            f"the machine is not quiet: {'; '.join(quiet.reasons)}. Wait, or accept doubtful "
            "figures with --despite-noise"
        )
    fresh = Run(
        kind=asked.command,
        started_at=runner.now(),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        seed=asked.seed,
        inputs=runner.digest(root, cells, [case.bundle.name for case in cases]),
        quick=asked.quick,
        fingerprint=machine.fingerprint(root, packages, nofile),
        quiet=quiet,
        loads=list({task.load.regime: task.load for task in tasks}.values()),
    )
    uri = asked.tracking_uri or f"sqlite:///{(root / '.halfcore/mlflow.db').resolve()}"
    with _prepared(root, uri, needs, cases) as (place, held):

        def one(cell: tuple[int, Task]) -> Round:
            number, (subject, model, load) = cell
            seed = asked.seed + number
            found = measure(place, subject, held[model], load, number=number, seed=seed)
            runner.say(console, line(found))
            return found

        blocks = runner.in_blocks(tasks, 1 if asked.quick else asked.rounds, asked.seed)
        again = asked.again or asked.quick
        run = measured(fresh, blocks, one, _named, root, console, again=again)
    return runner.save(replace(run, rows=[*left_out, *run.rows]), asked.store)


@contextmanager
def _prepared(
    root: Path, uri: str, needs: set[Need], cases: Sequence[Case]
) -> Iterator[tuple[Place, dict[str, Case]]]:
    """Everything that the servers need, and the held cases by their models."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadlab-")))
        place = Place(root, uri, scratch)
        for start in (start for need, start in HELPERS.items() if need in needs):
            place = stack.enter_context(start(place))
        held = {case.model: programs.hold(case, scratch / "bundles") for case in cases}
        for case in held.values():
            place.answer_file(case.model).write_bytes(answer_of(place, subjects.OURS, case))
        yield place, held


def measured(
    fresh: E,
    cells: Sequence[C],
    measure_one: Callable[[C], object],
    named: Callable[[C], str],
    root: Path,
    console: Console,
    *,
    again: bool = True,
) -> E:
    """Measure every cell once; one that was cut off continues unless it shall begin `again`."""
    run, file = runner.kept(fresh, root, again=again, aside=["quiet"])
    if run.rows:
        runner.say(console, f"continuing after {len(run.rows)} of {len(cells)}; kept in {file}")
    show = runner.progress(console, named)
    run = runner.run(run, lambda run: cells[len(run.rows) :], measure_one, file=file, show=show)
    file.unlink()
    return run


def chosen(asked: argparse.Namespace) -> tuple[list[Task], list[Round]]:
    """What is to be measured, and what is left out with the reason; raises `Refused`."""
    comparison = COMMANDS[asked.command]
    wanted = _known(vars(asked)[comparison.option], comparison.subjects)
    models = {"saturated": asked.models, "sparse": asked.sparse_models}
    tasks: list[Task] = []
    left_out: list[Round] = []
    for task in (
        Task(subject, model, load)
        for load in _known(asked.regimes, _loads(asked))
        for model in models[load.regime][: 1 if asked.quick else None]
        for subject in wanted
    ):
        subject, regime = task.subject, task.load.regime
        is_sparse_bench = (asked.command, regime) == ("bench", "sparse")
        if regime in subject.regimes or (is_sparse_bench and asked.sparse_all):
            if subject.key in _QUICK_SPARSE or not (is_sparse_bench and asked.quick):
                tasks.append(task)
        elif is_sparse_bench:
            reason = f"not run: {subject.left_out} (--sparse-all runs it)"
            left_out.append(
                Round(server=subject.key, model=task.model, regime=regime, number=0, reason=reason)
            )
    if not tasks:
        raise Refused("nothing to measure: no server, model and regime fit together")
    return tasks, left_out


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
    memory_bytes = round(asked.memory_mb * 1e6) if asked.memory_mb else None
    sparse = Load(
        regime="sparse",
        connections=asked.sparse_connections,
        seconds=asked.sparse_seconds,
        warmup_s=asked.think[1],
        timeout_s=10.0,
        limits=Limits(cpus=asked.cpus, memory_bytes=memory_bytes),
        server_cpus=asked.sparse_server_cpus or "",
        rate=asked.rate,
        think_s=asked.think,
    )
    if asked.quick:
        saturated = replace(saturated, seconds=1.0, warmup_s=0.3, connections=16)
        sparse = replace(sparse, seconds=1.5, warmup_s=0.3, connections=200, think_s=(0.2, 0.5))
    return {"saturated": saturated, "sparse": sparse}


def _named(cell: tuple[int, Task]) -> str:
    number, (subject, model, load) = cell
    return f"round {number}: {subject.key}, {model}, {load.regime}"


def line(found: Round) -> str:
    """One round for the terminal."""
    name = f"{found.number} {found.regime:9} {found.model:12} {found.server:16}"
    if (figures := found.figures) is None:
        return f"{name} {found.reason}"
    rate, latency = figures.requests / figures.seconds, figures.response.quantiles_ms
    doubts = f"  doubtful: {'; '.join(figures.doubts)}" if figures.doubts else ""
    return (
        f"{name} {figures.cpu_us:8.1f} µs/request {rate:8.0f}/s p50 {latency['p50']:.2f} p99 "
        f"{latency['p99']:.2f} ms, {figures.failed} failures{doubts}"
    )
