"""Parses a long JSON text into Python objects in slices, so that others are answered in between.

One pattern finds how far the text is a run of whole values; msgspec parses the run. What is no such
run, a value that is long or nested deeply, is opened, and its own values are read in the same way.
So each slice is short, whatever the text holds. What is never right is refused before it is in
memory, and what the objects take is reported before they are made.
"""

import json
import re
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from halfcore.pipeline.explain import too_many_rows
from halfcore.pipeline.scan import SCALAR, STRING, BrokenText, after_space, end_of_string

SLICE_BYTES = 32_768
"""Of the text that are parsed between two pauses: 1 to 3 ms."""
_ARRAY_BYTES, _OBJECT_BYTES, _TEXT_BYTES = 88, 240, 64
"""What an array, an object of up to five members, and a text of one letter take in memory with
their place in what holds them."""
_SMALL_OBJECT, _MEMBER_BYTES = 5, 64
"""Members of such an object, and what each further one takes while its object grows."""
_USUAL_TIMES = 8
"""Most times its length that usual JSON takes in memory: the budget's limit leaves room for it."""
MAX_OPENED = 8
"""Arrays and objects around a slice: in the protocols' own bodies there are five at most."""
_OPENING_BYTES = 512
"""As what an opened value counts of a slice: it takes as long."""
_NAME_BYTES = 56
"""What a name takes that was not met before; short names that occur again are shared."""
_SPACE = rb"[ \t\n\r]*+"
_WITHOUT_BRACKETS = rb'[^"\[\]{}]*+'


def _nested(levels: int) -> bytes:
    """An array or object with so many levels of others in it.

    An atomic group in the place of `(…)*+`, which Python before 3.11.5 matches wrongly where the
    group may backtrack.
    """
    inner = STRING.pattern + (b"|" + _nested(levels - 1) if levels else b"")
    content = _WITHOUT_BRACKETS + b"(?>(?:(?:" + inner + b")" + _WITHOUT_BRACKETS + b")*)"
    return rb"\[" + content + rb"\]|\{" + content + rb"\}"


_VALUE = b"(?:" + b"|".join((STRING.pattern, SCALAR.pattern, _nested(2))) + b")" + _SPACE
_NAME = STRING.pattern + _SPACE + b":" + _SPACE


def _run(item: bytes) -> re.Pattern[bytes]:
    """Items between commas. Each is whole: a comma or a bracket follows."""
    one = item + rb"(?=[,\]}])"
    return re.compile(one + b"(?>(?:," + _SPACE + one + b")*)", re.DOTALL)


_RUNS: dict[type, tuple[re.Pattern[bytes], bytes, bytes]] = {
    list: (_run(_VALUE), b"[", b"]"),
    dict: (_run(_NAME + _VALUE), b"{", b"}"),
}
"""What a run of values looks like, and its brackets."""
_NAMES = re.compile(rb'"([^"\\]*+)"' + _SPACE + b":")
"""Without those that have an escape: these count as texts."""
_AT_BYTE = re.compile(r"(.*) \(byte (\d+)\)")
_TOO_MANY_DIGITS = "it holds an integer of more than 4,300 digits"
"""All other errors that Python has."""
Decode = Callable[[bytes], Any]
"""Parses JSON; raises `ValueError`."""


def json_in_slices(
    text: bytes, *, max_rows: int, reserve: Callable[[int], None], decode: Decode
) -> Generator[None, None, Any]:
    """The value that a text is, as `decode` makes it; yields between slices of a few milliseconds.

    Args:
        text: JSON.
        max_rows: most arrays and objects in one array: more are too many rows in every protocol.
        reserve: gets the bytes that the values take in memory beyond what usual JSON of this length
            does, before they are made: each time for all so far and the next slice.
        decode: see `Decode`.

    Raises:
        BrokenText: it is not JSON, or arrays and objects are nested too deeply.
        Problem: 413 too many rows; what `reserve` raises.
    """
    reader = _Reader(text, max_rows, reserve, decode)
    since_pause = 0
    while reader.opened:
        before = reader.at
        reader.step()
        since_pause += reader.at - before + _OPENING_BYTES
        if since_pause >= SLICE_BYTES:
            since_pause = 0
            reader.report()
            yield
    if reader.at < len(text):
        raise BrokenText(reader.at)
    return reader.found


class _Reader:
    """Reads one text.

    Attributes:
        at: what is read until here.
        found: the value of the whole text.
        opened: the arrays and objects around `at`, the innermost last.
    """

    def __init__(
        self, text: bytes, max_rows: int, reserve: Callable[[int], None], decode: Decode
    ) -> None:
        self._text = text
        self._max_rows = max_rows
        self._reserve = reserve
        self._decode = decode
        self._taken = 0
        self.opened: list[Any] = []
        self.at = after_space(text, 0)
        self.found = self._opened()
        if self.found is None:
            self.found, self.at = self._parsed(self.at, len(text)), len(text)

    def step(self) -> None:
        """Read the next values of the innermost array or object."""
        container = self.opened[-1]
        pattern, opening, closing = _RUNS[type(container)]
        run = pattern.match(self._text, self.at, self.at + SLICE_BYTES)
        if run is None:
            self._read_long(container)
            return
        self._take(run.group())
        part = self._parsed(self.at, run.end(), opening, closing)
        if type(container) is dict:
            container.update(part)
        else:
            container += part
            self._check_rows(container, part)
        self.at = run.end()
        self._end_value()

    def _read_long(self, container: Any) -> None:
        """Read one value that is not within a slice: open it, or parse a long text."""
        name = None
        if type(container) is dict:
            end = self._end_of_name()
            name = next(iter(self._parsed(self.at, end, b"{", b"0}")))
            self.at = end
        value = self._opened(container, name)
        if value is None:
            end = end_of_string(self._text, self.at)
            if end < 0:
                scalar = SCALAR.match(self._text, self.at)
                if scalar is None:
                    raise BrokenText(self.at)
                end = scalar.end()
            self._put(container, name, self._parsed(self.at, end))
            self.at = end
            self._end_value()

    def _end_of_name(self) -> int:
        """Where the value of the member that begins here begins."""
        end = end_of_string(self._text, self.at)
        colon = after_space(self._text, end) if end >= 0 else -1
        if not self._text.startswith(b":", colon) or colon < 0:
            raise BrokenText(self.at)
        return after_space(self._text, colon + 1)

    def _opened(self, container: Any = None, name: str | None = None) -> Any:
        """Open the array or object that begins here, and put it into the one around it; None if
        none begins here."""
        begins = self._text[self.at : self.at + 1]
        if begins not in (b"[", b"{"):
            return None
        if len(self.opened) == MAX_OPENED:
            raise BrokenText(self.at, "it is nested too deeply")
        self._taken += _OBJECT_BYTES
        value: Any = [] if begins == b"[" else {}
        self._put(container, name, value)
        self.opened.append(value)
        self.at = after_space(self._text, self.at + 1)
        if self._text.startswith(_RUNS[type(value)][2], self.at):
            self._end_value()
        return value

    def _put(self, container: Any, name: str | None, value: Any) -> None:
        if type(container) is dict:
            container[name] = value
        elif container is not None:
            container.append(value)
            self._check_rows(container, [value])

    def _end_value(self) -> None:
        """Read what is behind a value: the brackets that close here, or a comma."""
        text, at = self._text, after_space(self._text, self.at)
        while self.opened and text.startswith(_RUNS[type(self.opened[-1])][2], at):
            self.opened.pop()
            at = after_space(text, at + 1)
        if self.opened:
            if not text.startswith(b",", at):
                raise BrokenText(at)
            at = after_space(text, at + 1)
        self.at = at

    def _check_rows(self, container: list[Any], added: list[Any]) -> None:
        if len(container) > self._max_rows and any(type(value) in _RUNS for value in added):
            raise too_many_rows(self._max_rows)

    def _parsed(self, at: int, end: int, opening: bytes = b"", closing: bytes = b"") -> Any:
        try:
            return self._decode(opening + self._text[at:end] + closing)
        except UnicodeDecodeError:
            raise BrokenText(at + _not_utf8(self._text[at:end]), "it is not UTF-8") from None
        except ValueError as error:
            reason, byte = _mistake(error)
            raise BrokenText(at + max(0, byte - len(opening)), reason) from None

    def _take(self, part: bytes) -> None:
        """Report what the values so far and those of this part take in memory."""
        names = _NAMES.findall(part)
        objects, texts = part.count(b"{"), part.count(b'"') // 2 - len(names)
        self._taken += (
            part.count(b"[") * _ARRAY_BYTES
            + objects * _OBJECT_BYTES
            + max(0, texts) * _TEXT_BYTES
            + max(0, len(names) - objects * _SMALL_OBJECT) * _MEMBER_BYTES
            + len(set(names)) * _NAME_BYTES
        )
        self.report()

    def report(self) -> None:
        """Report what all that was read takes."""
        self._reserve(max(0, self._taken - len(self._text) * _USUAL_TIMES))


def _not_utf8(part: bytes) -> int:
    """The first byte that is not UTF-8: msgspec counts from the beginning of a text."""
    try:
        part.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _mistake(error: ValueError) -> tuple[str, int]:
    """What is wrong with a piece that `Decode` refuses, and at which byte of it."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg, len(error.doc[: error.pos].encode())
    if found := _AT_BYTE.match(str(error)):
        return found[1], int(found[2])
    # The place is not known: msgspec names a path, which is one within the piece
    known = isinstance(error, msgspec.DecodeError)
    reason = str(error).partition(" - at ")[0] if known else _TOO_MANY_DIGITS
    return f"{reason}, here or later", 0
