"""`model-export watch` and `model-export healthy`: flags, logging and signals around the loop."""

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
"""MLflow's client by default waits 120 s and tries seven times; the watch retries by itself, and
must be able to stop."""

logger = logging.getLogger("model_export.watch")


class _Stopped(BaseException):
    """SIGTERM or Ctrl-C. Not an Exception, so that no handler takes it for a failure of MLflow."""


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `watch`."""
    watch_settings.add_flags(parser)
    parser.set_defaults(run=_watch)


def add_healthy(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `healthy`."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="heartbeat file, as given to watch --heartbeat"
    )
    parser.add_argument(
        "--max-age",
        type=float,
        default=120.0,
        metavar="S",
        help="fail if the last heartbeat is older than this, in seconds; default: %(default)s",
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
    from model_export.bundle.sign import read_key
    from model_export.bundle.write import require_writable
    from model_export.registry.connection import connect
    from model_export.watch.heartbeat import Heartbeat
    from model_export.watch.loop import Watch

    _configure_logging()
    if settings.heartbeat is not None:
        require_writable(settings.heartbeat.parent)
    if settings.signing_key is not None:
        read_key(settings.signing_key)  # so that an error stops the start, and not each export
    tracking_uri = connect(settings.tracking_uri)
    with suppress(_Stopped), _own(settings.work), _stoppable():
        watch = Watch(settings, tracking_uri, Heartbeat(settings.heartbeat))
        logger.info("watching %s in %s", " ".join(settings.models), tracking_uri)
        return 0 if watch.run() else 1
    logger.info("stopped")
    return 0


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Lock the work folder, and empty it: a killed watch may have left files there.

    Raises:
        ExportError: another watch has locked it.
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
                f"another watch uses the work folder {folder}: give this one another with --work"
            ) from error
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the watch at once. Work in progress is undone on the way out, or
    started again at the next start."""

    def stop(number: int, _: Any) -> None:
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        raise _Stopped(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    yield


def _configure_logging() -> None:
    """Log to standard error: coloured lines on a terminal, otherwise plain lines with the time."""
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
