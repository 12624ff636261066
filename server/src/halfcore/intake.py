"""Takes prediction requests from granian's hand-over thread to the event loop in one step, their bodies included.

granian's own way is two steps: its thread has the loop make a task, the task asks for the body, and granian's threads bring it to the loop
again. Each step wakes a thread; of a request that only reads its body and answers, that is a quarter of the CPU time (docs/decisions/0014).
Here the body is asked for on granian's thread, as soon as the request's head is there and good, and the loop first hears of the request
when its body has come.

What granian calls a scheduler is not part of its documented interface: `Intake` replaces it in one place, `install`, which fails at once if
a newer granian has no such place; the server then does without. Everything that is not a plain prediction goes granian's own way.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from granian._futures import _cbsched_aioschedule
from granian._granian import CallbackScheduler
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]  # public, but not re-exported by name

from halfcore.front import Exchange, Front, Scope
from halfcore.log import logger
from halfcore.routes.body import client_left
from halfcore.routes.predict import MOST_DIGITS, USUAL_TYPES, Begin

_PLACE = "_new_cbscheduler"


class Watcher(Protocol):
    """A request on granian's thread."""

    scope: Scope
    proto: Exchange


class Intake:
    """What granian's thread does with each request.

    Args:
        front: knows the hot routes.
        loop: answers.
        ordinary: granian's own way.
    """

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop, ordinary: Callable[[Watcher], None]) -> None:
        self._front = front
        self._predictor = front.predictor
        self._reader = front.predictor.reader
        self._loop = loop
        self._ordinary = ordinary

    def __call__(self, watcher: Watcher) -> None:
        """Begin a request; on granian's thread, which holds the interpreter's lock meanwhile. Must not raise: granian would not notice."""
        try:
            scope = watcher.scope
            begin = self._front.begin(scope.path) if scope.method == "POST" else None
            if begin is None or not self._readable_at_once(get := scope.headers.get):  # `headers` is a copy each time
                self._ordinary(watcher)
                return
            if self._front.coalescer is not None:
                self._front.coalescer.arriving()
            exchange = watcher.proto
            request_id = get("x-request-id") if self._predictor.wants_ids else None
            body: Any = exchange()
            self._reader.begin(body, self._loop)
            body.add_done_callback(partial(self._came, begin, exchange, request_id))
        except Exception as error:  # noqa: BLE001  there is nobody above to catch it; granian answers 500 once the request is forgotten
            logger.error("a request could not be taken in", exc_info=error)

    def _readable_at_once(self, get: Callable[[str], str | None]) -> bool:
        """Whether a request's head is beyond doubt: what most clients send, with a body whose length is known and allowed."""
        length = get("content-length")
        return (
            length is not None
            and get("content-type") in USUAL_TYPES
            and get("content-encoding") is None
            and length.isdecimal()
            and len(length) <= MOST_DIGITS
            and int(length) <= self._reader.max_bytes
            and not self._predictor.full()
        )

    def _came(self, begin: Begin, exchange: Exchange, request_id: str | None, coming: Any) -> None:
        """The body came, or will not; on the event loop."""
        try:
            late = self._reader.end(coming)
            try:
                body = coming.result()
            except asyncio.CancelledError:
                if late:
                    exchange.response_bytes(*self._predictor.refuse(self._reader.too_slow(), request_id))
                return
            except (ProtocolClosed, ProtocolError):
                exchange.response_bytes(*self._predictor.refuse(client_left(), request_id))
                return
            begin(body, request_id, exchange.response_bytes)
        finally:
            if self._front.coalescer is not None:
                self._front.coalescer.arrived()


def install(granian: ModuleType, front: Front) -> None:
    """Have a module of granian's (`granian.server.embed` or `.mp`) make its schedulers with an `Intake`; in this process, for good.

    Raises:
        ImportError: this granian makes its schedulers in another way.
    """
    if not hasattr(granian, _PLACE):
        raise ImportError(f"{granian.__name__} has no {_PLACE}, expected it as in granian 2.8")

    class Scheduler(CallbackScheduler):
        __slots__ = ()

        def __init__(self, loop: asyncio.AbstractEventLoop, callback: Any, *_: None) -> None:
            super().__init__()
            self._schedule_fn = Intake(front, loop, _cbsched_aioschedule(loop, self._ctx, callback))  # type: ignore[no-untyped-call]

    def new(loop: asyncio.AbstractEventLoop, callback: Any, **_: Any) -> Scheduler:
        return Scheduler(loop, callback, None, None, None)  # these belong to granian's own kind of task, which cannot be cancelled

    setattr(granian, _PLACE, new)
