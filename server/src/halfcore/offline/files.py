"""Tables in files, read and written in chunks: CSV, JSON lines and Parquet."""

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import orjson

CHUNK_ROWS = 8192
"""Rows in memory at a time."""
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_LONGEST_CELL = 1 << 20


class FileError(Exception):
    """A file cannot be read or written; the message names it and says what to do."""


class Chunk(NamedTuple):
    """Some rows of a table."""

    lines: Sequence[int]
    """For each row, the line of the file where it begins, or its number in a Parquet file."""
    columns: dict[str, list[Any]]
    """Name → values, all equally many; null for a missing one."""
    rows: int
    done: float
    """Share of the file that was read, 0 to 1; 0 if it is unknown."""


def kind_of(path: str, given: str) -> str:
    """`csv`, `jsonl` or `parquet`, by an option or else by the file's name; raises `FileError`."""
    kind = given or ("csv" if path == "-" else KINDS.get(Path(path).suffix.lower(), ""))
    if not kind:
        raise FileError(
            f"{path}: the format is not known from the name, expected {', '.join(KINDS)}; name it "
            "with --format"
        )
    return kind


def read(path: str, kind: str) -> Iterator[Chunk]:
    """The rows of a file, or of standard input for `-`.

    Raises:
        FileError: it cannot be read, or is not such a table.
    """
    readers = {"csv": _read_csv, "jsonl": _read_lines, "parquet": _read_parquet}
    try:
        yield from readers[kind](path)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is not UTF-8") from None
    except csv.Error as error:
        raise FileError(f"{path} is not CSV: {error}") from None


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        with os.fdopen(os.dup(0), "rb") as stream:
            yield stream
    else:
        with Path(path).open("rb") as stream:
            yield stream


def _share(stream: IO[bytes], size: int) -> float:
    return min(os.lseek(stream.fileno(), 0, os.SEEK_CUR) / size, 1.0) if size else 0.0


def _size(path: str) -> int:
    return 0 if path == "-" else Path(path).stat().st_size


def _read_csv(path: str) -> Iterator[Chunk]:
    csv.field_size_limit(_LONGEST_CELL)
    size = _size(path)
    with _opened(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        names = next(reader, None)
        if not names:
            raise FileError(f"{path} is empty, expected a header with the columns' names")
        rows: list[list[str]] = []
        lines: list[int] = []
        begin = reader.line_num + 1
        for row in reader:
            line, begin = begin, reader.line_num + 1
            if not row:
                continue
            if len(row) != len(names):
                raise FileError(f"{path}, line {line} has {len(row)} cells, expected {len(names)}")
            rows.append(row)
            lines.append(line)
            if len(rows) == CHUNK_ROWS:
                yield _from_rows(lines, names, rows, _share(stream, size))
                rows, lines = [], []
        if rows:
            yield _from_rows(lines, names, rows, 1.0)


def _from_rows(lines: list[int], names: Sequence[str], rows: list[list[str]], done: float) -> Chunk:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Chunk(lines, dict(zip(names, columns, strict=True)), len(rows), done)


def _read_lines(path: str) -> Iterator[Chunk]:
    size = _size(path)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            records.append(_record(path, number, line))
            lines.append(number)
            if len(records) == CHUNK_ROWS:
                yield _from_records(lines, records, _share(stream, size))
                records, lines = [], []
    if records:
        yield _from_records(lines, records, 1.0)


def _record(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(f"{path}, line {number} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise FileError(f"{path}, line {number} is not an object with the columns' names")
    return record


def _from_records(lines: list[int], records: list[dict[str, Any]], done: float) -> Chunk:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return Chunk(lines, columns, len(records), done)


def _read_parquet(path: str) -> Iterator[Chunk]:
    parquet = _pyarrow(path)
    source = io.BytesIO(_all(path)) if path == "-" else path
    try:
        file = parquet.ParquetFile(source)
    except ValueError as error:  # ArrowInvalid is one
        raise FileError(f"{path} is not a Parquet file: {error}") from None
    total, first = max(file.metadata.num_rows, 1), 1
    for batch in file.iter_batches(batch_size=CHUNK_ROWS):
        done = (first - 1 + batch.num_rows) / total
        lines = range(first, first + batch.num_rows)
        yield Chunk(lines, batch.to_pydict(), batch.num_rows, done)
        first += batch.num_rows


def _all(path: str) -> bytes:
    with _opened(path) as stream:
        return stream.read()


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow.parquet as parquet  # late: an extra, and it takes 0.3 s
    except ImportError:
        raise FileError(
            f"{path}: Parquet needs pyarrow, which halfcore[parquet] installs"
        ) from None
    return parquet


Write = Callable[[Sequence[str], Sequence[Sequence[Any]]], None]
"""Writes rows of answers: the columns' names, and the rows."""


@contextmanager
def writing(path: str, kind: str) -> Iterator[Write]:
    """Write answers to a file, or to standard output for `-`. A file gets its name when it is
    complete; a run that is broken off leaves what was there.

    Raises:
        FileError: it cannot be written.
    """
    writers = {"csv": _write_csv, "jsonl": _write_lines, "parquet": _write_parquet}
    if path == "-" or (Path(path).exists() and not Path(path).is_file()):  # a pipe, a device
        target = os.dup(1) if path == "-" else os.open(path, os.O_WRONLY)
        with os.fdopen(target, "wb") as stream, writers[kind](stream, path) as write:
            yield write
        return
    temporary = Path(f"{path}.part")
    try:
        with temporary.open("wb") as stream, writers[kind](stream, path) as write:
            yield write
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _write_csv(stream: IO[bytes], _: str) -> Iterator[Write]:
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    begun = False

    def write(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        nonlocal begun
        if not begun:
            writer.writerow(names)
            begun = True
        writer.writerows(rows)

    yield write
    text.flush()
    text.detach()


@contextmanager
def _write_lines(stream: IO[bytes], _: str) -> Iterator[Write]:
    def write(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        for row in rows:
            stream.write(orjson.dumps(dict(zip(names, row, strict=True)), option=option))

    yield write


@contextmanager
def _write_parquet(stream: IO[bytes], path: str) -> Iterator[Write]:
    _pyarrow(path)
    import pyarrow as arrow  # late, as above
    from pyarrow import parquet

    writer: Any = None

    def write(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        nonlocal writer
        columns = [list(column) for column in zip(*rows, strict=True)]
        if writer is None:
            table = arrow.table(dict(zip(names, columns, strict=True)))
            writer = parquet.ParquetWriter(stream, table.schema)
        else:
            schema = writer.schema
            table = arrow.table(dict(zip(names, columns, strict=True)), schema=schema)
        writer.write_table(table)

    yield write
    if writer is not None:
        writer.close()
