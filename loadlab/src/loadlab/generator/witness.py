"""The witness: a separate process that sends a few requests a second on its own connections, and
reports the answers and their times.

`python -m loadlab.generator.witness LOAD TICKS`. It shares no code path with the generators' users
but the parser: threads and blocking sockets, one request a second on each connection, by a
timetable. A late answer does not move the next request's time.
"""

import random
import sys
import threading
import time
from pathlib import Path

import msgspec

from loadlab.generator import plan
from loadlab.generator.exchange import Exchange
from loadlab.generator.http import Client, is_right
from loadlab.generator.ledger import Ledger

CONNECTIONS = 20
"""Each asks once a second; 20 requests a second are 2,400 in two minutes: enough for a p95."""
_PERIOD_S = 1.0


class _Probe(threading.Thread):
    def __init__(self, number: int, load: plan.Load, ledger: Ledger, lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        host, port = load.addresses[number % len(load.addresses)]
        self._client = Client(host, port, load.path, timeout_s=load.timeout_s)
        self._exchanges, self._ledger, self._lock = load.exchanges, ledger, lock
        self._draw = random.Random(f"{load.seed}/witness/{number}")  # noqa: S311  reproducible

    def run(self) -> None:
        due = time.monotonic() + self._draw.random() * _PERIOD_S
        while True:
            time.sleep(max(due - time.monotonic(), 0.0))
            self._ask(due, self._draw.choice(self._exchanges))
            due += _PERIOD_S

    def _ask(self, due: float, exchange: Exchange) -> None:
        with self._lock:
            self._ledger.begun(due)
        sent, kind, answer = time.monotonic(), "", b""
        try:
            status, answer = self._client.ask(exchange.body)
            kind = "" if status == 200 else f"status_{status}"
        except (OSError, ValueError) as error:
            kind = "timeout" if isinstance(error, TimeoutError) else "reset"
        now = time.monotonic()
        if not kind and not is_right(answer, exchange.answer.encode()):
            kind = "wrong_prediction"
        with self._lock:
            if kind:
                self._ledger.failed(kind, due, now)
            else:
                self._ledger.answered(due, sent, now)


def main() -> None:
    """Probe until ended; writes a tick a second."""
    load = plan.read(Path(sys.argv[1]))
    ledger, lock = Ledger("witness", load.start), threading.Lock()
    for number in range(CONNECTIONS):
        _Probe(number, load, ledger, lock).start()
    with Path(sys.argv[2]).open("ab", buffering=0) as ticks:
        while True:
            time.sleep(ledger.seconds_left())
            with lock:
                tick = ledger.tick()
            ticks.write(msgspec.json.encode(tick) + b"\n")


if __name__ == "__main__":
    plan.die_with_asked_parent()
    main()
