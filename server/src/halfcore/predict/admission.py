"""Admission: decides by a request's head alone whether its body is read."""

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from halfcore.predict.body import too_large
from halfcore.predict.coding import coding_of
from halfcore.predict.trace import Trace
from halfcore.problem import Problem

USUAL_TYPES = ("application/json", "application/json; charset=utf-8")
MOST_DIGITS = 18
"""Most digits of a Content-Length: `int` raises an error at 4,301."""
BINARY_HEADER = "inference-header-content-length"
"""Length of a body's JSON part, if binary tensors follow it (the inference protocol)."""
ENCODING_HEADER = "content-encoding"
_CLOSE = {"connection": "close"}


class Head(NamedTuple):
    """The headers that decide whether a body is read; None: the header is missing."""

    content_type: str | None
    content_encoding: str | None
    content_length: str | None
    request_id: str | None = None
    json_length: str | None = None
    """See `BINARY_HEADER`."""
    key: str | None = None
    """The API key, if keys are needed."""
    accept: str | None = None
    transfer_encoding: str | None = None
    trace: Trace | None = None
    timeout: str | None = None
    """How long the client waits; see `deadline`."""
    deadline: float = inf
    """Until when, if the protocol itself says it, and not a header."""


NO_HEAD = Head(None, None, None)


def encoding_of(values: Sequence[str], *, sent: bool) -> str | None:
    """The content codings that several headers name together (RFC 9110, 5.3); None: there is none.

    Args:
        values: of all headers of the name, without those that are not ASCII.
        sent: whether there is such a header.
    """
    if values:
        return ", ".join(values)
    return "not ASCII" if sent else None


def is_plain(
    get: Callable[[str], str | None], *, max_body_bytes: int, any_type: bool = False
) -> bool:
    """Whether a head is what most clients send: JSON, not encoded, of a known and allowed length.
    `check_head` accepts it too.

    Args:
        get: the first header of a name, or None.
        max_body_bytes: largest body.
        any_type: do not look at the content type.
    """
    length = get("content-length")
    return (
        length is not None
        and (any_type or get("content-type") in USUAL_TYPES)
        and get("content-encoding") is None
        and length.isdecimal()
        and len(length) <= MOST_DIGITS
        and int(length) <= max_body_bytes
    )


def check_head(head: Head, *, max_body_bytes: int) -> None:
    """Refuse a request by its head, before its body is read.

    Raises:
        Problem: 413 or 415; the connection is closed, because the body is not read.
    """
    if head.content_type not in USUAL_TYPES and not _is_json(head.content_type):
        found = (head.content_type or "none")[:80]
        raise Problem(
            415,
            "unsupported_media_type",
            f"Content-Type is {found}, expected application/json",
            headers=_CLOSE,
        )
    check_not_encoded(head)
    check_length(head, max_body_bytes=max_body_bytes)


def check_not_encoded(head: Head) -> None:
    """Refuse a body that is encoded in a way that is not undone here.

    Raises:
        Problem: 415 for its content, 501 for its transfer (RFC 9112, 6.1).
    """
    coding_of(head.content_encoding)
    transfer = head.transfer_encoding
    if transfer is not None and transfer.strip().lower() != "chunked":
        raise Problem(
            501,
            "unsupported_transfer",
            f"Transfer-Encoding is {transfer[:80]}, expected chunked; name a compression in "
            "Content-Encoding",
            headers=_CLOSE,
        )


def check_length(head: Head, *, max_body_bytes: int) -> None:
    """Refuse a body that is announced as too large; raises `Problem`, 413."""
    length = head.content_length
    if (
        length is not None
        and length.isdecimal()
        and (len(length) > MOST_DIGITS or int(length) > max_body_bytes)
    ):
        raise too_large(max_body_bytes)


def announced(head: Head) -> int:
    """The length of a body that its head announces; 0: none."""
    length = head.content_length
    return int(length) if length is not None and length.isdecimal() else 0


def ends_itself(head: Head) -> bool:
    """Whether a body cannot be taken for complete if its end is missing: JSON, binary tensors and
    compressed bodies, but not CSV."""
    csv = (head.content_type or "").lower().startswith("text/csv")
    return not csv or coding_of(head.content_encoding) is not None


def _is_json(content_type: str | None) -> bool:
    """Whether a media type is JSON in UTF-8, in any spelling."""
    if content_type is None:
        return False
    kind, _, parameters = content_type.lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    return kind.strip() == "application/json" and charset in ("", "charset=utf-8", "charset=utf8")
