"""Many users who think: each connection has a timetable, and keeps it whatever the server does."""

import heapq
import random
import select
import socket
import time
from collections import deque

from loadlab.generator.epoll.answer import Judge, Wrong
from loadlab.generator.epoll.plan import Outcome, Plan
from loadlab.generator.epoll.tally import Tally
from loadlab.generator.epoll.wire import RECEIVE_BYTES, connect, sharpen_timers

_EVENTS = 4096
_DRAIN_S = 5.0
"""How long answers are awaited after the window; what is missing then is a timeout."""
_RETRY_S = 0.02
"""A connection that is not established yet is tried again after this; its request's intended start
stays."""


def run(plan: Plan) -> Outcome:
    """Carry out a sparse plan; takes connections / rate + warm-up + window, and at most 5 s for the
    last answers."""
    sharpen_timers()
    crowd = _Crowd(plan)
    try:
        crowd.loop(plan.connections / plan.rate + plan.warmup_s)
        crowd.tally.begin()
        crowd.loop(plan.seconds)
        crowd.tally.end()
        crowd.drain()
    finally:
        crowd.close()
    return crowd.tally.outcome()


class _User:
    """One connection. Times are of the monotonic clock, seconds."""

    __slots__ = ("answered", "data", "due", "gone", "sent", "socket")

    def __init__(self, due: float) -> None:
        self.socket: socket.socket | None = None
        self.due = due
        """When the current request is or was meant to go."""
        self.sent = 0.0
        """When it went; 0: the user thinks."""
        self.answered = 0.0
        """When the last answer was complete."""
        self.data = b""
        self.gone = False
        """A failure ended this connection; an entry of it may be left in the timetable."""


class _Crowd:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._request = plan.request()
        self._judge = Judge(plan.prefix.encode())
        self._random = random.Random(plan.seed)  # noqa: S311  think times, reproducible
        self._epoll = select.epoll()
        self._users: dict[int, _User] = {}
        self._timetable: list[tuple[float, int, _User]] = []
        self._entries = 0
        self._waiting: deque[tuple[float, _User]] = deque()
        self.tally = Tally(plan.group, plan.helper_group)
        self._plan_arrivals(time.monotonic())

    def loop(self, seconds: float) -> None:
        """Keep the timetable and take answers for so long."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._send_due(now)
            self._drop_late(now)
            next_due = self._timetable[0][0] if self._timetable else end
            self._receive(min(next_due, end) - time.monotonic())

    def drain(self) -> None:
        """Send no more, and wait for the answers that are due."""
        end = time.monotonic() + min(_DRAIN_S, self._plan.timeout_s)
        while self._count_waiting() and time.monotonic() < end:
            self._receive(0.02)
        if unanswered := self._count_waiting():
            self.tally.failures["timeout"] += unanswered

    def close(self) -> None:
        for user in self._users.values():
            if user.socket:
                user.socket.close()
        self._epoll.close()

    def _plan_arrivals(self, now: float) -> None:
        for number in range(self._plan.connections):
            self._schedule(_User(0.0), now + number / self._plan.rate)

    def _schedule(self, user: _User, due: float) -> None:
        user.due = due
        self._wake(user, due)

    def _wake(self, user: _User, at: float) -> None:
        self._entries += 1  # ties in time are broken by order, for users have none
        heapq.heappush(self._timetable, (at, self._entries, user))

    def _send_due(self, now: float) -> None:
        timetable = self._timetable
        while timetable and timetable[0][0] <= now:
            user = heapq.heappop(timetable)[2]
            if user.gone:
                continue
            if user.socket is None:
                self._arrive(user)
            else:
                self._send(user, user.socket)

    def _arrive(self, user: _User) -> None:
        """Connect, and think before the first request: a part of a think time, as if the user had
        been there before."""
        try:
            user.socket = connect(self._plan.host, self._plan.port)
        except OSError:
            self._fail(user, "connect")
            return
        self._users[user.socket.fileno()] = user
        self._epoll.register(user.socket.fileno(), select.EPOLLIN)
        self._schedule(user, user.due + self._random.uniform(0, self._plan.think_s[1]))

    def _send(self, user: _User, connection: socket.socket) -> None:
        now = time.monotonic()
        try:
            whole = connection.send(self._request) == len(self._request)
        except BlockingIOError:  # still connecting
            self._wake(user, now + _RETRY_S)
            return
        except OSError:
            whole = False
        if not whole:
            self._fail(user, "reset")
            return
        user.sent = now
        self._waiting.append((now, user))
        self.tally.lag_us[int((now - max(user.due, user.answered)) * 1e6)] += 1

    def _receive(self, wait_s: float) -> None:
        if wait_s > 0:
            # `poll` waits in whole milliseconds, `select` on the poll's own file in microseconds.
            select.select([self._epoll.fileno()], [], [], wait_s)
        for fd, _ in self._epoll.poll(0, _EVENTS):
            user = self._users[fd]
            if user.socket is not None:  # always, for those in `_users`
                self._take(user, user.socket)

    def _take(self, user: _User, connection: socket.socket) -> None:
        try:
            data = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the server left, whether it owed an answer or not
            self._fail(user, "reset")
        elif not user.sent:
            self._fail(user, "wrong_body")
        elif not user.data and self._judge.is_usual(data):
            self._answered(user)
        else:
            self._parse(user, user.data + data)

    def _parse(self, user: _User, data: bytes) -> None:
        user.data = data
        try:
            if self._judge.is_complete(data):
                self._answered(user)
        except Wrong as wrong:
            self._fail(user, str(wrong))

    def _answered(self, user: _User) -> None:
        now = time.monotonic()
        self.tally.response_us[int((now - user.due) * 1e6)] += 1
        user.data, user.sent, user.answered = b"", 0.0, now
        self._schedule(user, user.due + self._think_s())

    def _drop_late(self, now: float) -> None:
        waiting, timeout_s = self._waiting, self._plan.timeout_s
        while waiting and waiting[0][0] < now - timeout_s:
            sent, user = waiting.popleft()
            if user.sent == sent:
                self._fail(user, "timeout")

    def _fail(self, user: _User, kind: str) -> None:
        """Count a failure; the user returns on a new connection after a think time."""
        self.tally.failures[kind] += 1
        if user.socket is not None:
            del self._users[user.socket.fileno()]
            user.socket.close()
        user.gone, user.sent = True, 0.0
        self._schedule(_User(0.0), time.monotonic() + self._think_s())

    def _count_waiting(self) -> int:
        return sum(1 for user in self._users.values() if user.sent)

    def _think_s(self) -> float:
        return self._random.uniform(*self._plan.think_s)
