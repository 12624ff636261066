"""Carrying a study out: every cell once in each block, in an order drawn from the seed; each row is
stored as soon as it is there."""

import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from loadlab.experiments.bench.subjects import prepare_baseline
from loadlab.experiments.compare.carry import UNDER_LOAD, Interrupted, trial
from loadlab.experiments.studies.form import Cell, Row, Study, What, save
from loadlab.record.histogram import quantile
from loadlab.record.read import Log, read
from loadlab.record.schema import Ended
from loadlab.report.command import conclude
from loadlab.run import session
from loadlab.run.order import too_small
from loadlab.run.session import Place, cool_down
from loadlab.target import haproxy
from loadlab.target.serving import BackendFailed
from loadlab.verdict.figures import answered, balancer_cpu_s, rate
from loadlab.verdict.judge import Verdict


def begin(
    what: What, cells: Sequence[Cell], *, blocks: int, seed: int, command: str, root: Path
) -> Study:
    """A study of which nothing has been run."""
    fingerprint = session.fingerprint(root)
    return Study(
        what=what,
        started_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        minutes=0.0,
        command=command,
        seed=seed,
        blocks=blocks,
        fingerprint=fingerprint,
        cells=list(cells),
        rows=[],
    )


def carry_out(
    study: Study, place: Place, store: Path, console: Console, *, say: Callable[[str], None]
) -> Study:
    """Make every run that is missing; returns the whole study, which is stored.

    Raises:
        BackendFailed: replicas need a balancer, and there is none.
        Interrupted: the user ended it; what was measured is stored.
        subprocess.CalledProcessError: the baseline's environment cannot be installed.
    """
    todo = plan(study)
    fitting = [cell for _, cell in todo if not too_small(cell.order.tier)]
    if any(cell.order.balancer != "none" for cell in fitting) and (reason := haproxy.missing()):
        raise BackendFailed(reason)
    if any(cell.order.service != "halfcore" for cell in fitting):
        fingerprint = msgspec.structs.replace(
            study.fingerprint, baseline_packages=prepare_baseline(place.root)
        )
        study = msgspec.structs.replace(study, fingerprint=fingerprint)
    for number, (block, cell) in enumerate(todo, 1):
        say(f"run {number} of {len(todo)}: block {block}, {cell.key}, {cell.order.service}")
        began = time.monotonic()
        row = _run(cell, block, place, console)
        minutes = round(study.minutes + (time.monotonic() - began) / 60, 1)
        study = msgspec.structs.replace(study, rows=[*study.rows, row], minutes=minutes)
        save(study, store)
    return study


def plan(study: Study) -> list[tuple[int, Cell]]:
    """(block, cell) of every run that is missing; the order within a block is drawn for each
    block, the same for the same seed."""
    found: list[tuple[int, Cell]] = []
    for block in range(1, study.blocks + 1):
        cells = list(study.cells)
        random.Random(f"{study.seed}/{block}").shuffle(cells)  # noqa: S311  an order, not a secret
        found += [(block, cell) for cell in cells if study.row(cell, block) is None]
    return found


def row(cell: Cell, block: int, log: Log, verdict: Verdict, ended: Ended) -> Row:
    """One run in the study's own numbers."""
    response = log.histogram("users", "response", *UNDER_LOAD)
    right, lasted_s = (
        answered(log.of("users", *UNDER_LOAD)),
        math.fsum(log.lasted_s(name) for name in UNDER_LOAD),
    )
    balancer = rate(log.sampled(*UNDER_LOAD), balancer_cpu_s)
    return Row(
        key=cell.key,
        service=cell.order.service,
        block=block,
        # One of them
        trial=trial(log, verdict, ended, block=block, side=cell.order.service),  # type: ignore[arg-type]
        answers_hz=right / lasted_s if lasted_s else None,
        p50_ms=quantile(response, 0.5) / 1000 if response else None,
        p95_ms=quantile(response, 0.95) / 1000 if response else None,
        balancer_us=balancer * lasted_s / right * 1e6 if balancer is not None and right else None,
        answered=[replica.answered for replica in log.run.replicas],
    )


def _run(cell: Cell, block: int, place: Place, console: Console) -> Row:
    """A fresh server, and its record; once again where that was INVALID. What this machine cannot
    measure is not run."""
    order = cell.order
    if sentence := too_small(order.tier):
        return Row(key=cell.key, service=order.service, block=block, reason=sentence)
    found = _once(cell, block, place, console)
    if found.trial and found.trial.outcome == "INVALID":
        return msgspec.structs.replace(
            _once(cell, block, place, console), first=found.trial.sentence
        )
    return found


def _once(cell: Cell, block: int, place: Place, console: Console) -> Row:
    cool_down()
    order = msgspec.structs.replace(cell.order, seed=cell.order.seed + block)
    folder, ended = session.carry_out(order, place, "cgroup", console, set_id="", repeat=1)
    verdict = conclude(folder, console)
    if ended.kind == "interrupted":
        raise Interrupted
    return row(cell, block, read(folder), verdict, ended)
