"""All use of granian's private names, so that another granian breaks nothing: `missing` names what
it lacks, and the server does without.

`Intake` takes prediction requests from granian's hand-over thread to the event loop in one step,
their bodies included. granian's own way is two steps: its thread has the loop make a task, the task
asks for the body, and granian's threads bring it to the loop again. Each step wakes a thread; of a
request that only reads its body and answers, that is a quarter of the CPU time
(docs/decisions/0014). Here the body is asked for on granian's thread, as soon as the request's head
is there and good, and the loop first hears of the request when its body has arrived. Everything
that is not a plain prediction goes granian's own way.

What granian calls a scheduler is replaced in one place, by `install`. That an exchange's body is a
future, with `cancel` and `add_done_callback`, is not documented either.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

# # public, but not re-exported by name
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from halfcore.http.exchange import Exchange, Scope
from halfcore.log import logger
from halfcore.predict.admission import is_plain
from halfcore.predict.body import client_left

if TYPE_CHECKING:  # a supervisor of workers, which needs this module, does not load the app
    from halfcore.http.rsgi import Front
    from halfcore.predict.predictor import Handler

LOGGER = "_granian"
"""The name of granian's logger."""
_PLACE = "_new_cbscheduler"
_PRIVATE = (("granian._futures", "_cbsched_aioschedule"), ("granian._granian", "CallbackScheduler"))


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

    def __init__(
        self, front: "Front", loop: asyncio.AbstractEventLoop, ordinary: Callable[[Watcher], None]
    ) -> None:
        self._front = front
        self._predictor = front.predictor
        self._reader = front.predictor.reader
        self._loop = loop
        self._ordinary = ordinary

    def __call__(self, watcher: Watcher) -> None:
        """Begin a request; on granian's thread, which holds the interpreter's lock meanwhile. Must
        not raise: granian would not notice."""
        try:
            scope = watcher.scope
            begin = self._front.begin(scope.path) if scope.method == "POST" else None
            if (
                begin is None
                or not is_plain(
                    get := scope.headers.get, max_body_bytes=self._reader.max_bytes
                )  # `headers` is a copy each time
                or self._predictor.full()
            ):
                self._ordinary(watcher)
                return
            if self._front.coalescer is not None:
                self._front.coalescer.arriving()
            exchange = watcher.proto
            request_id = get("x-request-id") if self._predictor.wants_ids else None
            body: Any = exchange()
            self._reader.begin(body, self._loop)
            body.add_done_callback(partial(self._on_body, begin, exchange, request_id))
        except Exception as error:  # noqa: BLE001
            # no caller can catch it; granian answers 500 once the request is forgotten
            logger.error("failed to accept a request; it is answered with 500", exc_info=error)

    def _on_body(
        self, begin: "Handler", exchange: Exchange, request_id: str | None, reading: Any
    ) -> None:
        """The body has arrived, or will not; on the event loop."""
        try:
            late = self._reader.end(reading)
            try:
                body = reading.result()
            except asyncio.CancelledError:
                if late:
                    exchange.response_bytes(
                        *self._predictor.refuse(self._reader.too_slow(), request_id)
                    )
                return
            except (ProtocolClosed, ProtocolError):
                exchange.response_bytes(*self._predictor.refuse(client_left(), request_id))
                return
            begin(body, request_id, exchange.response_bytes)
        finally:
            if self._front.coalescer is not None:
                self._front.coalescer.arrived()


def missing(granian: ModuleType) -> list[str]:
    """The private names that `install` needs and this granian lacks.

    Args:
        granian: the module that makes the schedulers: `granian.server.embed` or
            `granian.server.mp`.
    """
    wanted = [*_PRIVATE, (granian.__name__, _PLACE)]
    return [
        f"{module}.{name}" for module, name in wanted if not hasattr(import_module(module), name)
    ]


def install(granian: ModuleType, front: "Front") -> None:
    """Have a module of granian's make its schedulers with an `Intake`; in this process, for good.

    Where names are missing it logs one warning and changes nothing: every prediction then takes the
    front's way, which costs a quarter more CPU time.
    """
    if lacking := missing(granian):
        logger.warning(
            "the intake is off, predictions are answered without it: granian has no %s; install "
            "granian>=2.8.7,<2.9 for less CPU time",
            ", ".join(lacking),
        )
        return
    schedule = import_module("granian._futures")._cbsched_aioschedule  # noqa: SLF001  see the top

    # # found at run time
    class Scheduler(import_module("granian._granian").CallbackScheduler):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, loop: asyncio.AbstractEventLoop, callback: Any, *_: None) -> None:
            super().__init__()
            self._schedule_fn = Intake(front, loop, schedule(loop, self._ctx, callback))  # type: ignore[misc]

    def new(loop: asyncio.AbstractEventLoop, callback: Any, **_: Any) -> Scheduler:
        return Scheduler(
            loop, callback, None, None, None
        )  # these belong to granian's own kind of task, which cannot be cancelled

    setattr(granian, _PLACE, new)


def worker_processes(server: Any) -> Iterator[int]:
    """The process ids of a server's workers that live; none if this granian keeps them
    elsewhere."""
    for worker in getattr(server, "wrks", ()):
        if worker.is_alive() and (pid := getattr(worker.inner, "pid", None)) is not None:
            yield pid


def interrupt_of(server: Any) -> Callable[..., None]:
    """What a server does on SIGTERM and SIGINT: it ends its workers, each told once."""
    handler: Callable[..., None] = server.signal_handler_interrupt
    return handler


def replace_interrupt(server: Any, handler: Callable[..., None]) -> None:
    """Have a server call `handler` on SIGTERM and SIGINT, instead of its own handler."""
    server.signal_handler_interrupt = handler
