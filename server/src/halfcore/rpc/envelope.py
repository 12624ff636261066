"""Reads which model a serialized `ModelInferRequest` is for, and refuses one of very many parts,
before protobuf makes objects of it.

An empty input takes two bytes in a message and 74 in memory: without this limit a message of a few
megabytes could take hundreds. Parsing itself waits for its turn, as the decoding of a long body
does.
"""

from typing import NamedTuple

from halfcore.predict.protocols.tensors import bad
from halfcore.problem import Problem

MOST_PARTS = 20_000
"""Most parts of a request: an input and its raw contents are two. Almost 10,000 columns fit, one
tensor each; reading so many takes some 20 ms."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types."""


def tag_of(number: int) -> int:
    """The tag of a field of text, of bytes or of a message, by its number. A part with this number
    and another wire type has another tag: protobuf passes it over, and so must whoever reads a
    message here."""
    return number << 3 | _BYTES


_MODEL_NAME, _MODEL_VERSION = tag_of(1), tag_of(2)


class Envelope(NamedTuple):
    """Which model a request is for."""

    model: str
    version: str
    """Empty: the served one."""


def read(message: bytes) -> Envelope:
    """The model's name and version in a serialized `ModelInferRequest`.

    Raises:
        Problem: 400: it is not one, or has too many parts.
    """
    found = {_MODEL_NAME: b"", _MODEL_VERSION: b""}
    at = parts = 0
    try:
        while at < len(message):
            at, tag, begin = part(message, at)
            if tag in found:
                found[tag] = message[begin:at]
            parts += 1
            if parts > MOST_PARTS:
                raise bad(f"the request has more than {MOST_PARTS} parts, expected fewer inputs")
        return Envelope(found[_MODEL_NAME].decode(), found[_MODEL_VERSION].decode())
    except UnicodeDecodeError:
        raise malformed() from None


def malformed() -> Problem:
    """The 400 for bytes that are no message of the expected type."""
    return bad("the request is not a message of this call, expected the types of inference.proto")


def part(message: bytes, at: int) -> tuple[int, int, int]:
    """Where the part that begins at `at` ends, its tag (see `tag_of`), and where its value begins;
    raises `Problem`, 400, if the message ends within it."""
    try:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(message, at)
            end = at + length
        elif kind == _VARINT:
            end = _varint(message, at)[1]
        elif kind in (_FIXED64, _FIXED32):
            end = at + (8 if kind == _FIXED64 else 4)
        else:
            raise malformed()
    except IndexError:
        raise malformed() from None
    if end > len(message):
        raise malformed()
    return end, tag, at


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and the position behind it.

    Raises:
        IndexError: the message ends within it.
    """
    byte = message[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = message[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise malformed()
