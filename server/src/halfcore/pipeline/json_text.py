"""Reads the values of a JSON text one by one, strictly, and none that is too long to be right."""

import codecs
import json
import re
from typing import Any, NoReturn

from halfcore.pipeline.scan import BrokenText, after_space, end_of_scalar
from halfcore.problem import Problem, shown

NESTED_BYTES = 1024
"""An array or object in the place of a value is wrong; a longer one is not read to its end."""
MAX_DEPTH = 64
"""Arrays and objects that may be open at the end of those bytes."""
SHOWN_BYTES = 800
"""Of a text that is too long to be parsed: enough for what an error shows of it."""
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Strings, also the last one if it is cut off: otherwise each escaped quote in it would be tried as
a beginning."""


class Unread(str):
    """Replaces a value inside a long row that is not parsed: its kind, in words."""

    __slots__ = ()


class TooDeep(Exception):
    """Arrays and objects are nested too deeply."""


class JsonText:
    """A body and the ways to read its next value. Positions are in bytes; every method raises
    `BrokenText` where the text is not JSON.

    Args:
        text: the body.
        most: bytes of the longest scalar that is parsed.
    """

    def __init__(self, text: bytes, most: int) -> None:
        self.text = text
        self._most = most

    def has(self, byte: bytes, at: int) -> bool:
        """Whether this byte is at `at`."""
        return self.text[at : at + 1] == byte

    def closing(self, bracket: bytes, at: int) -> int:
        """The position after this bracket, which must be next."""
        at = after_space(self.text, at)
        if not self.has(bracket, at):
            raise BrokenText(at)
        return at + 1

    def after(self, byte: bytes, at: int) -> int:
        """The position of what follows this byte, which must be at `at`."""
        if not self.has(byte, at):
            raise BrokenText(at)
        return after_space(self.text, at + 1)

    def next_element(self, at: int, closing: bytes) -> int:
        """The position of an array's or object's next element, or of its closing bracket."""
        at = after_space(self.text, at)
        if self.has(closing, at):
            return at
        at = self.after(b",", at)
        if self.has(closing, at):
            raise BrokenText(at)
        return at

    def name(self, at: int) -> tuple[str, int]:
        """A member's name, and the position of what follows it; -1 if the name is too long."""
        if not self.has(b'"', at):
            raise BrokenText(at)
        name, end = self.value(at)
        return str(name), end if end < 0 else after_space(self.text, end)

    def value(self, at: int, *, any_length: bool = False) -> tuple[Any, int]:
        """A value and the position after it; -1 if it is too long to be right, or to be parsed."""
        if self.text[at : at + 1] in (b"[", b"{"):
            return self._nested(at)
        end = end_of_scalar(self.text, at, len(self.text) if any_length else self._most)
        return (self.parsed(at, end) if end > 0 else self._beginning(at)), end

    def parsed(self, at: int, end: int) -> Any:
        """The value that these bytes are."""
        try:
            text = self.text[at:end].decode()
        except UnicodeDecodeError as error:
            raise BrokenText(at + error.start) from None
        try:
            value, stop = _decode(text)
        except json.JSONDecodeError as error:
            position = at + len(text[: error.pos].encode())
            raise BrokenText(position, error.msg) from None
        if stop != len(text):
            raise BrokenText(at + len(text[:stop].encode()))
        return value

    def _nested(self, at: int) -> tuple[Any, int]:
        """An array or object and the position after it; `Unread` and -1 if it is long."""
        beginning = self.text[at : at + NESTED_BYTES]
        try:
            text = beginning.decode()
        except UnicodeDecodeError as error:
            if error.start < NESTED_BYTES - 3:
                raise BrokenText(at + error.start) from None
            text = beginning[: error.start].decode()
        try:
            value, stop = _decode(text)
        except json.JSONDecodeError as error:
            if at + NESTED_BYTES >= len(self.text):
                raise BrokenText(at + len(text[: error.pos].encode()), error.msg) from None
            if _open_at_end(text) > MAX_DEPTH:
                raise TooDeep from None
            return self._beginning(at), -1
        return value, at + len(text[:stop].encode())

    def _beginning(self, at: int) -> Any:
        """As much of a value that is too long to be parsed as an error shows."""
        if not self.has(b'"', at):
            kinds = {b"[": "an array", b"{": "an object"}
            return Unread(kinds.get(self.text[at : at + 1], "a number of too many digits"))
        for cut in range(SHOWN_BYTES, SHOWN_BYTES - 16, -1):
            try:  # a cut within an escape or a character fails: try one byte less
                return str(_decode((self.text[at : at + cut] + b'"').decode())[0]) + "…"
            except ValueError:
                continue
        raise BrokenText(at)


def not_json(body: bytes, error: BrokenText) -> Problem:
    """The 400 for a body that is not JSON, or not even UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError as problem:
        return Problem(400, "invalid_utf8", f"byte {problem.start} of the body is not UTF-8")
    if error.position >= len(body):
        return Problem(400, "invalid_json", "the body is not JSON: it ends too early")
    reason = f"{error.reason} at byte {error.position}"
    if body.startswith(codecs.BOM_UTF8):  # as some editors and PowerShell write it
        reason = "it begins with a byte order mark (EF BB BF); send it without these bytes"
    return Problem(400, "invalid_json", f"the body is not JSON: {reason}")


def duplicate_name(name: str) -> Problem:
    """The 400 for an object that has a name twice."""
    return Problem(400, "duplicate_key", f'"{shown(name)}" occurs twice in one object')


def _open_at_end(text: str) -> int:
    """How many arrays and objects are open at the end of a beginning of a JSON text."""
    outside = _STRINGS.sub("", text)
    return outside.count("[") + outside.count("{") - outside.count("]") - outside.count("}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise duplicate_name(name)
            seen.add(name)
    return result


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, "invalid_json", f"the body is not JSON: {name} is not a JSON number")


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python refuses them because their conversion takes quadratic time
        message = "the body holds an integer of more than 4,300 digits"
        raise Problem(400, "invalid_json", message) from None


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer
).raw_decode
