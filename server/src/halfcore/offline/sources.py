"""Tables as they are read: an open file, lines that are not too long, and rows in chunks."""

import gzip
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

CHUNK_ROWS = 8192
"""Rows in memory at a time, for each thread of the model."""
CHUNK_BYTES = 1 << 24
"""A chunk has fewer rows where they are long, so that memory stays bounded."""
STEP_ROWS = 128
"""Rows that are read without a look at the bytes."""
BLOCK_BYTES = 1 << 16
_LONGEST_LINE = 1 << 22
_GZIP = b"\x1f\x8b"
_T = TypeVar("_T")
Values = Sequence[Any] | NDArray[Any]


class FileError(Exception):
    """A file cannot be read or written; the message names it and says what to do."""


class Broken(NamedTuple):
    """A row that cannot be read."""

    reason: str


class Chunk(NamedTuple):
    """Some rows of a table; the only one of an empty table has none."""

    lines: Sequence[int]
    """For each row, the line of the file where it begins, or its number in a Parquet file."""
    columns: dict[str, Values]
    """The model's columns: name → values, all equally many; null for a missing one."""
    broken: dict[int, str]
    """Row → why it cannot be read; its values mean nothing."""
    done: float
    """Share of the file that was read, 0 to 1; 0 if it is unknown."""
    kept: Sequence[Any] = ()
    """The values of each column to keep; of a Parquet file as Arrow has them."""


class Wanted(NamedTuple):
    """The columns to read."""

    names: Sequence[str]
    by_position: bool
    """The model has no names: columns of other names are taken in order, if they are as many."""
    keep: Sequence[str] = ()
    """Columns that are copied to the answers."""


class Source(NamedTuple):
    """An open file."""

    stream: io.BufferedReader | gzip.GzipFile
    raw: io.BufferedReader
    """The file as it is on the disk."""
    size: int
    """0: unknown."""

    def share(self) -> float:
        """How much of it was read."""
        if not self.size:
            return 0.0
        return min(os.lseek(self.raw.fileno(), 0, os.SEEK_CUR) / self.size, 1.0)


@contextmanager
def opened(path: str) -> Iterator[Source]:
    """Open a file, or standard input for `-`; expand it if it is compressed with gzip."""
    with os.fdopen(os.dup(0), "rb") if path == "-" else Path(path).open("rb") as raw:
        status = os.fstat(raw.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        if raw.peek(2)[:2] != _GZIP:
            yield Source(raw, raw, size)
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield Source(stream, raw, size)


class Bounded(io.BufferedIOBase):
    """A stream of lines, none of them so long that memory grows with it.

    Attributes:
        done: bytes that were read.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._read, self._name = source.stream.read1, name
        self.done = self._since_end = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read1(self, size: int = -1, /) -> bytes:
        """Some bytes; raises `FileError` in a line that is too long."""
        part = self._read(max(size, BLOCK_BYTES))
        self.done += len(part)
        if b"\n" in part or b"\r" in part:
            self._since_end = 0
        else:
            self._since_end += len(part)
            if self._since_end > _LONGEST_LINE:
                raise FileError(
                    f"{self._name} has a line of more than {_LONGEST_LINE:,} bytes, expected one "
                    "row per line"
                )
        return part


class Some(NamedTuple, Generic[_T]):
    """Rows before they are columns."""

    lines: Sequence[int]
    rows: list[_T]
    broken: dict[int, str]


def gathered(steps: Iterator[Some[_T]], done: Callable[[], int]) -> Iterator[Some[_T]]:
    """Steps of `STEP_ROWS` as chunks; at least one.

    Args:
        steps: some rows each.
        done: bytes that were read.
    """
    lines: list[int] = []
    rows: list[_T] = []
    broken: dict[int, str] = {}
    limit, chunks = done() + CHUNK_BYTES, 0
    for step in steps:
        broken |= {len(rows) + row: reason for row, reason in step.broken.items()}
        lines += step.lines
        rows += step.rows
        if len(rows) > CHUNK_ROWS - STEP_ROWS or done() > limit:
            yield Some(lines, rows, broken)
            lines, rows, broken = [], [], {}
            limit, chunks = done() + CHUNK_BYTES, chunks + 1
    if rows or not chunks:
        yield Some(lines, rows, broken)


def find_places(found: Sequence[str], wanted: Wanted, name: str) -> dict[str, int]:
    """Where each of the wanted columns is in the file; raises `FileError`."""
    names = {each: each for each in (*wanted.names, *wanted.keep)}
    others = [each for each in found if each not in wanted.keep]
    unnamed = wanted.by_position and not set(wanted.names) & set(found)
    if unnamed and len(others) == len(wanted.names):
        names |= zip(wanted.names, others, strict=True)
    missing = [each for each in names.values() if each not in found]
    if missing:
        raise FileError(
            f"{name}: the columns {', '.join(missing)} are missing; the file has {', '.join(found)}"
        )
    twice = [each for each in names.values() if found.count(each) > 1]
    if twice:
        raise FileError(
            f"{name}: the columns {', '.join(twice)} occur twice, expected each once; rename one"
        )
    return {each: found.index(column) for each, column in names.items()}
