"""`halfcore serve`: the command line, and granian around the app."""

import argparse
import os
import socket
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from halfcore import __version__, host, sizing
from halfcore.log import configure, logger
from halfcore.settings import Settings, SettingsError, add_arguments, from_command_line

_DESCRIPTION = """Serve all bundles of a directory: POST /predict and /models/NAME/predict, GET /models, /health, /metrics, /docs.
A flag wins over its environment variable. A wrong value stops the start."""


def main() -> None:
    """Run the command line; exits 2 on a wrong setting."""
    parser = argparse.ArgumentParser(prog="halfcore", description="Serves ONNX model bundles.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve", help="serve the bundles of a directory", description=_DESCRIPTION, allow_abbrev=False)
    add_arguments(serve_parser)
    arguments = parser.parse_args()
    try:
        settings = from_command_line([item for item in vars(arguments).items() if item[0] != "command"], os.environ)
        if not settings.bundles.is_dir():
            raise SettingsError(f"bundles={str(settings.bundles)!r}: not a directory; `model-export export` makes one")
        _check_port(settings.host, settings.port)
    except SettingsError as error:
        print(f"halfcore: {error}", file=sys.stderr)  # noqa: T201  a command line speaks to its terminal
        sys.exit(2)
    serve(settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT: then accept no more, answer what was accepted, and return."""
    log_config = configure(level=settings.log_level, form=settings.log_format)
    plan = sizing.plan(
        workers=settings.workers,
        max_connections=settings.max_connections,
        pin=settings.pin_cpu,
        batch_scheduling=settings.batch_scheduling,
        quota=host.cpu_quota(),
        memory_limit=host.memory_limit(),
        raise_open_files=host.open_files,
        model_bytes=sum(file.stat().st_size for file in settings.bundles.glob("*/*/model.onnx")),
    )
    server = Granian(
        "halfcore.front:create_front",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI if settings.hot_lane else Interfaces.ASGI,
        workers=plan.workers,
        runtime_threads=1,
        loop=Loops(settings.loop),
        # HTTP/2 and websockets are not spoken: a client could otherwise claim 16 MiB of headers, or reach granian's panics.
        http=HTTPModes.http1,
        websockets=False,
        backlog=settings.backlog,
        backpressure=plan.max_connections,
        http1_settings=HTTP1Settings(header_read_timeout=settings.idle_timeout_s * 1000, max_buffer_size=settings.connection_buffer_bytes),
        workers_kill_timeout=settings.drain_timeout_s,
        log_level=LogLevels.warning,
        log_dictconfig=log_config,
    )
    logger.info("halfcore %s on http://%s:%d", __version__, settings.host, settings.port)
    for reason in plan.reasons:
        logger.info(reason)
    for warning in plan.warnings:
        logger.warning(warning)
    with TemporaryDirectory(prefix="halfcore-") if plan.workers > 1 else nullcontext() as shared:
        server.serve(target_loader=partial(_application, settings, plan, shared), wrap_loader=False)


def _application(settings: Settings, plan: sizing.Plan, shared: str | None) -> Any:
    """Make a worker's application, in the worker: what its parent does not import, the parent does not hold in memory."""
    sizing.apply(plan)
    if settings.hot_lane:
        from halfcore.front import create_front

        return create_front(settings, Path(shared) if shared else None)
    from halfcore.app import create_app

    return create_app(settings, Path(shared) if shared else None)


def _check_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on: granian's workers share theirs, so a second server would silently take half the requests."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SettingsError(f"host={host!r}, port={port}: {error.strerror}") from None


if __name__ == "__main__":
    main()
