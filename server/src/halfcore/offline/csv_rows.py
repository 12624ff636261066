"""The rows of CSV. Lines without quotes are cut into columns as bytes (cells.py); those with quotes
or with something wrong are read by Python's reader."""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from halfcore.offline.cells import cut
from halfcore.offline.sources import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    STEP_ROWS,
    Bounded,
    Chunk,
    FileError,
    Some,
    Values,
    Wanted,
    find_places,
    gathered,
    opened,
)

_LONGEST_CELL = 1 << 20
_END_OF_LINE = re.compile(r"\r\n|\r|\n")
_Part = tuple[Sequence[int], Sequence[Values], dict[int, str]]
"""Lines, columns and broken rows, as a `Chunk` has them."""


def read_csv(path: str, name: str, wanted: Wanted) -> Iterator[Chunk]:
    """The rows of a file; raises `FileError` if its header is wrong."""
    csv.field_size_limit(_LONGEST_CELL)
    with opened(path) as source:
        rows = _Rows(Bounded(source, name))
        try:
            header = rows.header()
        except csv.Error as error:
            raise FileError(f"{name}: the header is not CSV: {error}") from None
        if not header:
            raise FileError(f"{name} is empty, expected a header with the columns' names")
        places = find_places(header, wanted, name)
        for lines, cells, broken in rows.parts(len(header)):
            columns = {each: cells[at] for each, at in places.items()}
            kept = [columns[each] for each in wanted.keep]
            yield Chunk(lines, columns, broken, source.share(), kept)


class _Blocks:
    """A stream in blocks of whole lines."""

    def __init__(self, stream: Bounded) -> None:
        self._stream, self._rest = stream, b""

    def take(self, lines: int) -> bytes:
        """The next lines, so many or a few more; fewer if they are long or the last ones, none at
        the end."""
        parts = [self._rest]
        found, size = _count(self._rest), len(self._rest)
        while found < lines and size < CHUNK_BYTES:
            part = self._stream.read1()
            if not part:
                self._rest = b""
                return b"".join(parts)
            parts.append(part)
            found, size = found + _count(part), size + len(part)
        block = b"".join(parts)
        end = _end(block, lines)
        self._rest = block[end:]
        return block[:end]


def _count(part: bytes) -> int:
    return part.count(b"\n") or part.count(b"\r")


def _end(block: bytes, lines: int) -> int:
    """Where so many lines end, or else the last whole one."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    if len(ends) >= lines:
        return int(ends[lines - 1]) + 1
    # The last byte may be the first half of \r\n.
    return max(block.rfind(b"\n"), block.rfind(b"\r", 0, -1)) + 1 or len(block)


class _Rows:
    """The rows of a stream; for Python's reader, the lines that are not cut."""

    def __init__(self, stream: Bounded) -> None:
        self._stream, self._blocks = stream, _Blocks(stream)
        self._lines: deque[str] = deque()
        self._reader = csv.reader(self, strict=True)
        self._cut = 0
        """Lines that the reader has not seen."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line; also of the next block, if a row does not end with its own."""
        if not self._lines:
            self._fill(self._blocks.take(CHUNK_ROWS))
        if not self._lines:
            raise StopIteration
        return self._lines.popleft()

    def header(self) -> list[str]:
        """The first row, none if there are no lines; raises `csv.Error`."""
        self._fill(self._blocks.take(1).removeprefix(codecs.BOM_UTF8))
        return next(self._reader, [])

    def parts(self, width: int) -> Iterator[_Part]:
        """All other rows; at least one part, which has no rows if there are none."""
        some = False
        while self._lines or (block := self._blocks.take(CHUNK_ROWS)):
            found = None if self._lines else cut(block, width, _LONGEST_CELL)
            if found is not None:
                first = self._line + 1
                self._cut += len(found.ends)
                lines = range(first, self._line + 1)
                yield lines, [found.column(at) for at in range(width)], {}
            else:
                if not self._lines:
                    self._fill(block)
                yield from self._read(width)
            some = True
        if not some:
            yield from self._read(width)

    @property
    def _line(self) -> int:
        return self._cut + self._reader.line_num

    def _fill(self, block: bytes) -> None:
        # Bytes that are not UTF-8 become surrogates: only their rows are refused.
        self._lines.extend(io.StringIO(block.decode("utf-8", "surrogateescape"), newline=""))

    def _read(self, width: int) -> Iterator[_Part]:
        for some in gathered(self._steps(width), lambda: self._stream.done):
            yield some.lines, list(zip(*some.rows, strict=True)) or [()] * width, some.broken

    def _steps(self, width: int) -> Iterator[Some[list[str]]]:
        """The rows of the lines that are here, without a look at each where nothing is wrong."""
        while self._lines:
            before, rows, reason = self._line, list[list[str]](), ""
            try:
                rows.extend(islice(self._reader, min(STEP_ROWS, len(self._lines))))
            except csv.Error as error:  # the rows before it are there, and it goes on after it
                reason = f"not CSV: {error}"
            lines: Sequence[int] = range(before + 1, self._line + 1)
            if len(lines) != len(rows):
                lines = _begins(before + 1, rows)
            if reason:
                last = self._line
                reason += f" (up to line {last})" if last > lines[len(rows)] else ""
            yield _checked(lines, rows, reason, width)


def _begins(first: int, rows: Sequence[Sequence[str]]) -> list[int]:
    """The line where each row begins, and that of the next one: cells may hold ends of lines."""
    begins = [first]
    for row in rows:
        begins.append(begins[-1] + 1 + sum(len(_END_OF_LINE.findall(cell)) for cell in row))
    return begins


def _checked(
    lines: Sequence[int], rows: list[list[str]], reason: str, width: int
) -> Some[list[str]]:
    """The rows without empty lines; those of another width, and the last one if there is a reason,
    are broken."""
    if not reason and set(map(len, rows)) <= {width}:
        return Some(lines[: len(rows)], rows, {})
    found = Some[list[str]]([], [], {})
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
