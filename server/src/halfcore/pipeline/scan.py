"""Finds where the values of a JSON text begin and end, without parsing them.

A body of a few megabytes can contain millions of values, and each would take ten times its length
in memory. So the explaining decoder first looks for the end of a row, here, and parses the row only
if it is short. Every search is one pass over the bytes: no pattern can backtrack.
"""

import re

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_WITHOUT_BRACKETS = rb'[^"\[\]{}]*+(?:' + _STRING + rb'[^"\[\]{}]*+)*+'

STRING = re.compile(_STRING, re.DOTALL)
SCALAR = re.compile(rb'[^ \t\n\r,:"\[\]{}]++')
"""A number, true, false or null, or whatever is in the place of one."""
FLAT = re.compile(rb"\{" + _WITHOUT_BRACKETS + rb"\}|\[" + _WITHOUT_BRACKETS + rb"\]", re.DOTALL)
"""An object or array that holds no other."""
SEPARATOR = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")
_SPACE = re.compile(rb"[ \t\n\r]*+")
_FIRST_LOOK = 65_536
"""Bytes of a string that are copied to find its end; then four times as many, and so on."""


class BrokenText(Exception):
    """The bytes are not JSON: `reason`, at byte `position`."""

    def __init__(self, position: int, reason: str = "unexpected character") -> None:
        super().__init__(f"{reason} (byte {position})")
        self.position = position
        self.reason = reason


def after_space(body: bytes, at: int) -> int:
    """The position of the next byte that is not white space."""
    found = _SPACE.match(body, at)
    return at if found is None else found.end()


def end_of_string(body: bytes, at: int) -> int:
    """The position after the string that begins at `at`; -1 if none does, or it does not end. As
    `STRING`, in a tenth of the time for a long one without escaped quotes."""
    if not body.startswith(b'"', at):
        return -1
    start, size = at + 1, _FIRST_LOOK
    while True:
        part = body[start : start + size]
        end = part.find(b'"')
        before = part[: max(0, end)]
        if (len(before) - len(before.rstrip(b"\\"))) % 2:
            # Of the same length, without the quotes and backslashes that are escaped
            end = part.replace(b"\\\\", b"__").replace(b'\\"', b"__").find(b'"')
        if end >= 0:
            return start + end + 1
        if start + size >= len(body):
            return -1
        size *= 4


def end_of_scalar(body: bytes, at: int, most: int) -> int:
    """The position after the string, number or word that begins at `at`; -1 if it is longer than
    `most`.

    Anything except a string is read up to the next space, comma, colon, quote or bracket; it need
    not be JSON.

    Raises:
        BrokenText: no value begins here, or a string does not end.
    """
    is_string = body[at : at + 1] == b'"'
    found = (STRING if is_string else SCALAR).match(body, at, at + most)
    if found is None and is_string:
        if at + most >= len(body):
            raise BrokenText(len(body))
        return -1
    if found is None:
        raise BrokenText(at)
    return found.end() if found.end() < at + most or is_string else -1
