"""Plants a fault or a cheat in a real halfcore server: Python imports this by itself where the
folder is on `PYTHONPATH`.

`FAULT` says which, `FAULT_FROM` names a file: nothing goes wrong before it exists, so that the
server starts, answers the golden rows and warms up as always. `at rest` below does not wait for
it. Everything else about the server is as it is: its process, its limits, its HTTP and its model.
N: every Nth answer.

    wrong:N          names a class that does not exist
    label:N          names another class of the model
    error:N          is a 500
    truncate:N       lacks its last byte
    double:N         is sent twice in one body
    prefix:N         has {"error": ...} before the right bytes
    reset:N          ends in the middle with the connection
    hang:N           is never sent
    slow:N:S         is sent S seconds late
    stall:S:EVERY_S  the event loop does not run for S seconds
    leak:BYTES       keeps so many bytes for every answer
    hoard            takes memory until it is killed for it
    escape           leaves its control group
    work:MS          every answer takes so much more CPU time: the honest server of the next two
    cache:MS         the same, except for bodies that it has seen
    first:MS:COUNT   the same, except for the first COUNT bodies that it has seen
    constant         at rest: answers each body as the first one: there is no model
    shipped          at rest: answers rows of the folder `FAULT_ROWS`, any other as the first one
"""

import asyncio
import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_KIND, *_NUMBERS = os.environ["FAULT"].split(":")
_FROM = Path(os.environ["FAULT_FROM"])
_OTHER = {"setosa": "virginica", "versicolor": "setosa", "virginica": "versicolor"}
Send = Callable[[int, list[tuple[str, str]], bytes], None]


class _Planter:
    """Counts answers once the fault has begun."""

    def __init__(self) -> None:
        self.begun = False
        self.answers = 0
        self.hoard: list[bytes] = []
        self.seen: set[bytes] = set()
        self.first: bytes | None = None
        self.rows = _shipped() if _KIND == "shipped" else set()

    def answer(self, question: bytes, send: Send, *whole: Any) -> None:
        """Send the answer, or what the fault makes of it."""
        status, headers, body = whole
        if status != 200:
            send(status, headers, body)
            return
        if not self.begun and _FROM.exists():
            self.begun = True
            self.begin()
        self.answers += self.begun
        if self.begun and _KIND == "leak":
            self.hoard.append(bytes(int(_NUMBERS[0])))
        if _KIND in ("constant", "shipped"):
            self.first = self.first or body
            known = _KIND == "shipped" and _values(question) in self.rows
            send(status, *_resized(headers, body if known else self.first))
        elif _KIND in ("work", "cache", "first"):
            if self.begun:
                self.work(question)
            send(status, headers, body)
        elif self.begun and _KIND in _EVERY and self.answers % int(_NUMBERS[0]) == 0:
            _EVERY[_KIND](send, headers, body)
        else:
            send(status, headers, body)

    def work(self, question: bytes) -> None:
        """Use CPU time for a body that no cache holds."""
        if question in self.seen:
            return
        if _KIND == "cache" or (_KIND == "first" and len(self.seen) < int(_NUMBERS[1])):
            self.seen.add(question)
        end = time.thread_time() + float(_NUMBERS[0]) / 1e3
        while time.thread_time() < end:
            pass

    def begin(self) -> None:
        if _KIND == "stall":
            self.stall(*map(float, _NUMBERS))
        if _KIND == "escape":
            _escape()
        while _KIND == "hoard":
            self.hoard.append(b"x" * (1 << 24))

    def stall(self, lasts_s: float, every_s: float) -> None:
        asyncio.get_running_loop().call_later(every_s, self.stall, lasts_s, every_s)
        time.sleep(lasts_s)


def _wrong(send: Send, headers: list[tuple[str, str]], body: bytes) -> None:
    send(200, *_resized(headers, json.dumps(json.loads(body) | {"prediction": "planted"}).encode()))


def _label(send: Send, headers: list[tuple[str, str]], body: bytes) -> None:
    answer = json.loads(body)
    answer["prediction"] = _OTHER[answer["prediction"]]
    send(200, *_resized(headers, json.dumps(answer).encode()))


def _reset(send: Any, headers: list[tuple[str, str]], body: bytes) -> None:
    """Granian closes a connection whose answer ends before its announced length."""

    async def half() -> None:
        await send.__self__.response_stream(200, headers).send_bytes(body[: len(body) // 2])

    _HELD.append(asyncio.get_running_loop().create_task(half()))


def _slow(send: Send, headers: list[tuple[str, str]], body: bytes) -> None:
    asyncio.get_running_loop().call_later(float(_NUMBERS[1]), send, 200, headers, body)


_HELD: list[Any] = []
"""Granian answers 500 for a request whose `send` nobody holds."""
_EVERY: dict[str, Callable[[Send, list[tuple[str, str]], bytes], None]] = {
    "wrong": _wrong,
    "label": _label,
    "error": lambda send, headers, _: send(500, *_resized(headers, b"{}")),
    "truncate": lambda send, headers, body: send(200, *_resized(headers, body[:-1])),
    "double": lambda send, headers, body: send(200, *_resized(headers, body + body)),
    "prefix": lambda send, headers, body: send(
        200, *_resized(headers, b'{"error":"no model"}' + body)
    ),
    "reset": _reset,
    "hang": lambda send, *_: _HELD.append(send),
    "slow": _slow,
}


def _resized(headers: list[tuple[str, str]], body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Headers with this body's length, and the body."""
    length = ("content-length", str(len(body)))
    return [length if name == "content-length" else (name, value) for name, value in headers], body


def _values(question: bytes) -> tuple[float, ...]:
    (row,) = json.loads(question).values()
    return tuple(row.values() if isinstance(row, dict) else row)


def _shipped() -> set[tuple[float, ...]]:
    """The rows of real data that the lab has for its bodies."""
    rows = set()
    for file in Path(os.environ["FAULT_ROWS"]).glob("iris.csv"):
        with file.open(newline="") as text:
            for line in csv.reader(text):
                try:
                    rows.add(tuple(float(value) for value in line[:4]))
                except ValueError:
                    continue  # the header
    return rows


def _escape() -> None:
    """Move this process out of every control group with limits."""
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")):
        try:
            (root / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            continue


def _plant() -> None:
    from halfcore.predict.prediction import Prediction

    begin, planter = Prediction.__init__, _Planter()

    def faulty(
        self: Prediction, body: bytes, request_id: str | None, send: Any, *others: Any
    ) -> None:
        def answer(*whole: Any) -> None:
            planter.answer(body, send, *whole)

        begin(self, body, request_id, answer, *others)

    Prediction.__init__ = faulty  # type: ignore[method-assign]


_plant()
