"""`model-export watch` and `model-export healthy`: settings, log lines and signals around the
loop."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.stages import debugging
from model_export.watch import settings as watch_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_HTTP_RETRY_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""MLflow's client by default waits 120 s and tries seven times; the watch has a rhythm of its own,
and an end to come to."""

logger = logging.getLogger("model_export.watch")


class _Stopped(BaseException):
    """SIGTERM or Ctrl-C. No Exception: nobody may take it for a failure of MLflow."""


def add_watch(parser: argparse.ArgumentParser) -> None:
    """The flags of `watch`."""
    watch_settings.add_flags(parser)
    parser.set_defaults(run=_watch)


def add_healthy(parser: argparse.ArgumentParser) -> None:
    """The flags of `healthy`."""
    parser.add_argument("file", type=Path, help="as given to `watch --heartbeat`")
    parser.add_argument(
        "--max-age",
        type=float,
        default=120.0,
        metavar="S",
        help="oldest heartbeat in seconds; default: %(default)s",
    )
    parser.set_defaults(run=_healthy)


def _healthy(arguments: argparse.Namespace) -> int:
    from model_export.watch import heartbeat

    alive, line = heartbeat.check(arguments.file, arguments.max_age)
    (sys.stdout if alive else sys.stderr).write(f"{line}\n")
    return 0 if alive else 1


def _watch(arguments: argparse.Namespace) -> int:
    try:
        settings = watch_settings.read(arguments, os.environ)
    except watch_settings.SettingsError as error:
        sys.stderr.write(f"model-export watch: {error}\n")
        return 2
    for name, value in _HTTP_RETRY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from model_export.bundle.write import require_writable
    from model_export.registry.connection import connect
    from model_export.watch.heartbeat import Heartbeat
    from model_export.watch.loop import Watch

    _configure_logging()
    if settings.heartbeat is not None:
        require_writable(settings.heartbeat.parent)
    tracking_uri = connect(settings.tracking_uri)
    with suppress(_Stopped), _own(settings.work), _stoppable():
        watch = Watch(settings, tracking_uri, Heartbeat(settings.heartbeat))
        logger.info("watching %s in %s", " ".join(settings.models), tracking_uri)
        return 0 if watch.run() else 1
    logger.info("stopped")
    return 0


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold the work folder alone, and empty it: what lies there was left by a watch that was
    killed.

    Raises:
        ExportError: another watch holds it.
        InfrastructureError: it cannot be written to.
    """
    import shutil

    from model_export.bundle.write import require_writable
    from model_export.errors import ExportError

    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(
                f"another watch works in {folder}; give this one a folder of its own with --work"
            ) from error
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end whatever is going on at once; what was begun is undone on the way
    out, or begun anew at the next start."""

    def stop(number: int, _: Any) -> None:
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(
                again, signal.SIG_IGN
            )  # one is enough: the way out is not to be cut short
        raise _Stopped(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    yield


def _configure_logging() -> None:
    """Coloured lines on a terminal, plain ones with the time elsewhere; both on standard error."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True), show_path=False, markup=False, highlighter=None
        )
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debugging() else logging.INFO)
    logger.propagate = False
