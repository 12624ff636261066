"""Answers as CSV, JSON lines or Parquet, and files that are replaced whole or not at all."""

import csv
import gzip
import io
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from halfcore.bundle import Manifest
from halfcore.offline.files import pyarrow
from halfcore.offline.sources import FileError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

GROUP_ROWS = 1 << 16
"""Rows of a row group of Parquet: fewer cost its readers time, more cost memory here."""
_END = "\r\n"
"""Makes Python's writer quote cells that hold either; our lines end without the first."""
_COMPRESSION = 3
"""Of gzip: level 9 takes five times as long for a tenth less."""


class Answers(NamedTuple):
    """The answers to some rows."""

    right: NDArray[np.bool_]
    """Which of the rows have one."""
    outputs: Sequence[NDArray[Any]]
    """The model's outputs for those rows, in the manifest's order; none if there are no rows."""
    kept: Sequence[Any] = ()
    """All rows' values of the columns that are copied, see `files.Chunk`."""


class Form(NamedTuple):
    """What answers look like."""

    names: list[str]
    classes: list[str | int | float | bool]
    """Empty: values."""
    dtype: str
    """Of probabilities or values: `float32` or `float64`."""
    many: bool
    """Whether a value is a list."""
    keep: tuple[str, ...]
    """Names of the columns that are copied; they are before the others."""

    @classmethod
    def of(cls, manifest: Manifest, dtype: str, keep: Sequence[str] = ()) -> "Form":
        """The form of a model's answers; raises `FileError` if two columns have one name."""
        names = ["prediction"]
        if "probabilities" in manifest.outputs:
            names += [f"probability_{label}" for label in manifest.classes]
        if taken := [name for name in keep if name in names or keep.count(name) > 1]:
            raise FileError(f"--keep {taken[0]}: the answers have such a column; name another")
        many = isinstance(manifest.golden[0].prediction, list)
        return cls(names, manifest.classes, dtype, many, tuple(keep))


class Writer(Protocol):
    """Writes answers to one file."""

    def write(self, answers: Answers) -> None:
        """Append some rows."""

    def close(self, note: dict[str, str]) -> None:
        """Write what is left; `note` is for the file's metadata, if the format has some."""


@contextmanager
def writing(path: str, kind: str, form: Form) -> Iterator[Writer]:
    """Write answers to a file, or to standard output for `-`; a file gets its name when it is
    complete, so a run that is interrupted leaves what was there.

    Args:
        path: compressed with gzip if it ends in `.gz`.
        kind: `csv`, `jsonl` or `parquet`.
        form: of the answers.

    Raises:
        FileError: it cannot be written.
    """
    try:
        with _opened(path) as stream:
            if kind == "parquet":
                with _parquet(stream, form, path) as writer:
                    yield writer
            elif path.endswith(".gz"):
                with gzip.GzipFile("", "wb", _COMPRESSION, stream) as packed:
                    yield _Text(packed, kind, form)
            else:
                yield _Text(stream, kind, form)
    except OSError as error:
        name = "standard output" if path == "-" else path
        raise FileError(f"{name} cannot be written: {error.strerror or error}") from None


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        with os.fdopen(os.dup(1), "wb") as stream:
            yield stream
    elif Path(path).exists() and not Path(path).is_file():  # a device or a pipe
        with os.fdopen(os.open(path, os.O_WRONLY), "wb") as stream:
            yield stream
    else:
        with _replacing(Path(path).resolve()) as stream:
            yield stream


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A temporary file in the same folder, which takes the target's place when all is written."""
    handle, name = tempfile.mkstemp(".part", ".halfcore-", target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            with suppress(OSError):  # some file systems have no modes
                os.fchmod(handle, _mode(target))
            yield stream
            stream.flush()
            os.fsync(handle)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, or of any new file."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


class _Text:
    """Lines of CSV or JSON: a template per class is filled, as the server's encoder does."""

    def __init__(self, stream: "SupportsWrite[bytes]", kind: str, form: Form) -> None:
        self._stream, self._form = stream, form
        make = _csv_templates if kind == "csv" else _json_templates
        self._templates, self._value, self._empty = make(form)
        self._as_csv = kind == "csv"
        self._header = _csv_line([*form.keep, *form.names]) if self._as_csv else b""

    def write(self, answers: Answers) -> None:
        """Append some rows."""
        self._begin()
        if len(answers.outputs) > 1 and answers.right.all() and not answers.kept:
            self._stream.write(self._filled(*answers.outputs))
            return
        lines = self._lines(answers.outputs) if answers.outputs else []
        if len(lines) < len(answers.right):
            every = [self._empty] * len(answers.right)
            for place, line in zip(np.flatnonzero(answers.right), lines, strict=True):
                every[place] = line
            lines = every
        if answers.kept:
            keep = _kept_csv if self._as_csv else _kept_json
            lines = keep(self._form.keep, answers.kept, lines)
        self._stream.write(b"".join(lines))

    def close(self, note: dict[str, str]) -> None:  # noqa: ARG002  text has no metadata
        """Without rows the header is left."""
        self._begin()

    def _begin(self) -> None:
        """Write the header, but not before the rows can be read: on standard output it stays."""
        if self._header:
            self._stream.write(self._header)
            self._header = b""

    def _filled(self, labels: NDArray[Any], probabilities: NDArray[Any]) -> bytes:
        """All lines at once: no tuple is made for each row."""
        templates = self._templates
        lines = b"".join([templates[label] for label in labels.tolist()])
        return lines % tuple(probabilities.ravel().tolist())

    def _lines(self, outputs: Sequence[NDArray[Any]]) -> list[bytes]:
        if not self._form.classes:
            before, after = self._value
            return [before + value + after for value in _numbers(outputs[0], quoted=self._as_csv)]
        templates, labels = self._templates, outputs[0].tolist()
        if len(outputs) == 1:
            return [templates[label] for label in labels]
        rows = outputs[1].tolist()
        return [templates[label] % tuple(row) for label, row in zip(labels, rows, strict=True)]


_Templates = tuple[list[bytes], tuple[bytes, bytes], bytes]
"""A line per class, what is before and after a value, and the line of a row without an answer."""


def _csv_templates(form: Form) -> _Templates:
    count = len(form.names) - 1
    lines = [_csv_line([label]).removesuffix(b"\n") for label in form.classes]
    if count:
        lines = [line.replace(b"%", b"%%") + b",%.7g" * count + b"\n" for line in lines]
    else:
        lines = [line + b"\n" for line in lines]
    return lines, (b"", b"\n"), b"," * count + b"\n" if count else b'""\n'


def _json_templates(form: Form) -> _Templates:
    names = [orjson.dumps(name) for name in form.names[1:]]
    before, after = b'{"prediction":', b"}\n"
    nothing = before + b"null" + b"".join(b"," + name + b":null" for name in names) + after
    lines = [before + orjson.dumps(label) for label in form.classes]
    if names:
        filled = b"".join(b"," + name.replace(b"%", b"%%") + b":%.7g" for name in names)
        lines = [line.replace(b"%", b"%%") + filled for line in lines]
    return [line + after for line in lines], (before, after), nothing


def _csv_line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=_END).writerow(cells)
    return text.getvalue().removesuffix(_END).encode() + b"\n"


def _numbers(values: NDArray[Any], *, quoted: bool) -> list[bytes]:
    """Each value as JSON, in the fewest digits that give its bits; a list in quotes for CSV."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    if values.ndim == 1:
        return text[1:-1].split(b",")
    before, after = (b'"[', b']"') if quoted else (b"[", b"]")
    return [before + row + after for row in text[2:-2].split(b"],[")]


@contextmanager
def _parquet(stream: IO[bytes], form: Form, path: str) -> Iterator[Writer]:
    writer = _Parquet(stream, form, path)
    try:
        yield writer
    finally:
        writer.leave()


def _kept_csv(_: Sequence[str], kept: Sequence[Any], lines: Sequence[bytes]) -> list[bytes]:
    """The lines, each behind the cells that are copied."""
    cells: list[str] = []
    rows = zip(*map(_as_list, kept), strict=True)
    csv.writer(_Lines(cells), lineterminator=_END).writerows(rows)
    # Bytes that are not UTF-8 are copied as they are.
    begins = [text[: -len(_END)].encode("utf-8", "surrogateescape") for text in cells]
    return [begin + b"," + line for begin, line in zip(begins, lines, strict=True)]


class _Lines:
    """What a writer of CSV takes for a file."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def _kept_json(names: Sequence[str], kept: Sequence[Any], lines: Sequence[bytes]) -> list[bytes]:
    """The lines, each with the members that are copied first."""
    rows = zip(*(map(_as_utf8, _as_list(values)) for values in kept), strict=True)
    encode = msgspec.json.encode
    begins = [encode(dict(zip(names, row, strict=True)))[:-1] for row in rows]
    return [begin + b"," + line[1:] for begin, line in zip(begins, lines, strict=True)]


def _as_list(values: Any) -> Sequence[Any]:
    found: Sequence[Any] = values.to_pylist() if hasattr(values, "to_pylist") else values
    return found


def _as_utf8(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()
    return value


class _Parquet:
    """Row groups of Parquet, with the model's own numbers; a row without an answer is null."""

    def __init__(self, stream: IO[bytes], form: Form, path: str) -> None:
        self._arrow = arrow = pyarrow(path)
        self._form, self._stream = form, stream
        number = arrow.float32() if form.dtype == "float32" else arrow.float64()
        self._types = [self._type_of_prediction(number), *[number] * (len(form.names) - 1)]
        self._schema: Any = None
        self._writer: Any = None
        self._tables: list[Any] = []
        self._rows = 0

    def write(self, answers: Answers) -> None:
        """Append some rows."""
        arrow, form, outputs = self._arrow, self._form, answers.outputs
        if not outputs:
            columns = [arrow.nulls(len(answers.right), kind) for kind in self._types]
        else:
            columns = [self._predictions(outputs[0])]
            columns += [
                arrow.array(outputs[1][:, i], self._types[i + 1])
                for i in range(len(form.names) - 1)
            ]
            if not answers.right.all():
                places = arrow.array(
                    np.cumsum(answers.right) - 1, arrow.int64(), mask=~answers.right
                )
                columns = [column.take(places) for column in columns]
        columns = [*map(self._kept, answers.kept), *columns]
        if self._writer is None:
            names = [*form.keep, *form.names]
            types = [column.type for column in columns]
            self._schema = arrow.schema(list(zip(names, types, strict=True)))
            self._writer = arrow.parquet.ParquetWriter(self._stream, self._schema)
        self._tables.append(arrow.table(columns, schema=self._schema))
        self._rows += len(answers.right)
        if self._rows >= GROUP_ROWS:
            self._flush()

    def close(self, note: dict[str, str]) -> None:
        """Write the last row group and the metadata."""
        self._flush()
        if note:
            self._writer.add_key_value_metadata(note)
        self._writer.close()

    def leave(self) -> None:
        """Keep pyarrow from ending a file that was not closed: it is incomplete."""
        if self._writer is not None:
            self._writer.is_open = False

    def _flush(self) -> None:
        if self._tables:
            self._writer.write_table(self._arrow.concat_tables(self._tables))
            self._tables, self._rows = [], 0

    def _kept(self, values: Any) -> Any:
        """A column that is copied: as it is in a Parquet file, as texts from others."""
        if hasattr(values, "to_pylist"):
            return values
        texts = [None if value is None else _as_utf8(str(value)) for value in values]
        return self._arrow.array(texts, self._arrow.string())

    def _type_of_prediction(self, number: Any) -> Any:
        arrow, classes = self._arrow, self._form.classes
        if not classes:
            return arrow.list_(number) if self._form.many else number
        kinds = {str: arrow.string(), int: arrow.int64(), bool: arrow.bool_()}
        return kinds.get(type(classes[0]), arrow.float64())

    def _predictions(self, output: NDArray[Any]) -> Any:
        arrow, kind = self._arrow, self._types[0]
        if self._form.classes:
            return arrow.array(self._form.classes, kind).take(arrow.array(output))
        return arrow.array(list(output) if self._form.many else output, kind)
