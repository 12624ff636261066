"""`loadlab peers`: halfcore and other model servers with one graph, one worker and one CPU each.

A visit starts one server for one model, proves its answers equal to the bundle's, and loads it in
one regime after another. Visits are made in rounds, each in another order. A peer that cannot be
installed, started or loaded is a result, and its row says why.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace
from rich.console import Console

from loadlab.experiments import runner
from loadlab.experiments.bench import forms, measure, models
from loadlab.experiments.bench.forms import Rows, WrongAnswer
from loadlab.experiments.bench.measure import (
    Figures,
    Load,
    Measured,
    Refused,
    Round,
    check_rounds,
    known,
    watched,
)
from loadlab.experiments.bench.subjects import PEER_REGIMES, PEERS, Place, Subject
from loadlab.generator.epoll import Pace, Plan, Regime
from loadlab.generator.http import ask, post
from loadlab.generator.plan import raise_open_files
from loadlab.record import cgroup, machine
from loadlab.record.cgroup import Limits, Memory
from loadlab.record.machine import Quiet
from loadlab.report.terminal import say
from loadlab.target import peers, programs
from loadlab.target.peers import Environment
from loadlab.target.process import CannotStart, Running, free_port, running
from loadlab.target.programs import Case

OURS = "halfcore"
OTHERS: tuple[Regime, ...] = ("saturated", "bulk")
"""Regimes of the models but the first, which is measured in all."""
_CALM_S, _CALM_CORES, _STEP_S = 3.0, 0.2, 0.1
_ASK_S = 20.0
_MOST_SAID, _FIRST_SAID = 300, 40
"""Characters of the reason why a server could not be measured."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Of a server, from its first instruction to its first right answer."""

    wall_s: float
    cpu_s: float
    memory: Memory
    """Right after it."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One server with one model, started once and loaded in every regime."""

    server: str
    model: str
    number: int
    """Of the round."""
    start: Start | None = None
    """None: it did not start, and the rounds say why."""
    proven: int = 0
    """Rows whose answers were compared with the bundle's."""
    rounds: list[Round]


class Peers(Measured[Visit], frozen=True, kw_only=True):
    """A stored run."""

    kind: Literal["peers"] = msgspec.field(name="what", default="peers")
    quiet: Quiet
    loads: list[Load]
    environments: dict[str, Environment]
    """By the peers' names."""
    rows: list[Visit] = msgspec.field(name="visits", default_factory=list)


class Task(NamedTuple):
    """A visit that is to be made."""

    subject: Subject
    model: str
    loads: Sequence[Load]


class _Questions(NamedTuple):
    """What is asked, with how its right answers begin."""

    single: list[tuple[str, str]]
    bulk: tuple[str, str] | None
    """Where a load asks for it: documented settings may not take so many rows."""
    proven: int


def carry_out(asked: argparse.Namespace, root: Path, console: Console) -> Peers:
    """Install what is missing, make every visit that is missing, and return all of them; for what
    it raises see `bench`."""
    tasks = chosen(asked)
    models.check(asked.bundles, asked.models)
    cgroup.version()
    nofile = raise_open_files(max(load.connections for task in tasks for load in task.loads))
    cases = {name: programs.case(asked.bundles.resolve(), name) for name in asked.models}
    environments = {}
    for name in dict.fromkeys(task.subject.words[0] for task in tasks):
        say(console, f"{name}: install its environment in {peers.ENVIRONMENTS / name}")
        environments[name] = peers.install(root, name)
    quiet = watched(asked)
    names = [(task.subject.key, task.model) for task in tasks]
    fingerprint = machine.fingerprint(root, {}, nofile)
    fresh = Peers(
        started_at=runner.now(),
        command=" ".join(["loadlab", *sys.argv[1:]]),
        seed=asked.seed,
        inputs=runner.digest(root, names, asked.rounds, [str(cases[n].bundle) for n in cases]),
        quick=asked.quick,
        fingerprint=replace(fingerprint, calibration=machine.calibrate()),
        quiet=quiet,
        loads=list({load.regime: load for task in tasks for load in task.loads}.values()),
        environments=environments,
    )
    cells = runner.in_blocks(tasks, 1 if asked.quick else asked.rounds, asked.seed)
    return _visited(fresh, cells, cases, root, console, again=asked.again or asked.quick)


def _visited(
    fresh: Peers,
    cells: Sequence[tuple[int, Task]],
    cases: Mapping[str, Case],
    root: Path,
    console: Console,
    *,
    again: bool,
) -> Peers:
    """All visits, those included that an earlier run of the same has made."""
    with tempfile.TemporaryDirectory(prefix="loadlab-") as scratch:
        place = Place(root, "", Path(scratch))

        def one(cell: tuple[int, Task]) -> Visit:
            number, (subject, model, loads) = cell
            case, seed = _held(cases[model], place.scratch), fresh.seed + number
            reason = fresh.environments[subject.words[0]].reason
            found = visit(place, subject, case, loads, number=number, seed=seed, reason=reason)
            for each in found.rounds:
                say(console, measure.line(each))
            return found

        named = "round {0[0]}: {0[1].subject.key}, {0[1].model}".format
        aside = ["quiet", "environments"]
        return runner.conduct_all(fresh, cells, one, named, root, console, again=again, aside=aside)


def chosen(asked: argparse.Namespace) -> list[Task]:
    """The visits of one round. The first model is measured in every regime, the others saturated
    and in bulk; documented settings in the regimes of their table, with the first model. Raises
    `Refused`."""
    check_rounds(asked.rounds)
    known(asked.peers, {subject.words[0]: subject for subject in PEERS.values()}, "peer")
    known(asked.regimes, dict.fromkeys(PEER_REGIMES), "regime")
    loads = _loads(quick=asked.quick)
    tasks = []
    for place, model in enumerate(asked.models):
        for subject in PEERS.values():
            if subject.words[0] not in (OURS, *asked.peers) or (place and not is_best(subject)):
                continue
            regimes = [each for each in subject.regimes if place == 0 or each in OTHERS]
            if here := [loads[each] for each in regimes if each in asked.regimes]:
                tasks.append(Task(subject, model, here))
    if not tasks:
        raise Refused("nothing to measure: no peer, model and regime fit together")
    return tasks


def is_best(subject: Subject) -> bool:
    """Whether these are the best settings of a peer, or halfcore's defaults."""
    return subject.words[-1] in ("tuned", OURS)


def _loads(*, quick: bool) -> dict[Regime, Load]:
    """Short windows: there are many of them, and a whole run takes less than half an hour."""

    held_to = measure.server_cpu()

    def load(regime: Regime, connections: int, seconds: float = 1.5, warmup_s: float = 0.3) -> Load:
        return Load(
            regime=regime,
            connections=connections,
            seconds=0.5 if quick else seconds,
            warmup_s=0.2 if quick else warmup_s,
            timeout_s=10.0,
            limits=Limits(),
            server_cpus=held_to,
            rows="one" if regime == "bulk" else "golden",
            rate=2000.0,
            think_s=(0.2, 0.5) if quick else (4.0, 9.0),
        )

    return {
        "single": load("single", 1),
        "saturated": load("saturated", 16 if quick else 64),
        "crowd": load("crowd", 64 if quick else 512),
        "bulk": load("bulk", 4),
        "sparse": load("sparse", 200 if quick else 10_000, 5.0, 3.0),
    }


@cache
def _held(case: Case, scratch: Path) -> Case:
    """A copy that no export changes, kept for all visits."""
    return programs.hold(case, scratch / "bundles")


_golden, _bulk = cache(forms.golden), cache(forms.bulk)
"""The right answers are the same for all."""


def visit(
    place: Place,
    subject: Subject,
    case: Case,
    loads: Sequence[Load],
    *,
    number: int,
    seed: int,
    reason: str = "",
) -> Visit:
    """Start a server and load it in one regime after another. One that ends is started again for
    the next; `reason`: why it cannot be started at all."""
    found = Visit(server=subject.key, model=case.model, number=number, rounds=[])
    left, bulk = list(loads), any(load.regime == "bulk" for load in loads)
    cpus = loads[0].server_cpus
    while left and not reason:
        try:
            with _started(place, subject, case, cpus, bulk=bulk) as (server, start, questions):
                found = replace(found, start=found.start or start, proven=questions.proven)
                while left and server.process.poll() is None:
                    load = left.pop(0)
                    plan = _plan(server, subject, case, load, questions, seed)
                    found.rounds.append(_round(found, load, *_loaded(server, plan, load)))
                    _calm(server)
        except (CannotStart, WrongAnswer, OSError) as error:
            said = " ".join(str(error).replace(f"{place.root}/", "").split())
            # The last words name the cause, the first ones how it ended.
            if len(said) > _MOST_SAID:
                said = f"{said[:_FIRST_SAID]} … {said[_FIRST_SAID - _MOST_SAID :]}"
            reason = f"not measured: {said}"
    for load in left:
        found.rounds.append(_round(found, load, None, reason))
    return found


def _round(found: Visit, load: Load, figures: Figures | None, reason: str) -> Round:
    return Round(
        server=found.server,
        model=found.model,
        number=found.number,
        regime=load.regime,
        figures=figures,
        reason=reason,
    )


@contextmanager
def _started(
    place: Place, subject: Subject, case: Case, cpus: str, *, bulk: bool
) -> Iterator[tuple[Running, Start, _Questions]]:
    """A server that has answered, and the proof of its answers; raises `CannotStart`,
    `WrongAnswer`."""
    port, first = free_port(), _golden(case)[0]
    command = subject.command(place, case, port)
    timeout_s = subject.ready_timeout_s
    began = time.monotonic()
    with running(
        subject.label, command, port=port, limits=Limits(), cpus=cpus, ready_timeout_s=timeout_s
    ) as server:
        request = forms.body(subject.form, case, first)
        _await_answer(server, subject, case, request, began + timeout_s)
        start = Start(
            wall_s=time.monotonic() - began,
            cpu_s=server.group.usage().cpu_s,
            memory=server.group.memory(),
        )
        yield server, start, _proven(server, subject, case, bulk=bulk)


def _await_answer(
    server: Running, subject: Subject, case: Case, request: str, until: float
) -> None:
    said = "no answer"
    while time.monotonic() < until:
        if ended := server.ended("the server"):
            raise CannotStart(ended)
        try:
            status, body = _ask(server, subject, case, request)
            if status == 200:
                return
            said = f"{status} {body[:200].decode(errors='replace')}"
        except (OSError, ValueError) as error:
            said = str(error)
        time.sleep(_STEP_S / 4)
    raise CannotStart(f"does not answer in time: {said}; {server.last_words()}")


def _ask(server: Running, subject: Subject, case: Case, request: str) -> tuple[int, bytes]:
    address = ("127.0.0.1", server.port)
    path = subject.path.format(model=case.model)
    return ask(*address, post(address, path, request), timeout_s=_ASK_S)


def _proven(server: Running, subject: Subject, case: Case, *, bulk: bool) -> _Questions:
    def question(rows: Rows) -> tuple[str, str]:
        request = forms.body(subject.form, case, rows)
        status, body = _ask(server, subject, case, request)
        if status != 200:
            said = body[:200].decode(errors="replace")
            raise WrongAnswer(f"{len(rows.bodies)} rows: answers {status} {said}, expected 200")
        return request, forms.check(subject.form, case, rows, body)

    single = [question(rows) for rows in _golden(case)]
    if not bulk:
        return _Questions(single, None, len(single))
    return _Questions(single, question(_bulk(case)), len(single) + forms.BULK_ROWS)


def _plan(
    server: Running, subject: Subject, case: Case, load: Load, asked: _Questions, seed: int
) -> Plan:
    many = [asked.bulk] if asked.bulk and load.regime == "bulk" else []
    (body, prefix), *others = many or asked.single
    return Plan(
        port=server.port,
        path=subject.path.format(model=case.model),
        body=body,
        prefix=prefix,
        others=tuple(others),
        seed=seed,
        group=server.group.name,
        **{name: getattr(load, name) for name in Pace.__struct_fields__},
    )


def _loaded(server: Running, plan: Plan, load: Load) -> tuple[Figures | None, str]:
    try:
        return measure.loaded(server, plan, load)
    except (measure.ClientFailed, OSError) as error:  # the others of a long run are not lost
        return None, f"the lab failed: {error}"


def _calm(server: Running) -> None:
    """Wait until the server has answered what nobody waits for any more; one that is never idle is
    not waited for longer than a moment."""
    until, before = time.monotonic() + _CALM_S, server.group.usage().cpu_s
    while time.monotonic() < until and server.process.poll() is None:
        time.sleep(_STEP_S)
        used = server.group.usage().cpu_s
        if used - before < _CALM_CORES * _STEP_S:
            return
        before = used
