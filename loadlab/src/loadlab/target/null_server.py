"""The null server: a constant answer over RSGI, on granian as halfcore starts it. What it costs is
granian's and the kernel's.

`python -m loadlab.target.null_server --port 8000 --answer FILE [--read] [--cpu 0] [--batch]`
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels


class Constant:
    """An RSGI application with one answer; `read`: it reads the request's body first."""

    def __init__(self, body: bytes, *, read: bool) -> None:
        self._body = body
        self._headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        self._read = read

    async def __rsgi__(self, _scope: Any, exchange: Any) -> None:
        """Answer."""
        if self._read:
            await exchange()
        exchange.response_bytes(200, self._headers, self._body)


def create(body: bytes, *, read: bool, cpu: int | None, batch: bool) -> Constant:
    """Set the worker process up as asked, and make the application."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if batch:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    return Constant(body, read=read)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--answer", type=Path, required=True, help="file with the body of every answer"
    )
    parser.add_argument("--read", action="store_true", help="read the request's body")
    parser.add_argument("--cpu", type=int, help="hold the worker to this CPU")
    parser.add_argument("--batch", action="store_true", help="schedule the worker as SCHED_BATCH")
    asked = parser.parse_args()
    server = Granian(
        "loadlab.target.null_server:create",
        address="127.0.0.1",
        port=asked.port,
        interface=Interfaces.RSGI,
        workers=1,
        runtime_threads=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        backpressure=12_000,
        http1_settings=HTTP1Settings(header_read_timeout=60_000, max_buffer_size=8192),
        log_level=LogLevels.warning,
    )
    answer = asked.answer.read_bytes()
    load = partial(create, answer, read=asked.read, cpu=asked.cpu, batch=asked.batch)
    # Typed for callables; takes RSGI objects
    server.serve(target_loader=load, wrap_loader=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
