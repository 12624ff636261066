"""`loadlab bench`, `ablate`, `ladder` and `protocols`: CPU time per request of several servers or
routes, side by side in one run, measured in rounds, each in another order. `loadlab memory`: what a
server holds at rest, while it loads, and with many quiet connections, and uses at rest; for
docs/operations.md.

`commands.toml` has the commands and their options.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, product
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.bench import models as of_models
from loadlab.experiments.bench import peers
from loadlab.experiments.bench.measure import (
    Load,
    Measured,
    Refused,
    Round,
    Run,
    answer_of,
    check_cpus,
    check_rounds,
    known,
    line,
    measure,
    server_cpu,
    watched,
)
from loadlab.experiments.bench.subjects import (
    HELPERS,
    OURS,
    PROTOCOLS,
    STEPS,
    SUBJECTS,
    VARIANTS,
    Need,
    Place,
    Subject,
)
from loadlab.generator.http import Client
from loadlab.generator.plan import raise_open_files
from loadlab.parser import add_command
from loadlab.record import cgroup, machine
from loadlab.record.cgroup import Limits
from loadlab.report.terminal import say
from loadlab.run.lock import alone
from loadlab.target import programs
from loadlab.target.process import Running, free_port, running
from loadlab.target.programs import Case

REST_S = 30.0
"""Seconds of rest over which CPU time is counted."""
ASKED = 3
"""Times that each connection asks, one after another, before it is quiet."""
_COMPARED = {"bench": SUBJECTS, "ablate": VARIANTS, "ladder": STEPS, "protocols": PROTOCOLS}
_REGIMES = """regimes:
  saturated  connections that ask without a pause: what a request costs at full load
  sparse     many connections that ask rarely, in limits of CPU time and memory"""
_QUICK_SPARSE = ("a", "b")
"""A smoke test starts few servers under a quota: they start slowly there."""


class Task(NamedTuple):
    """One server under one load."""

    subject: Subject
    model: str
    load: Load


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One model's server; bytes."""

    model: str
    file: int
    """Of model.onnx."""
    at_rest: int
    """Ready, no connection."""
    peak: int
    """Until then."""
    resident: int
    """RSS at rest, which counts the pages of shared libraries that are charged to others."""
    cpu: float | None = None
    """Share of a core that is used at rest; None in runs that did not measure it."""
    connections: int
    connected: int | None
    """With that many connections, each answered `ASKED` times and then quiet."""


class Memory(Measured[Held], frozen=True, kw_only=True):
    """A stored run. Measured is what the kernel charges to a control group without limits; no
    answer is timed, so it needs no quiet machine."""

    kind: Literal["memory"] = msgspec.field(name="what", default="memory")
    seed: int = 0
    """Nothing is drawn."""
    rows: list[Held] = msgspec.field(name="held", default_factory=list)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _think(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


_KINDS: dict[str, Callable[[str], Any]] = {
    "names": _names,
    "int": int,
    "float": float,
    "text": str,
    "path": Path,
    "think": _think,
}


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands and their arguments."""
    tables = msgspec.toml.decode(Path(__file__).with_name("commands.toml").read_bytes())
    for name, command in tables["command"].items():
        parser = add_command(commands, name, command["help"])
        if name in _COMPARED:
            says = "names, separated by commas, explained below"
            which = {"default": ",".join(_COMPARED[name]), "help": says}
            flag = f"--{command['option']}"
            _add_option(parser, flag=flag, kind="names", dest="subjects", **which)
            parser.formatter_class = argparse.RawDescriptionHelpFormatter
            parser.epilog = _legend(command["option"], _COMPARED[name])
        for option in chain(*(tables["option"][group] for group in command["options"])):
            _add_option(parser, **option)
        parser.set_defaults(**{"sparse_all": False} | command.get("defaults", {}))
        of_recipe = [parser.get_default(name) or "" for name in ("models", "sparse_models")]
        saturated, sparse = map(_names, of_recipe)
        usual = {"saturated": saturated, "sparse": sparse}
        parser.set_defaults(made=[*saturated, *sparse], usual_models=usual)


def _legend(option: str, subjects: Mapping[str, Subject]) -> str:
    """What the names among the values of the options mean."""
    width = max(map(len, subjects))
    lines = [f"  {key.ljust(width)}  {subject.title}" for key, subject in subjects.items()]
    return "\n".join([f"{option}:", *lines, "", _REGIMES])


def _add_option(parser: argparse.ArgumentParser, *, flag: str, kind: str = "", **more: Any) -> None:
    if kind:
        if more.get("default") is not None:
            more["help"] += " (default: %(default)s)"
        parser.add_argument(flag, type=_KINDS[kind], metavar=flag[2:].upper(), **more)
    else:
        parser.add_argument(flag, action="store_true", **more)


def planned(asked: argparse.Namespace) -> list[str]:
    """What a run with these options would measure, a line for each server, model and load; raises
    `Refused`, see `main`."""
    check_cpus()
    if asked.command == "peers":
        tasks = [
            Task(subject, model, load)
            for subject, model, loads in peers.chosen(asked)
            for load in loads
        ]
    else:
        tasks, _ = chosen(asked)
    of_models.check(asked.bundles, [task.model for task in tasks], asked.made)
    return [f"{subject.key}, {model}, {load.regime}" for subject, model, load in tasks]


def main(asked: argparse.Namespace, root: Path, console: Console) -> Path:
    """Measure and store, which takes minutes; returns the file.

    Raises:
        Refused: unknown names, nothing to measure, one CPU, or the machine is busy with others.
        lock.Busy: another lab runs.
        cgroup.Unavailable, programs.CaseError, process.CannotStart, measure.ClientFailed,
            plan.PlanError, OSError: see there.
    """
    if asked.command != "memory":  # which times nothing
        check_cpus()
    kinds: dict[str, Callable[..., Measured[Any]]]
    kinds = {"peers": peers.carry_out, "memory": _memory}
    with alone():
        try:
            measured = kinds.get(asked.command, _compare)(asked, root, console)
        except KeyboardInterrupt:
            continues = asked.command != "memory" and not asked.quick
            say(console, f"interrupted{'; the same command continues it' if continues else ''}")
            raise
        return runner.save(measured, asked.store)


def _compare(asked: argparse.Namespace, root: Path, console: Console) -> Run:
    tasks, left_out = chosen(asked)
    cgroup.version()
    # The servers inherit it.
    nofile = raise_open_files(max(task.load.connections for task in tasks))
    models = sorted({task.model for task in tasks})
    of_models.check(asked.bundles, models)
    cases = [programs.case(asked.bundles.resolve(), model) for model in models]
    cells = [(task.subject.key, task.model) for task in tasks]
    needs = {need for task in tasks for need in task.subject.needs}
    packages = programs.prepare_baseline(root) if "baseline" in needs else {}
    quiet = watched(asked)
    calibration = machine.calibrate()
    fresh = Run(
        kind=asked.command,
        started_at=runner.now(),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        seed=asked.seed,
        inputs=runner.digest(root, cells, [case.bundle.name for case in cases]),
        quick=asked.quick,
        fingerprint=replace(machine.fingerprint(root, packages, nofile), calibration=calibration),
        quiet=quiet,
        loads=list({task.load.regime: task.load for task in tasks}.values()),
    )
    uri = asked.tracking_uri or f"sqlite:///{(root / '.halfcore/mlflow.db').resolve()}"
    with _prepared(root, uri, needs, cases) as (place, held):

        def one(cell: tuple[int, Task]) -> Round:
            number, (subject, model, load) = cell
            seed = asked.seed + number
            found = measure(place, subject, held[model], load, number=number, seed=seed)
            say(console, line(found))
            return found

        blocks = runner.in_blocks(tasks, 1 if asked.quick else asked.rounds, asked.seed)
        again = asked.again or asked.quick
        named = "round {0[0]}: {0[1].subject.key}, {0[1].model}, {0[1].load.regime}".format
        run = runner.conduct_all(
            fresh, blocks, one, named, root, console, again=again, aside=["quiet"]
        )
    return replace(run, rows=[*left_out, *run.rows])


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
            place.answer_file(case.model).write_bytes(answer_of(place, OURS, case))
        yield place, held


def chosen(asked: argparse.Namespace) -> tuple[list[Task], list[Round]]:
    """What is to be measured, and what is left out with the reason; raises `Refused`."""
    check_rounds(asked.rounds)
    wanted = known(asked.subjects, _COMPARED[asked.command])
    models = {"saturated": asked.models, "sparse": asked.sparse_models}
    tasks: list[Task] = []
    left_out: list[Round] = []
    for load in known(asked.regimes, _loads(asked)):
        regime, shown = load.regime, models[load.regime]
        if asked.quick and shown == asked.usual_models[regime]:
            shown = shown[:1]
        is_sparse_bench = (asked.command, regime) == ("bench", "sparse")
        for model, subject in product(shown, wanted):
            if regime in subject.regimes or (is_sparse_bench and asked.sparse_all):
                if subject.key in _QUICK_SPARSE or not (is_sparse_bench and asked.quick):
                    tasks.append(Task(subject, model, load))
            elif is_sparse_bench:
                reason = f"not run: {subject.left_out} (--sparse-all runs it)"
                left_out.append(
                    Round(server=subject.key, model=model, regime=regime, number=0, reason=reason)
                )
    if not tasks:
        raise Refused("nothing to measure: no server, model and regime fit together")
    return tasks, left_out


def _loads(asked: argparse.Namespace) -> dict[str, Load]:
    saturated = Load(
        regime="saturated",
        connections=asked.connections,
        seconds=asked.seconds,
        warmup_s=2.0,
        timeout_s=30.0,
        limits=Limits(),
        server_cpus=server_cpu(),
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
        server_cpus="",
        rate=asked.rate,
        think_s=asked.think,
    )
    if asked.quick:
        saturated = replace(saturated, seconds=1.0, warmup_s=0.3, connections=16)
        sparse = replace(sparse, seconds=1.5, warmup_s=0.3, connections=200, think_s=(0.2, 0.5))
    return {"saturated": saturated, "sparse": sparse}


def _memory(asked: argparse.Namespace, root: Path, console: Console) -> Memory:
    cases = [programs.case(asked.bundles, name) for name in asked.models]
    nofile = raise_open_files(asked.connections)
    fresh = Memory(
        started_at=runner.now(),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        fingerprint=machine.fingerprint(root, {}, nofile),
    )

    def one(case: Case) -> Held:
        return _held(root, case, asked.connections if case is cases[0] else 0)

    named = attrgetter("model")
    return runner.conduct_all(fresh, cases, one, named, root, console, again=True)


def _held(root: Path, case: Case, connections: int) -> Held:
    with tempfile.TemporaryDirectory(prefix="loadlab-") as scratch:
        alone, port = programs.hold(case, Path(scratch)), free_port()
        command = OURS.command(Place(root, "", Path(scratch)), alone, port)
        with running("memory", command, port=port, limits=Limits()) as server:
            before, usage, start = server.group.memory(), server.group.usage(), time.monotonic()
            time.sleep(REST_S)
            rested = server.group.usage().since(usage).cpu_s / (time.monotonic() - start)
            pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
            return Held(
                model=case.model,
                file=(case.bundle / "model.onnx").stat().st_size,
                at_rest=before.current_bytes,
                peak=before.peak_bytes,
                resident=pages * os.sysconf("SC_PAGE_SIZE"),
                cpu=rested,
                connections=connections,
                connected=_connected(server, case.body, connections) if connections else None,
            )


def _connected(server: Running, body: str, count: int) -> int:
    with ExitStack() as stack:
        clients = [Client("127.0.0.1", server.port) for _ in range(count)]
        for client in clients:
            stack.callback(client.close)
            client.connect()
        for _ in range(ASKED):
            for client in clients:
                if (status := client.ask(body)[0]) != 200:
                    raise OSError(f"the server's status is {status}, expected 200")
        return server.group.memory().current_bytes
