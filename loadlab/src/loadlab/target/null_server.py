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

_SERVER = partial(
    Granian,
    "loadlab.target.null_server:create",
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


def create(body: bytes, *, read: bool, cpu: int | None, batch: bool) -> Any:
    """Set the worker process up as asked, and make the RSGI application with one answer."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if batch:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]

    async def answer(_scope: Any, exchange: Any) -> None:
        if read:
            await exchange()
        exchange.response_bytes(200, headers, body)

    return answer


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True, help="file with every answer's body")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--read", action="store_true", help="read the request's body")
    parser.add_argument("--cpu", type=int, help="hold the worker to this CPU")
    parser.add_argument("--batch", action="store_true", help="schedule the worker as SCHED_BATCH")
    asked = parser.parse_args()
    answer = asked.answer.read_bytes()
    load = partial(create, answer, read=asked.read, cpu=asked.cpu, batch=asked.batch)
    _SERVER(address=asked.host, port=asked.port).serve(target_loader=load, wrap_loader=False)


if __name__ == "__main__":
    main()
