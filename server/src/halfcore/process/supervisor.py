"""Several workers, each a process, and this process as their supervisor: granian's, which starts
them, and starts another one for each that dies.

The supervisor owns the time limit of the end: it kills a worker that has not ended by then.
"""

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from granian.constants import Interfaces, Loops
from granian.log import LogLevels

from halfcore import host
from halfcore.http import granian_private
from halfcore.log import logger
from halfcore.metrics import workers
from halfcore.process import draining, signals, sizing, slow_clients
from halfcore.process.watchdog import CUT_OFF
from halfcore.settings.groups import Settings

RESEND_EVERY_S = 1.0
"""Seconds between two SIGTERM to a worker that has not ended."""
KILL_MARGIN_S = 0.5
"""Seconds that a worker gets beyond its time, so that one that ends in time is not killed."""
_IN_MEMORY = "/dev/shm"  # noqa: S108  the folder inside has a random name and is private


def serve(
    settings: Settings, plan: sizing.Plan, log_config: dict[str, Any], options: dict[str, Any]
) -> None:
    """Serve until a signal ends the server.

    Args:
        settings: all of them.
        plan: how many workers, and how they use the CPU.
        log_config: for granian's log.
        options: of granian.
    """
    with _shared_folder() as shared:
        server = _server(settings, plan, log_config, options, Path(shared))
        end = End(server)
        granian_private.replace_signal_handlers(server, end)
        end.start()
        server.serve(
            target_loader=partial(_application, settings, plan, Path(shared), end),
            wrap_loader=False,
        )
    if server.killed:
        logger.error(CUT_OFF)
        sys.exit(1)


def _shared_folder() -> TemporaryDirectory[str]:
    """A folder for what the workers share; it exits with 2 if none can be made."""
    try:
        return TemporaryDirectory(prefix="halfcore-")
    except OSError:  # with a read-only root, Docker still mounts this one
        try:
            return TemporaryDirectory(prefix="halfcore-", dir=_IN_MEMORY)
        except OSError as error:
            logger.error(
                "cannot make a folder for what the workers share in %s or %s: %s; mount a tmpfs "
                "on /tmp, set TMPDIR to a folder that this user may write to, or set "
                "HALFCORE_WORKERS=1",
                os.environ.get("TMPDIR") or "/tmp",  # noqa: S108  where Python looks
                _IN_MEMORY,
                error.strerror,
            )
            sys.exit(2)


def _server(
    settings: Settings,
    plan: sizing.Plan,
    log_config: dict[str, Any],
    options: dict[str, Any],
    shared: Path,
) -> Any:
    return granian_private.supervisor(partial(_on_death, shared))(
        "halfcore.worker:Worker",  # only a name for its log: `_application` makes the workers
        interface=Interfaces.RSGI if settings.hot_lane else Interfaces.ASGI,
        workers=plan.workers,
        runtime_threads=1,
        loop=Loops(settings.loop),
        workers_kill_timeout=settings.predrain_s + settings.drain_timeout_s + KILL_MARGIN_S,
        respawn_failed_workers=True,
        log_level=LogLevels.warning,
        log_dictconfig=log_config,
        **options,
    )


def _on_death(shared: Path, how: str, pid: int | None) -> None:
    """Count and report a worker that died."""
    with suppress(OSError):  # a full disk must not keep the next worker from starting
        workers.count_death(shared)
    logger.error(
        "a worker ended unexpectedly (%s), and its requests with it; another one is started. See "
        "the log above; SIGKILL is often the memory limit: raise it",
        how,
        extra={"pid": pid},
    )


class End:
    """The end of the supervisor and its workers, by signals.

    A signal interrupts the main thread anywhere, also where it holds a lock of what it waits for.
    So the handler only writes into a pipe, and a thread does the rest.

    Args:
        server: granian's.
    """

    def __init__(self, server: Any) -> None:
        self.supervisor = os.getpid()
        self._server = server
        self._ending = signals.ending()
        self._interrupt = granian_private.interrupt_of(server)
        self._signals, self._writes = os.pipe()
        os.set_blocking(self._writes, False)

    def start(self) -> None:
        """Wait for the first signal, on a thread of its own."""
        threading.Thread(target=self._run, name="end", daemon=True).start()

    def __call__(self, number: int, *_: object) -> None:
        """Handle a signal in the supervisor. A worker that has no handler yet has inherited this
        one by its fork; it has accepted no request, and exits.

        Otherwise it would note the signal in its unused copy of the supervisor, and the supervisor
        would wait for it until the kill timeout.
        """
        if number not in self._ending:
            return
        if os.getpid() != self.supervisor:
            os._exit(0)
        with suppress(BlockingIOError):  # thousands of signals are there already
            os.write(self._writes, b".")

    def _run(self) -> None:
        """End the workers at the first signal, and hurry them at each further one.

        The end is asked for again and again. granian's main loop may miss it while it replaces a
        worker. It signals each worker once, and uvloop drops a signal that arrives while its loop
        is not running: a worker that had loaded its models and did not serve yet ended only by the
        kill timeout. A second SIGTERM does no harm to a worker that drains.
        """
        os.read(self._signals, 1)
        self._interrupt()
        while True:
            if select.select([self._signals], [], [], RESEND_EVERY_S)[0]:
                os.read(self._signals, 1)
                self._send(signal.SIGUSR1)
            else:
                self._interrupt()
                self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for pid in granian_private.worker_processes(self._server):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _application(settings: Settings, plan: sizing.Plan, shared: Path, end: End) -> Any:
    """Make a worker's application, in the worker: the supervisor saves the memory of what it does
    not import."""
    host.die_with(end.supervisor)
    sizing.apply(plan)
    from granian.server import mp

    from halfcore.worker import Worker

    worker = Worker(settings, shared)
    worker.predictor.reader.budget.limit = plan.bytes_in_flight
    front = worker.front()
    if settings.hot_lane:
        granian_private.install(mp, front)

    watching: list[asyncio.Task[None]] = []  # a loop refers to its tasks weakly

    def handle(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        timing = draining.Timing(settings.predrain_s, settings.drain_timeout_s)
        drain = draining.Drain(front, stop, port=settings.port, timing=timing)
        for number in signals.ending():
            loop.add_signal_handler(number, drain.begin)
        loop.add_signal_handler(signal.SIGUSR1, drain.hurry)
        longest_s = slow_clients.longest_answer_s(settings)
        watching.append(
            loop.create_task(slow_clients.free_the_table(settings.port, unanswered_s=longest_s))
        )

    granian_private.handle_signals(handle)
    return front if settings.hot_lane else front.app
