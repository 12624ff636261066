"""No think time: each connection sends its next request as soon as the answer has arrived."""

import select
import socket
import time
from typing import NamedTuple

from loadlab.generator.epoll.answer import Judge, Wrong
from loadlab.generator.epoll.plan import Outcome, Plan
from loadlab.generator.epoll.tally import Tally
from loadlab.generator.epoll.wire import RECEIVE_BYTES, connect

_NS = 1_000_000_000
_LOOK_S = 0.25
"""How often connections without an answer are looked for."""


def run(plan: Plan) -> Outcome:
    """Carry out a saturated plan; takes warm-up + window, and the time to connect."""
    saturation = _Saturation(plan)
    try:
        saturation.open_all()
        saturation.loop(plan.warmup_s)
        saturation.tally.begin()
        saturation.loop(plan.seconds)
        saturation.tally.end()
    finally:
        saturation.close()
    return saturation.tally.outcome()


class _Question(NamedTuple):
    """A request, and what judges its answer."""

    request: bytes
    judge: Judge


class _Saturation:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        asked = ((plan.body, plan.prefix), *plan.others)
        self._questions = [
            _Question(plan.request(body), Judge(prefix.encode())) for body, prefix in asked
        ]
        self._asked: dict[int, int] = {}
        """Connection → its question."""
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent_ns: dict[int, int] = {}
        self._partial: dict[int, bytes] = {}
        self.tally = Tally(plan.group, plan.helper_group)

    def open_all(self) -> None:
        for _ in range(self._plan.connections):
            self._open()

    def loop(self, seconds: float) -> None:
        """The hot loop, in slices between which late answers are looked for."""
        end_ns = time.monotonic_ns() + round(seconds * _NS)
        while (now_ns := time.monotonic_ns()) < end_ns and self._sockets:
            self._turn_until(min(end_ns, now_ns + round(_LOOK_S * _NS)))
            self._drop_late()

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._epoll.close()

    def _turn_until(self, end_ns: int) -> None:
        # Everything that the loop touches is a local name: at 80,000 requests a second each look-up
        # counts.
        poll, clock, sockets, sent_ns, partial = (
            self._epoll.poll,
            time.monotonic_ns,
            self._sockets,
            self._sent_ns,
            self._partial,
        )
        asked, questions, response_us, lag_us = (
            self._asked,
            self._questions,
            self.tally.response_us,
            self.tally.lag_us,
        )
        last = len(questions) - 1
        room = 2 * self._plan.connections
        before_ns = clock()
        while before_ns < end_ns:
            ready = poll(0.01, room)
            for fd, _ in ready:
                connection = sockets[fd]
                try:
                    data = connection.recv(RECEIVE_BYTES)
                    place = asked[fd]
                    if (
                        not questions[place].judge.is_usual(data) or fd in partial
                    ) and not self._parse(fd, data):
                        continue
                    place = asked[fd] = place + 1 if place < last else 0
                    request = questions[place].request
                    now_ns = clock()
                    response_us[(now_ns - sent_ns[fd]) // 1000] += 1
                    sent_ns[fd] = now_ns
                    if connection.send(request) != len(request):
                        self._fail(fd, "reset")
                except BlockingIOError:
                    continue
                except OSError:
                    self._fail(fd, "reset")
            now_ns = clock()
            lag_us[(now_ns - before_ns) // 1000] += 1
            before_ns = now_ns

    def _parse(self, fd: int, data: bytes) -> bool:
        """Whether a complete and right answer has arrived; counts a wrong one."""
        if not data:
            self._fail(fd, "reset")
            return False
        data = self._partial.pop(fd, b"") + data
        try:
            if self._questions[self._asked[fd]].judge.is_complete(data):
                return True
        except Wrong as wrong:
            self._fail(fd, str(wrong))
            return False
        self._partial[fd] = data
        return False

    def _drop_late(self) -> None:
        oldest_ns = time.monotonic_ns() - round(self._plan.timeout_s * _NS)
        for fd in [fd for fd, sent_ns in self._sent_ns.items() if sent_ns < oldest_ns]:
            self._fail(fd, "timeout")

    def _fail(self, fd: int, kind: str) -> None:
        """Count a failure and replace the connection."""
        self.tally.failures[kind] += 1
        self._partial.pop(fd, None)
        del self._sent_ns[fd], self._asked[fd]
        self._sockets.pop(fd).close()
        self._open()

    def _open(self) -> None:
        """Open a connection and send its first request; one that cannot be opened is not tried
        again."""
        try:
            connection = connect(self._plan.host, self._plan.port, wait_s=self._plan.timeout_s)
            place = len(self._sockets) % len(
                self._questions
            )  # so that they do not all ask the same at once
            connection.send(self._questions[place].request)
        except OSError:
            self.tally.failures["connect"] += 1
            return
        fd = connection.fileno()
        self._sockets[fd], self._sent_ns[fd], self._asked[fd] = (
            connection,
            time.monotonic_ns(),
            place,
        )
        self._epoll.register(fd, select.EPOLLIN)
