"""A small server that answers a constant, and on request answers wrongly, fails, stalls or hangs:
for what a load lab has to catch.

By hand: `python tests/support/misbehaving.py --port 8123 --calm-s 40 --wrong-every 100`, then `just
load tier=half-core target=127.0.0.1:8123`.
"""

import argparse
import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RIGHT = b'{"prediction":"setosa"}'
_WRONG = b'{"prediction":"rose"}  '
CHEATS = {
    "an error before the answer": b'{"error":"no model"}' + RIGHT,
    "the answer twice": RIGHT + RIGHT,
    "a truncated answer": RIGHT[:-1],
    "a field twice": b'{"prediction":"rose","prediction":"setosa"}',
    "a further field": b'{"prediction":"setosa","error":"no model"}',
    "another label": b'{"prediction":"rose"}',
    "no body": b"",
}
"""Answers with status 200 that are not the right one, and look like it."""
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


@dataclass
class Faults:
    """What goes wrong, and what was seen. Every n-th request; 0: never."""

    wrong_every: int = 0
    error_every: int = 0
    reset_every: int = 0
    stall_every_s: float = 0.0
    stall_s: float = 0.3
    delay_s: float = 0.0
    hang: bool = False
    closes: bool = False
    """Each connection is closed after its answer, without a word, as when it was idle for long."""
    cheats: bool = False
    """Each answer is the next of `CHEATS`."""
    calm_s: float = 0.0
    """Nothing goes wrong before."""
    accepts: int = 0
    requests: int = 0
    seen: dict[str, int] = field(default_factory=lambda: {"wrong": 0, "error": 0, "reset": 0})
    bodies: set[bytes] = field(default_factory=set)


class _Server:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._began = 0.0

    async def serve(self, port: int) -> asyncio.Server:
        self._began = asyncio.get_running_loop().time()
        return await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=2048)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._faults.accepts += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                self._faults.bodies.add(await reader.readexactly(int(length[1]) if length else 0))
                await self._answer(writer)
                if self._faults.closes:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client left, or the test is over
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        faults, now = self._faults, asyncio.get_running_loop().time()
        faults.requests += 1
        status, body = b"200 OK", RIGHT
        if now - self._began >= faults.calm_s:
            status, body = self._misbehave(status, body)
            if faults.stall_every_s:  # everybody who comes within the stall waits for its end
                into_s = (now - self._began) % faults.stall_every_s
                await asyncio.sleep(max(faults.stall_s - into_s, 0.0))
            if faults.hang:
                await asyncio.sleep(3600)
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        writer.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )

    def _misbehave(self, status: bytes, body: bytes) -> tuple[bytes, bytes]:
        faults = self._faults
        if faults.cheats:
            return status, list(CHEATS.values())[faults.requests % len(CHEATS)]
        if faults.wrong_every and faults.requests % faults.wrong_every == 0:
            faults.seen["wrong"] += 1
            return status, _WRONG
        if faults.error_every and faults.requests % faults.error_every == faults.error_every // 2:
            faults.seen["error"] += 1
            return b"500 Internal Server Error", b"{}"
        if faults.reset_every and faults.requests % faults.reset_every == faults.reset_every // 3:
            faults.seen["reset"] += 1
            raise ConnectionError
        return status, body


@contextmanager
def misbehaving(faults: Faults) -> Iterator[int]:
    """Serve in a thread; yields the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(_Server(faults).serve(0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    for name, kind in (
        ("wrong-every", int),
        ("error-every", int),
        ("reset-every", int),
        ("stall-every-s", float),
        ("calm-s", float),
    ):
        parser.add_argument(f"--{name}", type=kind, default=0)
    parser.add_argument("--stall-s", type=float, default=0.3)
    asked = vars(parser.parse_args())
    port = asked.pop("port")

    async def run() -> None:
        await (await _Server(Faults(**asked)).serve(port)).serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
