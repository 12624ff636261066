"""Errors as clients get them: RFC 9457 problem documents that name the field, the row, the value
received and the value expected.

Every error of a request is a `Problem`. Clients get no other errors: an unexpected exception
becomes a 500 without details.
"""

import math
from http import HTTPStatus
from typing import Any

import msgspec
import orjson

CONTENT_TYPE = "application/problem+json"
UNKNOWN_VERSION = "unknown_version"
"""The code of a request for a version of a model that does not answer it."""
MOST_ERRORS = 10
"""Field errors listed in one answer; for a bulk request with 10,000 bad rows, the first ten and the
number."""
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's phrases, for which Python 3.11 and 3.12 still have older ones."""
_MOST_CHARACTERS = 60
_MOST_EXPECTED = 50


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with one value of a request."""

    code: str
    path: str
    """JSONPath of the value, such as `$[3].island`."""
    message: str
    row: int | None = None
    field: str | None = None
    got: Any = None
    expected: Any = None


class Problem(Exception):
    """A request that cannot be answered: HTTP status, machine-readable code and a sentence.

    Args:
        status: HTTP status code.
        code: short stable name, such as `unknown_category`.
        detail: one sentence for a person.
        errors: one per wrong value; the first `MOST_ERRORS` of `error_count`.
        more_errors: whether the search ended early, so that there may be more than `error_count`.
        retry_after_s: seconds after which a retry makes sense (503).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[FieldError] | None = None,
        error_count: int = 0,
        more_errors: bool = False,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.error_count = error_count or len(self.errors)
        self.more_errors = more_errors
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)

    def body(self) -> bytes:
        """The problem document as JSON."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [msgspec.to_builtins(error) for error in self.errors]
            document["error_count"] = self.error_count
        if self.more_errors:
            document["more_errors"] = True
        return orjson.dumps(document)


def unprocessable(errors: list[FieldError], error_count: int, *, more: bool = False) -> Problem:
    """The 422 for wrong values; its detail and its code are those of the first error.

    Args:
        errors: the first `MOST_ERRORS` of them, at least one.
        error_count: how many were found.
        more: whether the search ended early.
    """
    first = errors[0]
    others = f" (and {'at least ' * more}{error_count - 1} more)" if error_count > 1 else ""
    detail = first.message + others
    return Problem(
        422, first.code, detail, errors=errors, error_count=error_count, more_errors=more
    )


def shown(value: Any) -> Any:
    """A client's value, short enough for an answer: long strings are cut, containers are replaced
    by their kind and size."""
    if isinstance(value, dict):
        return f"an object of {len(value)} members"
    if isinstance(value, list):
        return f"an array of {len(value)} elements"
    if isinstance(value, str):
        # JSON may contain half a surrogate pair, which UTF-8 cannot encode.
        text = value[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
        return text + "…" if len(value) > _MOST_CHARACTERS else text
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return "an integer of more than 64 bits"
    if isinstance(value, float) and math.isinf(value):
        return "infinity, or a number too large for a float64"
    return value


def beginning(known: list[Any]) -> list[Any]:
    """The first of the known values, so that an answer does not grow with the number of categories
    or columns."""
    return known[:_MOST_EXPECTED]


def listed(known: list[Any]) -> str:
    """The known values as text, cut to a readable length."""
    text = ", ".join(str(value) for value in beginning(known))
    return text + (f", … ({len(known)} in all)" if len(known) > _MOST_EXPECTED else "")
