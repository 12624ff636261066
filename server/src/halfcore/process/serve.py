"""Runs granian with the application: in this process if one worker is enough, otherwise in one
process per worker with a supervisor.

One worker needs no supervisor: what restarts a container restarts this process. That saves 40 MB,
which on a small tier are 3,000 connections. Both ways serve HTTP/1.1 only: over HTTP/2 a client
could claim 16 MiB of headers, and websockets reach granian's panics, which end the process.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from halfcore import host
from halfcore.http import granian_private
from halfcore.log import logger
from halfcore.process import draining, sizing
from halfcore.settings.groups import Settings

if TYPE_CHECKING:
    from halfcore.worker import Worker

RESEND_EVERY_S = 1.0
"""Seconds between two SIGTERM to a worker that has not ended."""


def serve(settings: Settings, plan: sizing.Plan, log_config: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT: then accept no more, answer the accepted requests, return."""
    settings = replace(settings, max_in_flight=plan.max_in_flight)
    if plan.workers == 1:
        _serve_here(settings, plan)
    else:
        _serve_in_workers(settings, plan, log_config)


def _options(settings: Settings, plan: sizing.Plan) -> dict[str, Any]:
    """The options of granian that both ways share."""
    tls: dict[str, Any] = {}
    if settings.tls_certificate:
        tls = {
            "ssl_cert": Path(settings.tls_certificate),
            "ssl_key": Path(settings.tls_key),
            "ssl_protocol_min": SSLProtocols(f"tls{settings.tls_oldest}"),
        }
    return tls | {
        "address": settings.host,
        "port": settings.port,
        "http": HTTPModes.http1,
        "websockets": False,
        "backlog": settings.backlog,
        "backpressure": plan.max_connections,
        "http1_settings": HTTP1Settings(
            header_read_timeout=settings.idle_timeout_s * 1000,
            max_buffer_size=settings.connection_buffer_bytes,
        ),
    }


def _serve_here(settings: Settings, plan: sizing.Plan) -> None:
    """One worker, in this process."""
    sizing.apply(plan)
    with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
        runner.run(_run(settings, plan))


async def _run(settings: Settings, plan: sizing.Plan) -> None:
    from granian.server import embed

    from halfcore.worker import Worker

    # granian warns at every start that this way of running it is experimental; docs/decisions/0006
    # says why we do.
    logging.getLogger(granian_private.LOGGER).setLevel(logging.ERROR)
    loop = asyncio.get_running_loop()
    worker = Worker(settings)
    front = worker.front(coalesce_quota=plan.coalesce_quota, coalesce_delay_s=plan.coalesce_delay_s)
    # The bound method, not the object: the object's hooks would run the loop, which runs already,
    # so the lifespan is entered here.
    target, interface = (
        (front.__rsgi__, Interfaces.RSGI) if settings.hot_lane else (front.app, Interfaces.ASGINL)
    )
    if settings.hot_lane:
        granian_private.install(embed, front)
    async with front.app.lifespan():
        fitted = _after_loading(settings, plan)
        worker.predictor.limit_in_flight(fitted.max_in_flight)
        worker.predictor.reader.budget.limit = fitted.bytes_in_flight
        server = embed.Server(
            target, interface=interface, log_enabled=False, **_options(settings, fitted)
        )
        # A request's first steps, up to its body, then cost no iteration of the loop.
        if sys.version_info >= (3, 12):
            loop.set_task_factory(_eager_task)
        _drain_on_signals(loop, worker, server, settings)
        await server.serve()


def _after_loading(settings: Settings, plan: sizing.Plan) -> sizing.Plan:
    """The plan for the memory that the loaded models leave."""
    fitted = sizing.after_loading(
        plan,
        memory_left=host.memory_left(),
        given=settings.max_connections,
        bytes_given=settings.max_bytes_in_flight,
        max_body_bytes=settings.max_body_bytes,
    )
    for reason in fitted.reasons:
        logger.info(reason)
    for warning in fitted.warnings:
        logger.warning(warning)
    return fitted


def _drain_on_signals(
    loop: asyncio.AbstractEventLoop, worker: "Worker", server: Any, settings: Settings
) -> None:
    end = draining.on_signal(
        unready=worker.models.begin_draining,
        stop=partial(_stop, server, settings.drain_timeout_s),
        later=loop.call_later,
        predrain_s=settings.predrain_s,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _eager_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """A task that begins at once; asyncio's own factory does not accept all options that newer
    loops pass."""
    return asyncio.Task(coroutine, loop=loop, **({"eager_start": True} | options))


def _stop(server: Any, drain_timeout_s: float) -> None:
    """Accept no more; exit after the timeout even if requests are not answered by then."""
    server.stop()
    asyncio.get_running_loop().call_later(drain_timeout_s, _give_up)


def _give_up() -> None:
    logger.error(
        "ended before every accepted request was answered: drain_timeout_s is over; raise "
        "HALFCORE_DRAIN_TIMEOUT_S if that is too short"
    )
    os._exit(1)


def _loop_factory(settings: Settings) -> Any:
    if settings.loop == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def _serve_in_workers(settings: Settings, plan: sizing.Plan, log_config: dict[str, Any]) -> None:
    """Several workers, each a process, and this process as their supervisor."""
    from granian import Granian

    server = Granian(
        "halfcore.worker:Worker",  # only a name for its log: `_application` makes the workers
        interface=Interfaces.RSGI if settings.hot_lane else Interfaces.ASGI,
        workers=plan.workers,
        runtime_threads=1,
        loop=Loops(settings.loop),
        workers_kill_timeout=settings.drain_timeout_s,
        log_level=LogLevels.warning,
        log_dictconfig=log_config,
        **_options(settings, plan),
    )
    # Workers inherit that it is ignored: the default action would end one that has no handler yet.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    end = draining.on_signal(
        unready=partial(_unready_workers, server),
        stop=partial(_stop_workers, server, granian_private.interrupt_of(server)),
        later=_later,
        predrain_s=settings.predrain_s,
    )
    granian_private.replace_interrupt(server, partial(_end, os.getpid(), end))
    with TemporaryDirectory(prefix="halfcore-") as shared:
        server.serve(
            target_loader=partial(_application, settings, plan, Path(shared), os.getpid()),
            wrap_loader=False,
        )


def _end(supervisor: int, end: Callable[..., None], *signals: object) -> None:
    """Handle a signal in the supervisor. A worker that has no handler yet has inherited this one by
    its fork; it has accepted no request, and exits.

    Otherwise it would note the signal in its unused copy of the supervisor, and the supervisor
    would wait for it until the kill timeout.
    """
    if os.getpid() != supervisor:
        os._exit(0)
    end(*signals)


def _later(delay_s: float, stop: Callable[[], None]) -> None:
    timer = threading.Timer(delay_s, stop)
    timer.daemon = True  # a second signal must not wait for it
    timer.start()


def _stop_workers(server: Any, interrupt: Callable[..., None], *signals: object) -> None:
    """Have granian end its workers, and send SIGTERM again to those that have not ended.

    granian signals each once, and uvloop drops a signal that arrives while its loop is not running:
    a worker that had loaded its models and did not serve yet ended only by the kill timeout. A
    second signal does no harm to a worker that drains.
    """
    interrupt(*signals)
    _later(RESEND_EVERY_S, partial(_resend_sigterm, server))


def _resend_sigterm(server: Any) -> None:
    for pid in granian_private.worker_processes(server):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _later(RESEND_EVERY_S, partial(_resend_sigterm, server))


def _unready_workers(server: Any) -> None:
    for pid in granian_private.worker_processes(server):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)


def _application(settings: Settings, plan: sizing.Plan, shared: Path, supervisor: int) -> Any:
    """Make a worker's application, in the worker: the supervisor saves the memory of what it does
    not import."""
    host.die_with(supervisor)
    sizing.apply(plan)
    from granian.server import mp

    from halfcore.worker import Worker

    worker = Worker(settings, shared)
    worker.predictor.reader.budget.limit = plan.bytes_in_flight
    front = worker.front()
    if settings.hot_lane:
        granian_private.install(mp, front)
    signal.signal(signal.SIGUSR1, lambda *_: worker.models.begin_draining())
    return front if settings.hot_lane else front.app
