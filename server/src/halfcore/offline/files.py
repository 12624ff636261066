"""Tables in files, read in chunks: CSV, JSON lines and Parquet."""

import csv
import gzip
import io
import json
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 8192
"""Rows in memory at a time, for each thread of the model."""
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_CHUNK_BYTES = 1 << 24
"""A chunk has fewer rows where they are long, so that memory stays bounded."""
_STEP_ROWS = 128
"""Rows that are read without a look at the bytes."""
_BLOCK_BYTES = 1 << 16
_LONGEST_LINE = 1 << 22
_LONGEST_CELL = 1 << 20
_END_OF_LINE = re.compile(r"\r\n|\r|\n")
_NO_OBJECT = "not an object with the columns' names"
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


def kind_of(path: str, given: str) -> str:
    """`csv`, `jsonl` or `parquet`, by an option or else by the file's name; raises `FileError`."""
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    kind = given or ("csv" if path == "-" else KINDS.get(suffix, ""))
    if not kind:
        raise FileError(
            f"{path}: the format is not known from the name, expected {', '.join(KINDS)}; name it "
            "with --format (of the file) or --out-format (of the answers)"
        )
    return kind


def read(path: str, kind: str, wanted: Wanted) -> Iterator[Chunk]:
    """The rows of a file, or of standard input for `-`; also if it is compressed with gzip.

    Raises:
        FileError: it cannot be read, is not such a table, or lacks a column.
    """
    readers = {"csv": _read_csv, "jsonl": _read_lines, "parquet": _read_parquet}
    name = "standard input" if path == "-" else path
    try:
        yield from readers[kind](path, name, wanted)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{name} is not complete gzip: {error}; compress it again") from None
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror or error}") from None


class _Source(NamedTuple):
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
def _opened(path: str) -> Iterator[_Source]:
    with os.fdopen(os.dup(0), "rb") if path == "-" else Path(path).open("rb") as raw:
        status = os.fstat(raw.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        if raw.peek(2)[:2] != _GZIP:
            yield _Source(raw, raw, size)
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield _Source(stream, raw, size)


class _Bounded(io.BufferedIOBase):
    """A stream of lines, none of them so long that memory grows with it.

    Attributes:
        done: bytes that were read.
    """

    def __init__(self, source: _Source, name: str) -> None:
        self._read, self._name = source.stream.read1, name
        self.done = self._since_end = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read1(self, size: int = -1, /) -> bytes:
        """Some bytes; raises `FileError` in a line that is too long."""
        part = self._read(max(size, _BLOCK_BYTES))
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


class _Some(NamedTuple, Generic[_T]):
    """Rows before they are columns."""

    lines: Sequence[int]
    rows: list[_T]
    broken: dict[int, str]


def _gathered(steps: Iterator[_Some[_T]], done: Callable[[], int]) -> Iterator[_Some[_T]]:
    """Steps of `_STEP_ROWS` as chunks; at least one.

    Args:
        steps: some rows each.
        done: bytes that were read.
    """
    lines: list[int] = []
    rows: list[_T] = []
    broken: dict[int, str] = {}
    limit, chunks = _CHUNK_BYTES, 0
    for step in steps:
        broken |= {len(rows) + row: reason for row, reason in step.broken.items()}
        lines += step.lines
        rows += step.rows
        if len(rows) > CHUNK_ROWS - _STEP_ROWS or done() > limit:
            yield _Some(lines, rows, broken)
            lines, rows, broken = [], [], {}
            limit, chunks = done() + _CHUNK_BYTES, chunks + 1
    if rows or not chunks:
        yield _Some(lines, rows, broken)


def _read_csv(path: str, name: str, wanted: Wanted) -> Iterator[Chunk]:
    csv.field_size_limit(_LONGEST_CELL)
    with _opened(path) as source:
        stream = _Bounded(source, name)
        # Bytes that are not UTF-8 become surrogates: only their rows are refused.
        text = io.TextIOWrapper(cast(Any, stream), "utf-8-sig", "surrogateescape", newline="")
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise FileError(f"{name}: the header is not CSV: {error}") from None
        if not header:
            raise FileError(f"{name} is empty, expected a header with the columns' names")
        places = _places(header, wanted, name)
        for some in _gathered(_csv_rows(reader, len(header)), lambda: stream.done):
            cells = list(zip(*some.rows, strict=True)) or [()] * len(header)
            columns: dict[str, Values] = {each: cells[at] for each, at in places.items()}
            kept = [columns[each] for each in wanted.keep]
            yield Chunk(some.lines, columns, some.broken, source.share(), kept)


def _csv_rows(reader: Any, width: int) -> Iterator[_Some[list[str]]]:
    """The rows in steps, without a look at each where nothing is wrong."""
    while True:
        before, rows, reason = reader.line_num, list[list[str]](), ""
        try:
            rows.extend(islice(reader, _STEP_ROWS))
        except csv.Error as error:  # the rows before it are there, and the reader goes on after it
            reason = f"not CSV: {error}"
        lines: Sequence[int] = range(before + 1, reader.line_num + 1)
        if len(lines) != len(rows):
            lines = _begins(before + 1, rows)
        if reason:
            last = reader.line_num
            reason += f" (up to line {last})" if last > lines[len(rows)] else ""
        elif not rows:
            return
        yield _checked(lines, rows, reason, width)


def _begins(first: int, rows: Sequence[Sequence[str]]) -> list[int]:
    """The line where each row begins, and that of the next one: cells may hold ends of lines."""
    begins = [first]
    for row in rows:
        begins.append(begins[-1] + 1 + sum(len(_END_OF_LINE.findall(cell)) for cell in row))
    return begins


def _checked(
    lines: Sequence[int], rows: list[list[str]], reason: str, width: int
) -> _Some[list[str]]:
    """The rows without empty lines; those of another width, and the last one if there is a reason,
    are broken."""
    if not reason and set(map(len, rows)) <= {width}:
        return _Some(lines[: len(rows)], rows, {})
    found = _Some[list[str]]([], [], {})
    begins = []
    for line, row in zip(lines, [*rows, None] if reason else rows, strict=False):
        if row == []:
            continue
        if row is None or len(row) != width:
            wrong = reason if row is None else f"{len(row)} cells, expected {width}"
            found.broken[len(found.rows)] = wrong
            row = [""] * width  # noqa: PLW2901  stands for the broken one
        begins.append(line)
        found.rows.append(row)
    return found._replace(lines=begins)


def _places(found: Sequence[str], wanted: Wanted, name: str) -> dict[str, int]:
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


def _read_lines(path: str, name: str, wanted: Wanted) -> Iterator[Chunk]:
    with _opened(path) as source:
        stream = _Bounded(source, name)
        unchecked = True
        for some in _gathered(_records(stream), lambda: stream.done):
            if unchecked:
                found = dict.fromkeys(key for record in some.rows for key in record)
                if found:
                    _places(list(found), wanted._replace(by_position=False), name)
                    unchecked = False
            columns: dict[str, Values] = {
                each: [record.get(each) for record in some.rows]
                for each in dict.fromkeys((*wanted.names, *wanted.keep))
            }
            kept = [columns[each] for each in wanted.keep]
            yield Chunk(some.lines, columns, some.broken, source.share(), kept)


def _records(stream: _Bounded) -> Iterator[_Some[dict[str, Any]]]:
    # Latin-1 gives each byte a character, and is undone below.
    text = io.TextIOWrapper(cast(Any, stream), "latin-1", newline="\n")
    decode = msgspec.json.Decoder().decode
    number = 0
    while lines := list(islice(text, _STEP_ROWS)):
        step = _Some[dict[str, Any]]([], [], {})
        begins = []
        for number, line in enumerate(lines, number + 1):  # noqa: B020  it goes on
            content = line.encode("latin-1")
            try:
                record = decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if not content.strip():
                    continue
                record = _parsed(content)
            if not isinstance(record, dict):
                reason = record if isinstance(record, Broken) else Broken(_NO_OBJECT)
                step.broken[len(step.rows)] = reason.reason
                record = {}
            begins.append(number)
            step.rows.append(record)
        yield step._replace(lines=begins)


def _parsed(line: bytes) -> Any:
    """Also with NaN and Infinity, which Python writes."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is not UTF-8"
        return Broken(f"not JSON: {reason}")


def _read_parquet(path: str, name: str, wanted: Wanted) -> Iterator[Chunk]:
    arrow = pyarrow(name)
    try:
        # Buffered by column: pyarrow would otherwise hold whole row groups.
        with (
            _seekable(path) as source,
            arrow.parquet.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False) as file,
        ):
            found = file.schema_arrow.names
            places = _places(found, wanted, name)
            total, first = max(file.metadata.num_rows, 1), 1
            for batch in _batches(arrow, file, [found[at] for at in set(places.values())]):
                last = first + batch.num_rows
                columns = {
                    each: _values(arrow, batch.column(found[places[each]])) for each in wanted.names
                }
                kept = [batch.column(each) for each in wanted.keep]
                yield Chunk(range(first, last), columns, {}, (last - 1) / total, kept)
                first = last
    except arrow.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise FileError(f"{name} is not a Parquet file that can be read: {reason}") from None


def _batches(arrow: Any, file: Any, names: list[str]) -> Iterator[Any]:
    """The rows of these columns; at least one batch."""
    if not file.metadata.num_rows:
        types = [file.schema_arrow.field(name).type for name in names]
        yield arrow.record_batch([arrow.array([], kind) for kind in types], names)
    yield from file.iter_batches(CHUNK_ROWS, columns=names, use_threads=False)


def _values(arrow: Any, array: Any) -> Values:
    """A column's values: numbers as an array, with NaN for null."""
    if arrow.types.is_integer(array.type) or arrow.types.is_floating(array.type):
        numbers: NDArray[Any] = np.asarray(array.to_numpy(zero_copy_only=False))
        return numbers
    values: list[Any] = array.to_pylist()
    return values


@contextmanager
def _seekable(path: str) -> Iterator[str | IO[bytes]]:
    """The file, or a temporary copy of a stream: a Parquet file is read from its end."""
    with _opened(path) as source:
        if source.size and path != "-" and source.stream is source.raw:
            yield path
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source.stream, copy)
            copy.seek(0)
            yield copy


def pyarrow(name: str) -> Any:
    """pyarrow with its `parquet`; raises `FileError`."""
    try:
        import pyarrow as arrow  # late: an extra, and it takes 0.3 s
        import pyarrow.parquet
    except ImportError:
        raise FileError(
            f"{name}: Parquet needs pyarrow, which halfcore[parquet] installs"
        ) from None
    return arrow
