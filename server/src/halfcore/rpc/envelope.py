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
_MODEL_NAME, _MODEL_VERSION = 1, 2
"""Numbers of the fields."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types."""


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
            at, field, begin = part(message, at)
            if field in found:
                found[field] = message[begin:at]
            parts += 1
            if parts > MOST_PARTS:
                raise bad(f"the request has more than {MOST_PARTS} parts, expected fewer inputs")
        if at > len(message):
            raise malformed()
        return Envelope(found[_MODEL_NAME].decode(), found[_MODEL_VERSION].decode())
    except (IndexError, UnicodeDecodeError):
        raise malformed() from None


def malformed() -> Problem:
    """The 400 for bytes that are no message of the expected type."""
    return bad("the request is not a message of this call, expected the types of inference.proto")


def part(message: bytes, at: int) -> tuple[int, int, int]:
    """Where the part that begins at `at` ends, its field's number, and where its value begins."""
    tag, at = _varint(message, at)
    kind = tag & 7
    if kind == _BYTES:
        length, at = _varint(message, at)
        return at + length, tag >> 3, at
    if kind == _VARINT:
        return _varint(message, at)[1], tag >> 3, at
    if kind in (_FIXED64, _FIXED32):
        return at + (8 if kind == _FIXED64 else 4), tag >> 3, at
    raise malformed()


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
