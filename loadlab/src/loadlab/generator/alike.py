"""Endless different bodies that take the same work: they distinguish a cache of answers from a
processor that has one path of a model in its own caches.

One body for all users is cheaper where answers are remembered. It is cheaper too where a forest is
large: the nodes of one path stay in the processor's cache. So it is held against bodies that nobody
has sent before, and that take the same path: rows with one number far beyond the data. Every
threshold of a tree lies below it, and a linear model multiplies by it as by any other.
"""

import json
from collections.abc import Callable, Iterator

import msgspec

from loadlab.generator.exchange import Exchange, WrongAnswer, learn

MOST = 8_000_000
"""Different bodies; all have the same length, and all are different as float32."""
_FAR = 1_000_000
_MARK = "\0"


class Alike(msgspec.Struct, frozen=True):
    """A body with a hole for a number."""

    before: str
    after: str
    answer: str = ""
    """To the first of them. The others' are unknown: only the status is checked."""

    def body(self, number: int) -> str:
        """One of them; number: from 0, below `MOST`."""
        return f"{self.before}{_FAR + number}{self.after}"

    @property
    def first(self) -> Exchange:
        """The one that all users send."""
        return Exchange(self.body(0), self.answer)


def find(body: str, ask: Callable[[str], tuple[int, bytes]]) -> Alike | None:
    """Make a body's first number that the server takes so large the hole; None: it takes none."""
    for made in _holes(body):
        try:
            first, _ = learn([made.body(0), made.body(MOST - 1)], ask)
        except WrongAnswer:
            continue
        return msgspec.structs.replace(made, answer=first.answer)
    return None


def _holes(body: str) -> Iterator[Alike]:
    row = json.loads(body)
    values = row["features"] if isinstance(row.get("features"), list) else row
    for key, value in list(enumerate(values) if isinstance(values, list) else values.items()):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            values[key] = _MARK
            before, after = json.dumps(row, separators=(",", ":")).split(json.dumps(_MARK))
            values[key] = value
            yield Alike(before, after)
