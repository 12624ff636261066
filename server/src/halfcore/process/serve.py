"""Runs granian with the application: in this process if one worker is enough, otherwise in one
process per worker with a supervisor.

One worker needs no supervisor: what restarts a container restarts this process. That saves 40 MB,
which on a small tier are 3,000 connections. Both ways serve HTTP/1.1 only: over HTTP/2 a client
could claim 16 MiB of headers, and websockets reach granian's panics, which end the process.
"""

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings

from halfcore import host
from halfcore.http import granian_private
from halfcore.log import logger
from halfcore.process import draining, signals, sizing, slow_clients, supervisor
from halfcore.process.watchdog import Watchdog
from halfcore.settings.groups import Settings


def serve(settings: Settings, plan: sizing.Plan, log_config: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT: then accept no more, answer the accepted requests, return."""
    settings = replace(settings, max_in_flight=plan.max_in_flight)
    if plan.workers == 1:
        _serve_here(settings, plan)
    else:
        supervisor.serve(settings, plan, log_config, options(settings, plan))


def options(settings: Settings, plan: sizing.Plan) -> dict[str, Any]:
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
            target, interface=interface, log_enabled=False, **options(settings, fitted)
        )
        # A request's first steps, up to its body, then cost no iteration of the loop.
        if sys.version_info >= (3, 12):
            loop.set_task_factory(_eager_task)
        timing = _timing(settings)
        drain = draining.Drain(front, server.stop, port=settings.port, timing=timing)
        Watchdog(drain, front, timing).start(signals.ending())
        watching = asyncio.create_task(
            slow_clients.free_the_table(
                settings.port, unanswered_s=slow_clients.longest_answer_s(settings)
            )
        )
        await server.serve()
        watching.cancel()


def _timing(settings: Settings) -> draining.Timing:
    return draining.Timing(settings.predrain_s, settings.drain_timeout_s)


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


def _eager_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """A task that begins at once; asyncio's own factory does not accept all options that newer
    loops pass."""
    return asyncio.Task(coroutine, loop=loop, **({"eager_start": True} | options))


def _loop_factory(settings: Settings) -> Any:
    if settings.loop == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
