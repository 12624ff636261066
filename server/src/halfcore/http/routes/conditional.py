"""Conditional requests for what has an ETag (RFC 9110, 13): whether the client has it already."""

import re
from collections.abc import Sequence
from typing import Any

from litestar import Request

from halfcore.problem import Problem

_TAGS = re.compile(r'(W/)?("[!\x23-\x7e\x80-\xff]*")')


def is_held(request: Request[Any, Any, Any], etag: str) -> bool:
    """Whether the client has the resource already, so that 304 is its answer.

    Args:
        request: GET or HEAD.
        etag: of the resource, strong, in its quotes.

    Raises:
        Problem: 412, the client wants another ETag.
    """
    values = request.headers.getall
    wanted = values("if-match", [])
    if wanted and not _named(wanted, etag, weak=False):
        detail = f"If-Match does not name {etag}, the ETag of what is here; leave the header out"
        raise Problem(412, "precondition_failed", detail)
    return _named(values("if-none-match", []), etag, weak=True)


def _named(values: Sequence[str], etag: str, *, weak: bool) -> bool:
    """Whether the header's fields name this ETag or all of them.

    Args:
        values: of all fields of the name.
        etag: strong, in its quotes.
        weak: whether a weak tag is enough, as a proxy makes it that compresses.
    """
    if any(value.strip() == "*" for value in values):
        return True
    tags = [found for value in values for found in _TAGS.findall(value)]
    return any(tag == etag and (weak or not prefix) for prefix, tag in tags)
