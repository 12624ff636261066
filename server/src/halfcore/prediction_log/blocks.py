"""Blocks: numbered rows of the table `prediction_log`, laid out for PostgreSQL's binary COPY.

A request's own JSON and the answer's own bytes are copied as they are: nothing is parsed or encoded
again.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

COLUMNS = (
    "at",
    "writer",
    "row_number",
    "row_count",
    "latency_s",
    "request_id",
    "model",
    "version",
    "role",
    "inputs",
    "answer",
    "challenger_version",
    "challenger_outcome",
    "challenger_answer",
    "challenger_latency_s",
)
"""In the order in which `encode` writes them. They are part of the spool's format: a change needs a
new `spool.MAGIC`."""
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What a binary COPY begins with: signature, flags, no extension."""
TRAILER = b"\xff\xff"
LONGEST_ID = 128
_EPOCH_S = 946_684_800
"""1 January 2000 in Unix time, from which PostgreSQL counts."""
_FIXED = struct.Struct(">hiqi16siqiiifi")
"""Field count, then length and value of: at, writer, row_number, row_count, latency_s; then the
length of request_id."""
_LENGTH = struct.Struct(">i")
_FLOAT = struct.Struct(">if")
_NULL = _LENGTH.pack(-1)
_NO_CHALLENGER = _NULL * 4


class Model(Protocol):
    """What of a served model is logged."""

    @property
    def manifest(self) -> Any:
        """Has a name and a version."""

    @property
    def role(self) -> str:
        """`champion`, or `challenger` if it answers a share of another's requests."""


class Sized(Protocol):
    """A request's rows."""

    @property
    def size(self) -> int:
        """How many there are."""


class Challenged(NamedTuple):
    """What a shadowing challenger made of a request."""

    version: str
    outcome: str
    """`answered`, `failed`, or `dropped` if it was not asked for want of room or time."""
    answer: bytes | None = None
    latency_s: float | None = None


Entry = tuple[float, Model, str | None, bytes, int, bytes, float, Challenged | None]
"""One answered request: Unix time, model, the client's id, body, rows, answer, seconds, and what
the challenger said."""


class Block(NamedTuple):
    """Rows `first` … `first + rows - 1` of one writer."""

    first: int
    rows: int
    earliest: int
    """The least of the rows' times, microseconds since 2000."""
    latest: int
    payload: bytes
    """The rows as tuples of a binary COPY, without its header and trailer."""

    @property
    def end(self) -> int:
        """The number after the last row's."""
        return self.first + self.rows


def encode(entries: Sequence[Entry], *, writer: bytes, first: int, inputs: bool) -> Block:
    """Lay out entries as rows.

    Args:
        entries: at least one.
        writer: the writer's UUID, 16 bytes; its first half begins the ids of requests that bring
            none.
        first: number of the first row.
        inputs: whether the requests' own JSON is logged.
    """
    parts: list[bytes] = []
    fixed, length = _FIXED.pack, _LENGTH.pack
    prefix = writer[:8].hex()
    last: Model | None = None
    names = b""
    times = []
    for number, (at, model, request_id, body, rows, answer, latency_s, challenged) in enumerate(
        entries, first
    ):
        if model is not last:
            last, names = (
                model,
                _text(model.manifest.name) + _text(model.manifest.version) + _text(model.role),
            )
        micros = int((at - _EPOCH_S) * 1e6)
        times.append(micros)
        name = (
            request_id if request_id is not None and is_sane(request_id) else f"{prefix}-{number}"
        ).encode()
        parts += (
            fixed(len(COLUMNS), 8, micros, 16, writer, 8, number, 4, rows, 4, latency_s, len(name)),
            name,
            names,
            length(len(body)) if inputs else _NULL,
            body if inputs else b"",
            length(len(answer)),
            answer,
            _NO_CHALLENGER if challenged is None else _challenged(challenged),
        )
    return Block(first, len(entries), min(times), max(times), b"".join(parts))


def split(block: Block) -> Iterator[Block]:
    """The same rows, each as a block of its own; for finding the one that the database refuses."""
    offset = 0
    for number in range(block.first, block.end):
        start = offset
        offset += 2
        for _ in COLUMNS:
            (length,) = _LENGTH.unpack_from(block.payload, offset)
            offset += 4 + max(length, 0)
        yield Block(number, 1, block.earliest, block.latest, block.payload[start:offset])


def days(block: Block) -> range:
    """The days of a block's rows, as numbers counted from 1 January 2000 in UTC."""
    day = 86_400_000_000
    return range(block.earliest // day, block.latest // day + 1)


def is_sane(request_id: str) -> bool:
    """Whether a client's id is logged as it is."""
    return 0 < len(request_id) <= LONGEST_ID and request_id.isascii() and request_id.isprintable()


def _text(value: str) -> bytes:
    content = value.encode()
    return _LENGTH.pack(len(content)) + content


def _challenged(said: Challenged) -> bytes:
    answer = _NULL if said.answer is None else _LENGTH.pack(len(said.answer)) + said.answer
    latency = _NULL if said.latency_s is None else _FLOAT.pack(4, said.latency_s)
    return _text(said.version) + _text(said.outcome) + answer + latency
