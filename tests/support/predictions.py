"""Answered predictions as the log is given them, and what a binary COPY of them says."""

import struct
from typing import Any, NamedTuple

from halfcore.prediction_log.blocks import COLUMNS, Block, Challenged, Entry, encode

WRITER = bytes(range(16))


class Manifest(NamedTuple):
    """What of a manifest is logged."""

    name: str
    version: str


class Model(NamedTuple):
    """What of a model is logged."""

    manifest: Manifest
    role: str = "champion"


IRIS = Model(Manifest("iris", "3"))


def entry(
    number: int = 0,
    *,
    model: Model = IRIS,
    request_id: str | None = None,
    challenged: Challenged | None = None,
    trace_id: str | None = None,
) -> Entry:
    """An answered request whose body tells its number."""
    return Entry(
        1_700_000_000.0 + number,
        model,
        request_id,
        b'{"features":[%d]}' % number,
        1,
        b'{"prediction":"a"}',
        0.001,
        challenged,
        trace_id,
    )


def block(first: int, rows: int = 3) -> Block:
    """Rows whose bodies tell their numbers."""
    return encode(
        [entry(number) for number in range(first, first + rows)],
        writer=WRITER,
        first=first,
        inputs=True,
    )


def rows_of(block: Block) -> list[dict[str, Any]]:
    """A block's rows by column, the values as bytes."""
    rows, offset = [], 0
    while offset < len(block.payload):
        (count,) = struct.unpack_from(">h", block.payload, offset)
        assert COLUMNS[:count] == block.columns
        offset += 2
        row: dict[str, Any] = {}
        for column in block.columns:
            (length,) = struct.unpack_from(">i", block.payload, offset)
            offset += 4
            row[column] = None if length < 0 else block.payload[offset : offset + length]
            offset += max(length, 0)
        rows.append(row)
    return rows
