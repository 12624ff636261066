"""Cells of CSV that are still bytes: NumPy reads a column's numbers or categories at once, and only
a cell that is not plain becomes a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_DIGITS = 15
"""An integer of so many is exact in float64, so its quotient by a power of ten is rounded once, as
`float` rounds."""
_WIDEST = _MOST_DIGITS + 2
"""Bytes of a plain number: also a minus and a point."""
_LONGEST_KEY = 256
"""Bytes of a category that is looked for in a whole column."""
_POWERS = 10.0 ** np.arange(_WIDEST)
_MINUS, _POINT, _ZERO, _COMMA, _END = b"-.0,\n"
Places = NDArray[np.int64]


class Block(NamedTuple):
    """Lines that are cut into cells."""

    text: bytes
    """Begins with `_LONGEST_KEY` zeros: what is before a cell can be read too."""
    begins: Places
    """[rows, columns]: where each cell begins in the text."""
    ends: Places

    def column(self, at: int) -> "Cells":
        """The cells of one column."""
        return Cells(self.text, self.begins[:, at], self.ends[:, at])


def is_utf8(value: str) -> bool:
    """Whether it is without surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut(text: bytes, width: int, longest: int) -> Block | None:
    """Cut lines into cells; None unless every comma ends a cell and every end of line a row.

    Args:
        text: whole lines.
        width: columns, at least one.
        longest: bytes of a cell.
    """
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if not text or any(each in text for each in (b'"', b"\r", b"\0")):
        return None
    text = bytes(_LONGEST_KEY) + text + (b"" if text.endswith(b"\n") else b"\n")
    read = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((read == _COMMA) | (read == _END))
    marks = [_COMMA] * (width - 1) + [_END]
    if len(ends) % width or (read[ends].reshape(-1, width) != marks).any():
        return None
    begins = np.concatenate(([_LONGEST_KEY], ends[:-1] + 1))
    lengths = ends - begins
    if lengths.max() > longest or (width == 1 and not lengths.all()):  # an empty line is no row
        return None
    return Block(text, begins.reshape(-1, width), ends.reshape(-1, width))


class Codes:
    """The numbers of a column's known texts.

    Args:
        numbers: text → number; what is no text, long or not UTF-8 is left out.
    """

    def __init__(self, numbers: Mapping[object, float]) -> None:
        found = {
            key.encode(): number
            for key, number in numbers.items()
            # Zeros fill up a shorter key, and what is not UTF-8 has several texts.
            if isinstance(key, str) and "\0" not in key and is_utf8(key)
        }
        found = {key: number for key, number in found.items() if len(key) <= _LONGEST_KEY}
        self.width = max(map(len, found), default=1) or 1
        keys = sorted((key.rjust(self.width, b"\0"), number) for key, number in found.items())
        self.keys = np.array([key for key, _ in keys], f"S{self.width}")
        self.codes = np.array([number for _, number in keys])


class Cells(Sequence[str]):
    """The cells of one column, as texts; bytes that are not UTF-8 become surrogates.

    Args:
        text: see `Block`.
        begins: where each cell begins in it.
        ends: where each ends.
    """

    def __init__(self, text: bytes, begins: Places, ends: Places) -> None:
        self._text, self._begins, self._ends = text, begins, ends
        self._lengths = ends - begins

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # no slices
        text = self._text[self._begins[row] : self._ends[row]]
        return text.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        text = self._text
        for begin, end in zip(self._begins.tolist(), self._ends.tolist(), strict=True):
            yield text[begin:end].decode("utf-8", "surrogateescape")

    def numbers(self, convert: Callable[[str], float]) -> NDArray[np.float64]:
        """The cells as `float` reads them.

        Args:
            convert: reads a cell that is not plain, where some are no numbers. Plain are digits, at
                most 15, with a minus and a point.
        """
        # The pass below costs half of what reading one by one does.
        if (self._lengths > _WIDEST).mean() < 0.5:
            found, plain = self._plain()
        else:
            found, plain = np.zeros(len(self)), np.zeros(len(self), bool)
        others = np.flatnonzero(~plain)
        if len(others):
            found[others] = self._others(others, convert)
        return found

    def coded(self, codes: Codes) -> NDArray[np.float64]:
        """The number of each cell; -1 if it is unknown."""
        if not len(codes.keys):
            return np.full(len(self), -1.0)
        width, text = codes.width, self._text
        windows = np.ndarray(len(text) - width + 1, codes.keys.dtype, text, strides=1)
        cells = windows[self._ends - width]
        before = np.arange(width) < (width - self._lengths)[:, None]
        cells.view(np.uint8).reshape(-1, width)[before] = 0
        places = np.minimum(np.searchsorted(codes.keys, cells), len(codes.keys) - 1)
        known = (codes.keys[places] == cells) & (self._lengths <= width)
        return np.where(known, codes.codes[places], -1.0)

    def _plain(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """All cells as if they were plain numbers, and which of them are."""
        width = min(max(int(self._lengths.max()), 1), _WIDEST)
        digits, signs = self._digits(width)
        digits, pointed, behind = _without_points(digits)
        digits -= np.uint8(_ZERO)
        count = self._lengths - signs - pointed
        plain = (digits.max(axis=0) < 10) & (count > 0) & (count <= _MOST_DIGITS)
        found: NDArray[np.float64] = digits[0].astype(np.float64)
        for each in digits[1:]:
            found *= 10
            found += each
        found /= _POWERS[behind]
        np.negative(found, out=found, where=signs)
        return found, plain

    def _others(self, rows: Places, convert: Callable[[str], float]) -> Sequence[float]:
        places = zip(self._begins[rows].tolist(), self._ends[rows].tolist(), strict=True)
        cells = [self._text[begin:end] for begin, end in places]
        try:
            return [*map(float, cells)]  # reads bytes as it reads a text of ASCII
        except ValueError:
            return [convert(cell.decode("utf-8", "surrogateescape")) for cell in cells]

    def _digits(self, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The last bytes of each cell, [width, N], with zeros in place of what is before the cell
        and of a minus; and which cells have a minus."""
        read = np.frombuffer(self._text, np.uint8)
        found = np.stack([read[self._ends - back] for back in range(width, 0, -1)])
        first = width - self._lengths
        np.copyto(found, _ZERO, where=np.arange(width)[:, None] < first)
        signs = read[self._begins] == _MINUS
        rows = np.flatnonzero(signs & (first >= 0))
        found[first[rows], rows] = _ZERO
        return found, signs


def _without_points(
    digits: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Places]:
    """Digits as of one integer per column: what is before the first point is moved onto it.

    Returns:
        the digits, which columns had a point, and how many digits were behind it.
    """
    points = digits == _POINT
    pointed = points.any(axis=0)
    behind = np.zeros(len(pointed), np.int64)
    if pointed.any():
        place = points.argmax(axis=0)
        behind[pointed] = len(digits) - 1 - place[pointed]
        moved = np.vstack((np.full_like(digits[:1], _ZERO), digits[:-1]))
        digits = np.where(pointed & (np.arange(len(digits))[:, None] <= place), moved, digits)
    return digits, pointed, behind
