"""Tables in files, read in chunks: CSV, JSON lines and Parquet."""

import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from halfcore.offline.csv_rows import read_csv
from halfcore.offline.sources import (
    CHUNK_ROWS,
    STEP_ROWS,
    Bounded,
    Broken,
    Chunk,
    FileError,
    Some,
    Values,
    Wanted,
    find_places,
    gathered,
    opened,
)

KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_NO_OBJECT = "not an object with the columns' names"


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
    readers = {"csv": read_csv, "jsonl": _read_lines, "parquet": _read_parquet}
    name = "standard input" if path == "-" else path
    try:
        yield from readers[kind](path, name, wanted)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{name} is not complete gzip: {error}; compress it again") from None
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror or error}") from None


def _read_lines(path: str, name: str, wanted: Wanted) -> Iterator[Chunk]:
    with opened(path) as source:
        stream = Bounded(source, name)
        unchecked = True
        for some in gathered(_records(stream), lambda: stream.done):
            if unchecked:
                found = dict.fromkeys(key for record in some.rows for key in record)
                if found:
                    find_places(list(found), wanted._replace(by_position=False), name)
                    unchecked = False
            columns: dict[str, Values] = {
                each: [record.get(each) for record in some.rows]
                for each in dict.fromkeys((*wanted.names, *wanted.keep))
            }
            kept = [columns[each] for each in wanted.keep]
            yield Chunk(some.lines, columns, some.broken, source.share(), kept)


def _records(stream: Bounded) -> Iterator[Some[dict[str, Any]]]:
    # Latin-1 gives each byte a character, and is undone below.
    text = io.TextIOWrapper(cast(Any, stream), "latin-1", newline="\n")
    decode = msgspec.json.Decoder().decode
    number = 0
    while lines := list(islice(text, STEP_ROWS)):
        step = Some[dict[str, Any]]([], [], {})
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
        return json.loads(line.decode("utf-8-sig"))  # of bytes, it would guess UTF-16 and UTF-32
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
            places = find_places(found, wanted, name)
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
    with opened(path) as source:
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
