"""W3C Trace Context: the trace that a request belongs to, from its `traceparent` header.

The server begins no trace and sends no span: it returns the header as it was received, and notes
the trace's id where it notes a request's.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

HEADER = "traceparent"
_FIELDS = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}"
    r"-[0-9a-f]{2}(?P<more>-[!-~]{0,200})?"
)
"""The version ff and ids of zeros are invalid. Versions after 00 may have more fields."""


class Trace(NamedTuple):
    """What a request's header says."""

    header: str
    """As it was received."""
    id: str
    """32 hexadecimal digits."""


def trace_of(values: Sequence[str]) -> Trace | None:
    """The trace of a request; None if the header is invalid or sent twice, which the standard wants
    ignored.

    Args:
        values: of all headers of this name.
    """
    if len(values) != 1 or (found := _FIELDS.fullmatch(values[0])) is None:
        return None
    if found["version"] == "00" and found["more"] is not None:
        return None
    return Trace(values[0], found["trace"])
