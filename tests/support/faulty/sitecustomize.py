"""Plants a fault in a real halfcore server: Python imports this by itself where the folder is on
`PYTHONPATH`.

`FAULT` says which, `FAULT_FROM` names a file: nothing goes wrong before it exists, so that the
server starts, answers the golden rows and warms up as always. Everything else about the server is
as it is: its process, its limits, its front and its model.

    wrong:100       every 100th answer names a class that there is not
    error:100       every 100th answer is a 500
    stall:0.3:10    the event loop stands still for 0.3 s every 10 s
    hoard           takes memory until it is killed for it
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

_KIND, *_NUMBERS = os.environ["FAULT"].split(":")
_FROM = Path(os.environ["FAULT_FROM"])


class _Planter:
    """Counts answers once the fault has begun."""

    def __init__(self) -> None:
        self.begun = False
        self.answers = 0
        self.hoard: list[bytes] = []

    def touches(self) -> bool:
        """Whether this answer is one of those that go wrong."""
        if not self.begun and _FROM.exists():
            self.begun = True
            self.begin()
        self.answers += self.begun
        return self.begun and _KIND in ("wrong", "error") and self.answers % int(_NUMBERS[0]) == 0

    def begin(self) -> None:
        if _KIND == "stall":
            self.stall(*map(float, _NUMBERS))
        while _KIND == "hoard":
            self.hoard.append(b"x" * (1 << 24))

    def stall(self, lasts_s: float, every_s: float) -> None:
        asyncio.get_running_loop().call_later(every_s, self.stall, lasts_s, every_s)
        time.sleep(lasts_s)


def _tampered(send: Any, planter: _Planter) -> Any:
    """What sends an answer, which may be changed."""

    def tamper(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if status == 200 and planter.touches():
            status, body = (
                (500, b"{}")
                if _KIND == "error"
                else (200, json.dumps(json.loads(body) | {"prediction": "planted"}).encode())
            )
            headers = [
                (name, str(len(body)) if name == "content-length" else value)
                for name, value in headers
            ]
        send(status, headers, body)

    return tamper


def _plant() -> None:
    from halfcore.predict.prediction import Prediction

    begin, planter = Prediction.__init__, _Planter()

    def faulty(
        self: Prediction, body: bytes, request_id: str | None, send: Any, *others: Any
    ) -> None:
        begin(self, body, request_id, _tampered(send, planter), *others)

    Prediction.__init__ = faulty  # type: ignore[method-assign]


_plant()
