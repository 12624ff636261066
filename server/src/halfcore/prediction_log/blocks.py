"""Blocks: numbered rows of the table `prediction_log`, encoded for PostgreSQL's binary COPY.

The JSON of request and answer is copied byte for byte: nothing is parsed or encoded again.
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
    "trace_id",
)
"""In the order in which `encode` writes them. `trace_id` is left out of a block without any: such
blocks are as those of the version before. The spool's format depends on the columns: a change needs
a new `spool.MAGIC`."""
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""The start of a binary COPY: signature, flags, no extension."""
TRAILER = b"\xff\xff"
LONGEST_ID = 128
_EPOCH_S = 946_684_800
"""1 January 2000, PostgreSQL's epoch, in Unix time."""
_FIXED = struct.Struct(">hiqi16siqiiifi")
"""Field count, then length and value of: at, writer, row_number, row_count, latency_s; then the
length of request_id."""
_COUNT = struct.Struct(">h")
_LENGTH = struct.Struct(">i")
_FLOAT = struct.Struct(">if")
_NULL = _LENGTH.pack(-1)
_NO_CHALLENGER = _NULL * 4


class Model(Protocol):
    """The logged part of a served model."""

    @property
    def manifest(self) -> Any:
        """Has a name and a version."""

    @property
    def role(self) -> str:
        """`champion`, or `challenger` for a canary."""


class Challenged(NamedTuple):
    """What a shadow did with a request."""

    version: str
    outcome: str
    """`answered`, `failed`, or `dropped` if its queue was full or the event loop was late."""
    answer: bytes | None = None
    latency_s: float | None = None


class Entry(NamedTuple):
    """What is logged of one answered request."""

    at: float
    """Unix time, seconds."""
    model: Model
    request_id: str | None
    body: bytes
    row_count: int
    answer: bytes
    latency_s: float
    challenged: Challenged | None
    trace_id: str | None = None


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
    def columns(self) -> tuple[str, ...]:
        """Those of `COLUMNS` that its rows have: all rows of a block have the same number."""
        (count,) = _COUNT.unpack_from(self.payload)
        return COLUMNS[:count]

    @property
    def end(self) -> int:
        """The number after the last row's."""
        return self.first + self.rows


def encode(entries: Sequence[Entry], *, writer: bytes, first: int, inputs: bool) -> Block:
    """Encode entries as rows.

    Args:
        entries: at least one.
        writer: the writer's UUID, 16 bytes; its first half is the prefix of ids for requests
            without one.
        first: number of the first row.
        inputs: whether the requests' JSON is logged.
    """
    parts: list[bytes] = []
    fixed, length = _FIXED.pack, _LENGTH.pack
    prefix = writer[:8].hex()
    last: Model | None = None
    names = b""
    times = []
    traced = any(entry[-1] is not None for entry in entries)
    count = len(COLUMNS) if traced else len(COLUMNS) - 1
    for number, entry in enumerate(entries, first):
        at, model, request_id, body, rows, answer, latency_s, challenged, trace_id = entry
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
            fixed(count, 8, micros, 16, writer, 8, number, 4, rows, 4, latency_s, len(name)),
            name,
            names,
            length(len(body)) if inputs else _NULL,
            body if inputs else b"",
            length(len(answer)),
            answer,
            _NO_CHALLENGER if challenged is None else _challenged(challenged),
        )
        if traced:
            parts.append(_NULL if trace_id is None else _text(trace_id))
    return Block(first, len(entries), min(times), max(times), b"".join(parts))


def split(block: Block) -> Iterator[Block]:
    """The same rows, one block each; to find the row that the database refuses."""
    offset = 0
    for number in range(block.first, block.end):
        start = offset
        offset += 2
        for _ in block.columns:
            (length,) = _LENGTH.unpack_from(block.payload, offset)
            offset += 4 + max(length, 0)
        yield Block(number, 1, block.earliest, block.latest, block.payload[start:offset])


def days(block: Block) -> range:
    """The days of a block's rows, as numbers counted from 1 January 2000 in UTC."""
    day = 86_400_000_000
    return range(block.earliest // day, block.latest // day + 1)


def is_sane(request_id: str) -> bool:
    """Whether a client's id may be logged unchanged."""
    return 0 < len(request_id) <= LONGEST_ID and request_id.isascii() and request_id.isprintable()


def _text(value: str) -> bytes:
    content = value.encode()
    return _LENGTH.pack(len(content)) + content


def _challenged(said: Challenged) -> bytes:
    answer = _NULL if said.answer is None else _LENGTH.pack(len(said.answer)) + said.answer
    latency = _NULL if said.latency_s is None else _FLOAT.pack(4, said.latency_s)
    return _text(said.version) + _text(said.outcome) + answer + latency
