"""The runner of every experiment: cells in blocks drawn from a seed, or chosen one after the other
from what has been measured.

An experiment is stored whole after every cell, so that one that was cut off continues.
"""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from rich.console import Console, RenderableType

from loadlab.record import machine, store
from loadlab.record.machine import Fingerprint
from loadlab.record.store import StoreError
from loadlab.report.page import environment
from loadlab.report.terminal import say

STORED = Path("docs/runs")
"""Where finished experiments are, from the checkout's root."""
KEPT = Path(".halfcore/experiments")
"""Where an experiment is until it is finished, from the checkout's root."""
_CODE = ("server", "loadlab", "compose", "uv.lock")
"""Paths whose uncommitted changes may change a result; the commit does not show them."""
_FILE_COLUMNS = 200

C = TypeVar("C")
R = TypeVar("R")


class Experiment(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """One experiment as it is stored; each kind adds what was asked of it."""

    format: int = 2
    kind: str
    started_at: str
    """UTC, ISO 8601."""
    minutes: float = 0.0
    """Of cells; breaks between invocations are left out."""
    command: str
    """Of the first invocation."""
    seed: int
    """Of the order of the cells in each block, and of the users."""
    inputs: str = ""
    """Digest of what decides the result and is in no commit: changes to the code, the models."""
    fingerprint: Fingerprint
    rows: list[R] = []
    """In the order in which they were measured."""

    @property
    def about(self) -> str:
        """What distinguishes experiments of a kind, for the file's name."""
        return ""

    @property
    def file_name(self) -> str:
        """`<date>-<time>-<kind>-<about>.json`."""
        parts = (store.stamp(self.started_at), self.kind, self.about)
        return f"{'-'.join(filter(None, parts))}.json"


E = TypeVar("E", bound=Experiment[Any])


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def save(experiment: Experiment[Any], folder: Path) -> Path:
    """Write it under its own name, whole or not at all."""
    return store.write(experiment, folder / experiment.file_name)


def finish(
    experiment: Experiment[Any], kept: Path | None, root: Path, *shown: RenderableType
) -> None:
    """Store a finished experiment for the pages, print what it says, and keep it no longer."""
    file = save(experiment, root / STORED)
    show(*shown, f"stored in {file}; `loadlab render` shows it in docs/benchmarks.md")
    if kept:
        kept.unlink()


def show(*shown: RenderableType) -> None:
    """Print tables and sentences of a result; a file has room for wide ones."""
    out = Console() if Console().is_terminal else Console(width=_FILE_COLUMNS)
    for each in shown:
        say(out, each) if isinstance(each, str) else out.print(each)


def load(file: Path, kind: type[E]) -> E:
    """Read a stored experiment in its kind's format; raises `StoreError`."""
    (form,) = (each.default for each in msgspec.structs.fields(kind) if each.name == "format")
    return store.read_file(file, kind, form)


def digest(root: Path, *others: object) -> str:
    """What differs from the commit, and whatever else decides a result."""
    changes = machine.git(root, "diff", "HEAD", "--", *_CODE)
    return hashlib.sha256(msgspec.json.encode([changes, *others])).hexdigest()


def kept(fresh: E, root: Path, *, again: bool = False, aside: Sequence[str] = ()) -> tuple[E, Path]:
    """What was kept of the same experiment, or the fresh one; and the file that keeps it.

    The same are its cells, code, models and machine, however fast that is today. A result that is
    stored in the checkout makes it dirty, and changes nothing: only the code's own changes count.

    Args:
        again: forget what was kept.
        aside: fields of the kind that are of the moment, and may differ.
    """
    moment = {"started_at", "command", "minutes", "rows", *aside}
    asked = msgspec.structs.asdict(fresh)
    asked["fingerprint"] = msgspec.structs.replace(fresh.fingerprint, dirty=False, calibration=None)
    same = [each for name, each in asked.items() if name not in moment]
    name = hashlib.sha256(msgspec.json.encode(same)).hexdigest()[:12]
    file = root / KEPT / f"{'-'.join(filter(None, (fresh.kind, fresh.about, name)))}.json"
    if again:
        file.unlink(missing_ok=True)
    try:
        return load(file, type(fresh)), file
    except StoreError:  # there is none, or it is of another version of the lab
        return fresh, file


def in_blocks(
    cells: Sequence[C],
    blocks: int,
    seed: int,
    done: Callable[[int, C], bool] = lambda *_: False,
) -> list[tuple[int, C]]:
    """(block, cell) of everything that is missing; the order within a block is drawn for each
    block, the same for the same seed."""
    found: list[tuple[int, C]] = []
    for block in range(1, blocks + 1):
        drawn = list(cells)
        random.Random(f"{seed}/{block}").shuffle(drawn)  # noqa: S311  an order, not a secret
        found += [(block, cell) for cell in drawn if not done(block, cell)]
    return found


def run(
    experiment: E,
    left: Callable[[E], Sequence[C]],
    measure: Callable[[C], object],
    *,
    file: Path,
    show: Callable[[E, Sequence[C]], object],
) -> E:
    """Measure cell after cell, and store after each, until none is left.

    Args:
        experiment: fresh, or as it was kept.
        left: what is to be measured, the next cell first, as far as it can be foreseen.
        measure: makes the row of a cell.
        file: where the experiment is stored.
        show: called before every cell, with what is left.
    """
    while cells := left(experiment):
        show(experiment, cells)
        began = time.monotonic()
        row = measure(cells[0])
        minutes = round(experiment.minutes + (time.monotonic() - began) / 60, 1)
        experiment = msgspec.structs.replace(
            experiment, rows=[*experiment.rows, row], minutes=minutes
        )
        store.write(experiment, file)
    return experiment


def conduct(
    fresh: E,
    measure: Callable[[C], object],
    name: Callable[[C], str],
    root: Path,
    console: Console,
    *,
    left: Callable[[E], Sequence[C]] = attrgetter("left"),
    again: bool = False,
    aside: Sequence[str] = (),
) -> tuple[E, Path]:
    """Measure what is missing, after what was kept of the same experiment; returns all of it, and
    the file that keeps it. Arguments are those of `run`, `progress` and `kept`."""
    found, file = kept(fresh, root, again=again, aside=aside)
    if done := len(found.rows):
        say(console, f"continuing after {done} of {done + len(left(found))}; kept in {file}")
    return run(found, left, measure, file=file, show=progress(console, name)), file


def conduct_all(
    fresh: E, cells: Sequence[C], measure: Callable[[C], object], *rest: Any, **more: Any
) -> E:
    """Measure the cells in their order, as `conduct`; what was kept is not needed once all are
    measured."""
    found, file = conduct(fresh, measure, *rest, left=lambda run: cells[len(run.rows) :], **more)
    file.unlink()
    return found


def progress(
    console: Console, name: Callable[[C], str]
) -> Callable[[Experiment[Any], Sequence[C]], None]:
    """Prints a line before every cell: what is next, how many are done, and how long those took and
    the others will."""

    def show(experiment: Experiment[Any], cells: Sequence[C]) -> None:
        done, minutes = len(experiment.rows), experiment.minutes
        to_go = f", about {minutes / done * len(cells):.0f} min to go" if done else ""
        so_far = f"{done}/{done + len(cells)} done in {minutes:g} min{to_go}"
        say(console, f"{name(cells[0])} · {so_far}")

    return show


_TEMPLATES = environment("loadlab.experiments")
_TEMPLATES.filters["line"] = lambda text: " ".join(text.splitlines())


def said(template: str, **context: Any) -> list[str]:
    """The sentences of a template, one from each of its lines."""
    text = _TEMPLATES.get_template(f"{template}.j2").render(context)
    return [line for line in text.splitlines() if line]
