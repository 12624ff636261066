"""Clients that send large requests and leave before the answer: `just prove-leavers`.

Again and again 20 clients send 900 rows each, and reset their connections 150 ms later, while other
clients send single rows. Of the rows that still wait then at most one batch may be run, the one
that had begun. The other clients wait for two batches at most while the rows are there, and once
they have left, their p99 is at most twice that of a server without leavers.
"""

import argparse
import operator
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.bodies import dumped
from support.bundles import expensive, write_bundle
from support.client import parsed, wait_until
from support.load import Load, Sent, percentile
from support.proof import Check, begin, conclude
from support.serving import Server, request, serving

CLIENTS, ROWS, LEAVE_S = 20, 900, 0.15
EVERY_S = 1.0
"""Between two bursts."""
RATE = 100.0
"""Single rows per second of the others."""
BATCH = 128
MOST = 2.0
"""Of the others' p99 without leavers."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing the connection resets it."""


class Burst(NamedTuple):
    """What one burst of clients that left cost."""

    before: int
    """Their rows that were run while they waited."""
    after: int
    """And once they had left."""
    sent_at: float
    empty_at: float
    """When no row waited any more; both by time.monotonic()."""


class Counts(NamedTuple):
    """The server's counters."""

    rows: float
    answered: float
    queued: float
    left: float


def main() -> int:
    """Run; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=30)
    total = parser.parse_args().bursts
    console = Console()
    begun = begin(console)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder), model=expensive(4, width=64, layers=1280))
        # On a CPU each, so that clients do not wait for the server's threads.
        server_cpu, *client_cpus = sorted(os.sched_getaffinity(0))
        wrap = partial(operator.add, ["taskset", "--cpu-list", str(server_cpu)])
        os.sched_setaffinity(0, client_cpus or [server_cpu])
        with serving(Path(folder), wrap=wrap, max_batch_size=BATCH, workers=1) as server:
            quiet = _load(server)
            with quiet.running():
                time.sleep(total * EVERY_S)
            disturbed = _load(server)
            with disturbed.running():
                bursts = [_burst(server) for _ in range(total)]
            end = _counts(server)
    checks = _judged(bursts, end, quiet, disturbed)
    figures = {"bursts": [one._asdict() for one in bursts]}
    title = f"{total} times {CLIENTS} clients that leave {ROWS} rows each"
    return conclude(begun, "leavers", title, checks, figures, console=console)


def _load(server: Server) -> Load:
    return Load(server.port, [dumped({"features": [1, 2, 3, 4.5]})], rate=RATE)


def _burst(server: Server) -> Burst:
    """Send, leave, and wait until no row waits."""
    sent_at = time.monotonic()
    message = request("/predict", dumped({"features": [[1.0, 2.0, 3.0, 4.5]] * ROWS}))
    first = _counts(server)
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            address = ("127.0.0.1", server.port)
            connection = stack.enter_context(socket.create_connection(address))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(message)
        time.sleep(LEAVE_S)
        before = _counts(server)
        assert before.queued > BATCH, "their rows were run before they left: nothing was tried"
    wait_until(lambda: _counts(server).queued == 0)
    after, empty_at = _counts(server), time.monotonic()
    time.sleep(max(0.0, sent_at + EVERY_S - time.monotonic()))
    return Burst(_theirs(first, before), _theirs(before, after), sent_at, empty_at)


def _counts(server: Server) -> Counts:
    _, _, body = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")
    samples = parsed(body.decode())
    return Counts(
        samples.get(("halfcore_batch_rows_sum", "numbers"), 0.0),
        samples.get(("halfcore_requests_total", "numbers", "200", "predict"), 0.0),
        samples.get(("halfcore_queued_rows", "numbers"), 0.0),
        samples.get(("halfcore_requests_total", "numbers", "client_left", "predict"), 0.0),
    )


def _theirs(before: Counts, after: Counts) -> int:
    """Rows run in between, without those of the others: each of their requests has one."""
    return int(after.rows - before.rows - (after.answered - before.answered))


def _judged(bursts: Sequence[Burst], end: Counts, quiet: Load, load: Load) -> list[Check]:
    """What must hold."""
    after = sorted(burst.after for burst in bursts)
    usual, most = after[len(after) // 2], after[-1]
    batch_s = len(bursts) * LEAVE_S * BATCH / sum(burst.before for burst in bursts)
    # The batch that had begun is finished.
    spans = [(burst.sent_at, burst.empty_at + batch_s) for burst in bursts]
    among = [any(start <= sent.at_s < end for start, end in spans) for sent in load.sent]
    alone_s = _p99(quiet.sent)
    while_s = _p99([sent for sent, during in zip(load.sent, among, strict=True) if during])
    then_s = _p99([sent for sent, during in zip(load.sent, among, strict=True) if not during])
    # Some are answered before they leave.
    counted = end.left + end.answered - len(quiet.sent) - len(load.sent) + len(load.failed)
    expected, failed = len(bursts) * CLIENTS, len(load.failed)
    return [
        Check("rows run after they left, median", f"{usual}", f"≤ {BATCH}", usual <= BATCH),
        # The one that had begun, and one that begins between the count and the last reset.
        Check("most", f"{most}", f"≤ {2 * BATCH}", most <= 2 * BATCH),
        Check("leavers counted", f"{counted:.0f}", f"{expected}", counted == expected),
        Check("failures of the others", f"{failed} of {len(load.sent)}", "0", not failed),
        Check("the others' p99 without leavers", f"{alone_s * 1e3:.1f} ms", "", held=True),
        _time("while the rows wait", while_s, alone_s + 2 * batch_s),
        _time("once they have left", then_s, MOST * alone_s),
    ]


def _p99(sent: Sequence[Sent]) -> float:
    return percentile([one.latency_s for one in sent], 0.99)


def _time(name: str, found_s: float, most_s: float) -> Check:
    return Check(name, f"{found_s * 1e3:.1f} ms", f"≤ {most_s * 1e3:.1f} ms", found_s <= most_s)


if __name__ == "__main__":
    sys.exit(main())
