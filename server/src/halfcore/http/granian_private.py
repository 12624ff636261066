"""All use of granian's private names, so that another version of granian breaks nothing: `missing`
lists the names that it lacks, and the server works without them.

`Intake` passes a prediction request, its body included, from granian's thread to the event loop in
one step. granian itself needs two: its thread makes the loop start a task, the task asks for the
body, and granian's threads pass the body to the loop again. Each step wakes a thread; for a request
that only reads its body and answers, that is a quarter of the CPU time (docs/decisions/0014). Here
granian's thread asks for the body as soon as the request's head has arrived and is valid, and the
loop first gets the request when its body has arrived. Everything except plain predictions is
handled by granian as usual.

`install` replaces what granian calls a scheduler; it is the only place that does. That an
exchange's body is a future, with `cancel` and `add_done_callback`, is not documented either.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from math import inf
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

# Public, but not re-exported by name
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from halfcore.http.exchange import Exchange, Scope
from halfcore.log import logger
from halfcore.predict.admission import ENCODING_HEADER, is_plain
from halfcore.predict.body import client_left, overloaded
from halfcore.predict.deadline import HEADER as TIMEOUT_HEADER
from halfcore.predict.deadline import deadline_of
from halfcore.predict.trace import HEADER as TRACE_HEADER
from halfcore.predict.trace import Trace, trace_of
from halfcore.problem import Problem

if TYPE_CHECKING:  # the supervisor of the workers needs this module, but does not load the app
    from halfcore.http.rsgi import Front
    from halfcore.predict.handler import Handler
    from halfcore.predict.prediction import Answer

LOGGER = "_granian"
"""The name of granian's logger."""
_CODE_S = 5.0
"""Longest wait for the exit code of a worker that has ended, seconds; milliseconds are usual."""
_PLACE = "_new_cbscheduler"
_PRIVATE = (("granian._futures", "_cbsched_aioschedule"), ("granian._granian", "CallbackScheduler"))


class Watcher(Protocol):
    """A request on granian's thread."""

    scope: Scope
    proto: Exchange


class Intake:
    """Receives each request on granian's thread.

    Args:
        front: knows the hot routes.
        loop: the event loop that answers.
        ordinary: granian's own scheduling.
    """

    def __init__(
        self, front: "Front", loop: asyncio.AbstractEventLoop, ordinary: Callable[[Watcher], None]
    ) -> None:
        from halfcore.predict.prediction import refusal  # late, as above
        from halfcore.predict.predictor import Translated

        self._front = front
        self._translated = Translated
        self._refusal = refusal
        self._predictor = front.predictor
        self._reader = front.predictor.reader
        self._loop = loop
        self._ordinary = ordinary

    def __call__(self, watcher: Watcher) -> None:
        """Begin a request; called on granian's thread, which holds the interpreter's lock
        meanwhile. Must not raise: granian would not notice."""
        try:
            scope = watcher.scope
            begin = self._front.begin(scope.path) if scope.method == "POST" else None
            if begin is not None:
                headers = scope.headers  # each access makes a copy
                get = headers.get
                # `get` does not find a coding that is not ASCII
                begin = None if ENCODING_HEADER in headers else self._if_plain(begin, get)
                timeout = get(TIMEOUT_HEADER)
                deadline = inf if timeout is None else deadline_of(timeout)
            predictor = self._predictor
            full = predictor.full()
            if (
                begin is not None
                and (full or (predictor.crowded and predictor.refuses(begin)))
                and self._refuse(begin, watcher, get)
            ):
                return
            if begin is None or full or not predictor.allows(get, begin):
                self._ordinary(watcher)
                return
            if self._front.coalescer is not None:
                self._front.coalescer.arriving()
            exchange = watcher.proto
            request_id = get("x-request-id") if predictor.wants_ids else None
            trace = None
            if get(TRACE_HEADER) is not None:
                trace = trace_of(headers.get_all(TRACE_HEADER))
            body: Any = exchange()
            self._reader.begin(body, self._loop)
            body.add_done_callback(
                partial(self._on_body, begin, exchange, request_id, trace, deadline)
            )
        except Problem:  # a header is wrong: the loop refuses it
            self._ordinary(watcher)
        except Exception as error:  # noqa: BLE001
            # no caller can catch it; granian answers 500 when the request is dropped
            logger.error("failed to accept a request; it is answered with 500", exc_info=error)

    def _refuse(self, begin: "Handler", watcher: Watcher, get: Callable[[str], str | None]) -> bool:
        """Answer 503 here if the server is full: waking the loop for it would cost as much as an
        answer. False: the loop decides, because the answer needs more."""
        predictor = self._predictor
        if predictor.keys is not None or predictor.wants_ids or get(TRACE_HEADER) is not None:
            return False
        wire = begin.wire if isinstance(begin, self._translated) else None
        try:
            predictor.check_load()
            raise overloaded("as many requests are waiting as are run in the time one should wait")
        except Problem as problem:
            predictor.metrics.refused_at_once += 1
            answer = self._refusal(problem) if wire is None else wire.refusal(problem)
            self._front.send_of(watcher.proto)(*answer)
            return True

    def _if_plain(self, begin: "Handler", get: Callable[[str], str | None]) -> "Handler | None":
        """What answers a request whose head is plain; None for any other."""
        most = self._reader.whole_bytes  # the loop first reserves memory for a larger one
        if isinstance(begin, self._translated):
            return begin.if_plain(get, max_body_bytes=most)
        return begin if is_plain(get, max_body_bytes=most) else None

    def _on_body(
        self,
        begin: "Handler",
        exchange: Exchange,
        request_id: str | None,
        trace: Trace | None,
        deadline: float,
        reading: Any,
    ) -> None:
        """The body has arrived, or will not arrive; called on the event loop."""
        try:
            late = self._reader.end(reading)
            try:
                body = reading.result()
            except asyncio.CancelledError:
                if late is not None:
                    refused = self._refused(begin, late, request_id, trace)
                    self._front.send_of(exchange)(*refused)
                return
            except (ProtocolClosed, ProtocolError):
                refused = self._refused(begin, client_left(), request_id, trace)
                self._front.send_of(exchange)(*refused)
                return
            send = self._front.send_of(exchange)
            if trace is None and deadline == inf:
                in_progress = begin(body, request_id, send)
            else:
                in_progress = begin(body, request_id, send, trace=trace, deadline=deadline)
            if in_progress.waits_long():
                in_progress.watch(asyncio.ensure_future(exchange.client_disconnect()))
        finally:
            if self._front.coalescer is not None:
                self._front.coalescer.arrived()

    def _refused(
        self, begin: "Handler", problem: Problem, request_id: str | None, trace: Trace | None
    ) -> "Answer":
        wire = begin.wire if isinstance(begin, self._translated) else None
        return self._predictor.refuse(problem, request_id, wire, trace)


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
    """Make a module of granian's create its schedulers with an `Intake`, permanently in this
    process.

    If names are missing, it logs one warning and changes nothing: the front then answers every
    prediction, which costs a quarter more CPU time.
    """
    if lacking := missing(granian):
        logger.warning(
            "the intake is off, predictions are answered without it: granian has no %s; install "
            "granian>=2.8.7,<2.9 for less CPU time",
            ", ".join(lacking),
        )
        return
    ordinary = getattr(granian, _PLACE)
    schedule = import_module("granian._futures")._cbsched_aioschedule  # noqa: SLF001  see the top

    # Found at run time
    class Scheduler(import_module("granian._granian").CallbackScheduler):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, loop: asyncio.AbstractEventLoop, callback: Any, *_: None) -> None:
            super().__init__()
            intake = Intake(front, loop, schedule(loop, self._ctx, callback))
            self._schedule_fn = intake  # type: ignore[misc]

    def new(loop: asyncio.AbstractEventLoop, callback: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return ordinary(loop, callback, **options)  # of the admin port
        # The Nones are for granian's own kind of task, which cannot be cancelled.
        return Scheduler(loop, callback, None, None, None)

    setattr(granian, _PLACE, new)


def handle_signals(make: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], None]) -> bool:
    """Let a worker process of several handle its signals itself, permanently in this process.

    Args:
        make: called with the event loop and with what closes the listener and idle connections;
            installs the handlers.

    Returns:
        Whether this granian allows it; if not, SIGTERM closes the listener at once.
    """
    module = import_module("granian._signals")
    if not (hasattr(module, "set_loop_signals") and hasattr(module, "WorkerSignal")):
        return False

    def set_loop_signals(loop: asyncio.AbstractEventLoop) -> Any:
        stopping = module.WorkerSignal()
        make(loop, stopping.set)
        return stopping

    module.set_loop_signals = set_loop_signals  # type: ignore[attr-defined]
    return True


def worker_processes(server: Any) -> Iterator[int]:
    """The process ids of a server's running workers; none if this granian keeps them
    elsewhere."""
    for worker in getattr(server, "wrks", ()):
        if worker.is_alive() and (pid := getattr(worker.inner, "pid", None)) is not None:
            yield pid


def interrupt_of(server: Any) -> Callable[..., None]:
    """A server's handler of SIGTERM and SIGINT: it ends its workers, signalling each once."""
    handler: Callable[..., None] = server.signal_handler_interrupt
    return handler


def replace_signal_handlers(server: Any, handler: Callable[..., None]) -> None:
    """Make a server call `handler` on SIGTERM, SIGINT and SIGHUP, instead of its own handlers; its
    own of SIGHUP replaces workers without waiting for the new ones."""
    server.signal_handler_interrupt = handler
    server.signal_handler_reload = handler


def supervisor(on_death: Callable[[str, int | None], None]) -> Any:
    """granian's server of several processes, which also reports the death of a worker, and whether
    a worker was killed at the end (`killed`).

    Args:
        on_death: called before another worker is started, with how the worker ended and its
            process id.
    """
    from granian import Granian

    class Supervisor(Granian):  # type: ignore[misc, valid-type]
        killed = False

        def _spawn_worker(self, *arguments: Any, **options: Any) -> Any:
            worker = super()._spawn_worker(*arguments, **options)
            worker.join = partial(_join, worker)
            return worker

        def _respawn_workers(self, workers: list[int], *arguments: Any, **options: Any) -> None:
            for index in workers:
                worker = self.wrks[index]
                on_death(_how_it_ended(worker), getattr(worker.inner, "pid", None))
            super()._respawn_workers(workers, *arguments, **options)

        def _stop_workers(self) -> None:
            workers = list(self.wrks)
            super()._stop_workers()
            self.killed = any(_exit_code(worker) == -signal.SIGKILL for worker in workers)

    return Supervisor


def _how_it_ended(worker: Any) -> str:
    code = _exit_code(worker)
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _join(worker: Any, timeout: float | None = None) -> None:
    """Wait for a worker's end.

    A thread of granian waits for each worker too. If the kernel gives that thread the exit code,
    `multiprocessing` reports the worker as alive until the thread has stored it. granian would log
    that it kills a worker that has ended.
    """
    worker.inner.join(timeout)
    _exit_code(worker)


def _exit_code(worker: Any) -> int | None:
    """The exit code of a worker; None if it has not ended, or never started."""
    process: BaseProcess | None = getattr(worker, "inner", None)
    if process is None or process.pid is None:
        return None
    end = time.monotonic() + _CODE_S
    while (code := process.exitcode) is None and time.monotonic() < end:
        if not wait([process.sentinel], 0):  # it has not ended
            break
        time.sleep(0.001)
    return code
