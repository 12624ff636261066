"""A stored study: one JSON file, written whole after every run, so that a study that was cut off
continues where it ended."""

from pathlib import Path
from typing import Literal, get_args

import msgspec

from loadlab.experiments.compare.form import Trial
from loadlab.record.machine import Fingerprint
from loadlab.record.store import StoreError, read, stamp, write
from loadlab.run.order import Order

FORMAT = 1
What = Literal["seeds", "scale", "quota-study"]
KINDS: tuple[What, ...] = get_args(What)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of one service; `key` and `order.service` together name it."""

    key: str
    order: Order


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one cell, or why there was none. Figures are of everything from the first user to
    the end of the steady phase."""

    key: str
    service: str
    block: int
    reason: str = ""
    """Without a trial: why."""
    trial: Trial | None = None
    first: str = ""
    """Why the run before this one was INVALID, which proves nothing and was repeated once."""
    answers_hz: float | None = None
    """Right answers a second."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    balancer_us: float | None = None
    """The balancer's CPU time per right answer; it is contained in the trial's."""
    answered: list[int | None] = []
    """By each replica since all users were there, as it counts itself."""


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation, and those that went on with it."""

    format: int = FORMAT
    what: What
    started_at: str
    """UTC, ISO 8601."""
    minutes: float
    """Of runs, breaks between invocations left out."""
    command: str
    seed: int
    """Of the order of the cells in each block, and of the users."""
    blocks: int
    """How often every cell is run."""
    fingerprint: Fingerprint
    cells: list[Cell]
    rows: list[Row]

    def row(self, cell: Cell, block: int) -> Row | None:
        """What became of one run, if it has been made."""
        wanted = (cell.key, cell.order.service, block)
        return next((row for row in self.rows if (row.key, row.service, row.block) == wanted), None)

    @property
    def missing(self) -> int:
        """Runs that are still to be made."""
        return len(self.cells) * self.blocks - len(self.rows)


def save(study: Study, folder: Path) -> Path:
    """Write it under `<date>-<time>-<what>.json`, whole or not at all."""
    file = folder / f"{stamp(study.started_at)}-{study.what}.json"
    return write(study, file)


def load(file: Path) -> Study:
    """Read a stored study; raises `StoreError`."""
    return read(file, Study, FORMAT)


def newest(folder: Path, what: What) -> Path | None:
    """The newest stored study of a kind."""
    return max(folder.glob(f"*-{what}.json"), default=None)


def to_go_on(folder: Path, fresh: Study) -> Study:
    """The newest study of the kind, if it is the same one, of the same code, and was cut off; else
    the fresh one."""
    file = newest(folder, fresh.what)
    if file is None:
        return fresh
    try:
        stored = load(file)
    except StoreError:  # of another version of the lab
        return fresh
    same = (stored.cells, stored.blocks, stored.seed, stored.fingerprint.commit) == (
        fresh.cells,
        fresh.blocks,
        fresh.seed,
        fresh.fingerprint.commit,
    )
    return stored if same and stored.missing else fresh
