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
        numbers: text → number; keys that are no texts are left out.
    """

    def __init__(self, numbers: Mapping[object, float]) -> None:
        self.numbers = {key: number for key, number in numbers.items() if isinstance(key, str)}
        # Zeros fill up a shorter key, and what is not UTF-8 has several texts: neither is found.
        found = {
            key.encode(): number
            for key, number in self.numbers.items()
            if "\0" not in key and is_utf8(key)
        }
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
            convert: reads a cell that has anything but digits, a minus and a point, or too many.
        """
        width = min(max(int(self._lengths.max()), 1), _WIDEST)
        digits, signs = self._digits(width)
        points = digits == _POINT
        pointed = points.any(axis=0)
        place = np.where(pointed, points.argmax(axis=0), 0)
        if pointed.any():
            # What is before the point takes its place: all digits are one integer then.
            at = np.arange(width)[:, None]
            moved = np.vstack((np.full((1, len(self)), _ZERO, np.uint8), digits[:-1]))
            digits = np.where(pointed & (at <= place), moved, digits)
        digits -= np.uint8(_ZERO)
        count = self._lengths - signs - pointed
        plain = (digits.max(axis=0) < 10) & (count > 0) & (count <= _MOST_DIGITS)
        found = np.zeros(len(self))
        for each in digits:
            found = found * 10 + each
        found /= _POWERS[np.where(pointed, width - 1 - place, 0)]
        found = np.where(signs, -found, found)
        for row in np.flatnonzero(~plain).tolist():
            found[row] = convert(self[row])
        return found

    def coded(self, codes: Codes) -> NDArray[np.float64]:
        """The number of each cell; -1 if it has none."""
        if codes.width > _LONGEST_KEY or not len(codes.keys):
            return np.array([codes.numbers.get(cell, -1.0) for cell in self])
        width, text = codes.width, self._text
        windows = np.ndarray(len(text) - width + 1, codes.keys.dtype, text, strides=1)
        cells = windows[self._ends - width]
        before = np.arange(width) < (width - self._lengths)[:, None]
        cells.view(np.uint8).reshape(-1, width)[before] = 0
        places = np.minimum(np.searchsorted(codes.keys, cells), len(codes.keys) - 1)
        known = (codes.keys[places] == cells) & (self._lengths <= width)
        return np.where(known, codes.codes[places], -1.0)

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
