"""Deadlines: how long a client waits for its answer, and the refusal once it no longer does.

The header is Envoy's: Envoy, and with it Istio and the gateways of KServe, say in it how long they
wait for a request. Any client may send it. gRPC and the inference protocol have their own ways. A
deadline is a time of `perf_counter`, and infinity if there is none.
"""

from math import inf
from time import perf_counter

from halfcore.problem import Problem

HEADER = "x-envoy-expected-rq-timeout-ms"
DEADLINE_EXCEEDED = "deadline_exceeded"
"""The outcome of a request whose client waits no longer."""
MOST_DIGITS = 9
"""Of a number of milliseconds: eleven days."""


def is_timeout(text: str) -> bool:
    """Whether a header's text is a whole number of milliseconds, above 0."""
    return text.isdecimal() and len(text) <= MOST_DIGITS and int(text) > 0


def deadline_of(text: str | None) -> float:
    """The deadline of a request that arrives now.

    Args:
        text: of its header, if it has one.

    Raises:
        Problem: 400.
    """
    if text is None:
        return inf
    if not is_timeout(text):
        raise Problem(
            400,
            "invalid_timeout",
            f"{HEADER} is {text[:40]!r}, expected a whole number of milliseconds from 1 to "
            f"{'9' * MOST_DIGITS}",
        )
    return perf_counter() + int(text) / 1000


def exceeded() -> Problem:
    """The 504 of a request whose client waits no longer."""
    return Problem(
        504,
        DEADLINE_EXCEEDED,
        "the request's deadline passed before its answer; allow it more time, or send fewer "
        "requests at a time",
    )
