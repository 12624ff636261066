"""A stored comparison: one JSON file, written whole, with everything that its page says."""

from pathlib import Path
from typing import Literal

import msgspec

from loadlab.record.machine import Fingerprint
from loadlab.record.store import read, stamp, write
from loadlab.verdict.figures import Figures
from loadlab.verdict.judge import Outcome

FORMAT = 1
Side = Literal["halfcore", "typical", "tuned", "onnx", "image"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side."""

    block: int
    side: Side
    run: str
    """Of the load runs' history."""
    outcome: Outcome
    sentence: str
    could_start: bool
    cpu_us: float | None
    """The server's CPU time per right answer, from the first user to the end of the steady phase;
    None: no right answer."""
    p99_ms: float | None
    """Response time of right answers, in the same time."""
    memory_mib: float | None
    """Peak."""
    figures: Figures


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation."""

    format: int = FORMAT
    started_at: str
    minutes: float
    command: str
    seed: int
    """Of the order of the sides in each block, and of the users."""
    tier: str
    limits: str
    """In words."""
    scenario: str
    users: int
    steady_s: float
    model: str
    against: Side
    blocks: int
    """Made: those that were asked for, and one more for each of them that has an INVALID run."""
    image: str = ""
    """What `image` is: name and the engine's id of it."""
    fingerprint: Fingerprint
    trials: list[Trial]


def save(comparison: Comparison, folder: Path) -> Path:
    """Write it under `<date>-<time>-compare-<tier>-<against>-<users>.json`, whole or not at all."""
    sides = f"{comparison.tier}-{comparison.against}-{comparison.users}"
    file = folder / f"{stamp(comparison.started_at)}-compare-{sides}.json"
    return write(comparison, file)


def load(file: Path) -> Comparison:
    """Read a stored comparison; raises `StoreError`."""
    return read(file, Comparison, FORMAT)
