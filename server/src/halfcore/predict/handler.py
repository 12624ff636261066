"""What answers a request whose body has arrived, and what stands for it until it is answered."""

import asyncio
from math import inf
from typing import Protocol

from halfcore.predict.prediction import Send
from halfcore.predict.trace import Trace


class InProgress(Protocol):
    """A request that is being answered."""

    def waits_long(self) -> bool:
        """Whether the client may leave before the answer, so that watching it is worth its
        cost."""

    def watch(self, leaving: "asyncio.Future[None]") -> None:
        """Stop the work when `leaving` is done; cancel it when the request ends."""

    def abandon(self) -> None:
        """Stop the work: the client left."""


class Handler(Protocol):
    """Answers a POST whose head was accepted and whose body has arrived. It calls `send` once, at
    once or later on the event loop."""

    def __call__(
        self,
        body: bytes,
        request_id: str | None,
        send: Send,
        /,
        *,
        trace: Trace | None = None,
        deadline: float = inf,
    ) -> InProgress:
        """Start to answer; never raises."""
