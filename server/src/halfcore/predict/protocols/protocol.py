"""What a protocol has to provide."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import Rows
from halfcore.pipeline.engine import Result
from halfcore.predict.admission import Head
from halfcore.predict.prediction import Answer, Headers
from halfcore.problem import Problem

JSON_TYPE = "application/json"
Reserve = Callable[[int], None]
"""Gets the bytes that a body's values take in memory beyond what usual JSON of its length does,
before they are made; raises `Problem`, 503, if there is no room."""


class Call(NamedTuple):
    """A request as a protocol read it."""

    rows: Rows
    wanted: Any
    """What the answer must hold: the protocol's own record."""
    timeout_s: float = 0.0
    """How long the client waits from now on, by the request itself; 0: it does not say."""


class Wire(Protocol):
    """One protocol. It keeps nothing between requests."""

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Refuse a request by its head, before its body is read; raises `Problem`."""

    def is_plain(self, get: Callable[[str], str | None], *, max_body_bytes: int) -> bool:
        """Whether a head is what most clients of the protocol send, so that its body can be asked
        for without more checks; `check_head` accepts it too. See `admission.is_plain`."""

    def quick(self, model: LoadedModel, body: bytes, head: Head) -> Call | None:
        """Read a short body that is right and usual, without pauses; None for any other, which
        `read` decides.

        Raises:
            Problem: as `read`.
        """

    def read(
        self, model: LoadedModel, body: bytes, head: Head, reserve: Reserve
    ) -> Generator[None, None, Call]:
        """Read a body for this model; yields between slices of a few milliseconds.

        Raises:
            Problem: 400, 404 or 413; what `reserve` raises.
        """

    def answer(
        self, model: LoadedModel, results: Sequence[Result], call: Call
    ) -> tuple[Headers, bytes]:
        """Headers and body of the 200."""

    def refusal(self, problem: Problem) -> Answer:
        """The response that carries a problem, in the protocol's own form."""


def headers(content_type: str, body: bytes, *more: tuple[str, str]) -> Headers:
    """The headers of a response with this body."""
    return [("content-type", content_type), ("content-length", str(len(body))), *more]
