"""The generator of our own: all users of a load on one epoll loop, in one process; closed model,
open model, or no think time at all.

`python -m loadlab.generator.engine LOAD TICKS STEER` carries out a load run, counted and steered as
Locust's workers are, for rates that Locust cannot drive on the cores that the server leaves; the
bench's client (`epoll`) shares a machine with what it measures. Latency counts from when a request
should have been sent: a late answer hides nothing (no coordinated omission).
"""

import ctypes
import errno
import gc
import heapq
import random
import select
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadlab.generator import plan
from loadlab.generator.http import RECEIVE_BYTES, Failed, Question, connect
from loadlab.generator.ledger import Ledger
from loadlab.generator.plan import Load, Pool, Steer

_EVENTS = 4096
_RETRY_S = 0.02
"""A connection that is not established yet is tried again after this; its request's intended start
stays."""
_PROBE_S = 0.01
_STEER_S = 0.1
_LONGEST_WAIT_S = 0.05
_LOOKS = 40
"""How often in one timeout users are searched for one whose answer is late."""
_PR_SET_TIMERSLACK = 29
_NOTHING = Question(b"", b"")


@dataclass(slots=True, eq=False)
class User:
    """One user and the user's connection. Times are of the monotonic clock, seconds."""

    address: tuple[str, int]
    place: int
    """Of the next question, if all are asked in turn."""
    due: float
    question: Question = _NOTHING
    """That was asked last."""
    socket: Any = None
    data: bytes = b""
    """Of an answer that is not whole yet."""
    opened: float = 0.0
    """When the connection was begun; 0: it is established."""
    sent: float = 0.0
    """When the current request went; 0: the user thinks."""
    free: float = 0.0
    """Since when the user has no request on the way; 0: the user has not arrived."""
    entry: int = 0
    """The only entry of the timetable that counts: a failure makes the others void."""


class Engine:
    """All users of a load.

    Args:
        load: what to do; a think time of 0: a request goes as soon as the last answer is there.
        ledger: counts.
        bench: of answers only the beginnings are known, users pause before their first request, and
            a connection that ends while its user thinks is a failure.
    """

    def __init__(self, load: Load, ledger: Ledger, *, bench: bool = False) -> None:
        self._load, self._ledger, self._bench = load, ledger, bench
        self._draw = random.Random(f"{load.seed}/raw")  # noqa: S311  think times, reproducible
        self._pool = Pool(load, whole=not bench)
        self._saturated = not load.scenario.mean_think_s
        self._epoll = select.epoll()
        self._talking: dict[int, User] = {}
        """Users with a connection, by its file."""
        self._timetable: list[tuple[float, int, User]] = []
        self._entries, self._looked = 0, 0.0
        self.steer = Steer()
        began, count = time.monotonic(), len(self._pool)
        for number in range(load.users):
            due = began + (number / load.rate if load.smooth else number // load.rate)
            place = number % count if self._saturated else self._draw.randrange(count)
            self._wake(User(load.addresses[number % len(load.addresses)], place, due), due)

    def open(self) -> None:
        """Have all who are due connect and send, before time counts."""
        end = time.monotonic() + self._load.timeout_s
        while self._timetable and (now := time.monotonic()) < end:
            self._send_due(now)
            time.sleep(0.001)

    def turn(self, until: float) -> None:
        """Send what is due and read what has arrived, until then or until no user is left."""
        while (now := time.monotonic()) < until and (self._timetable or self._talking):
            self._send_due(now)
            self._drop_late(now)
            due = self._timetable[0][0] if self._timetable else until
            if self._saturated:
                self._exchange(min(until, due, now + self._load.timeout_s / _LOOKS))
            else:
                self._receive(min(until, due, now + _LONGEST_WAIT_S) - time.monotonic())

    def drain(self, most_s: float) -> None:
        """Send no more, and wait for the answers; those that are missing then are timeouts."""
        self.steer, end = Steer(pace=0), time.monotonic() + most_s
        while (left := sum(user.sent > 0 for user in self._talking.values())) and (
            now := time.monotonic()
        ) < end:
            self.turn(min(end, now + _RETRY_S))
        if left:
            self._ledger.failures["timeout"] += left

    def close(self) -> None:
        """Close all connections."""
        for user in list(self._talking.values()):
            self._drop(user)
        self._epoll.close()

    def _wake(self, user: User, at: float) -> None:
        self._entries += 1  # ties in time are broken by order, for users have none
        user.entry = self._entries
        heapq.heappush(self._timetable, (at, self._entries, user))

    def _send_due(self, now: float) -> None:
        timetable = self._timetable
        while timetable and timetable[0][0] <= now:
            _, entry, user = heapq.heappop(timetable)
            if entry != user.entry:
                continue
            if self.steer.pace <= 0 and not user.sent:
                self._think(user, now)
            elif user.socket is None:
                self._arrive(user, now)
            else:
                self._send(user)

    def _arrive(self, user: User, now: float) -> None:
        """Connect. The first request, like one after a failure, is due now; in the bench after a
        part of a think time, as if the user had been there before."""
        new = not user.free
        if new:
            self._ledger.arrive()
            user.free = now
        try:
            user.socket = connect(user.address)
        except OSError:
            self._ledger.begun(user.due)
            self._fail(user, "connect")
            return
        user.opened = now
        self._talking[user.socket.fileno()] = user
        self._epoll.register(user.socket.fileno(), select.EPOLLIN)
        if new and self._bench and not self._saturated:
            user.due += self._draw.uniform(0, self._load.scenario.think[-1])
            self._wake(user, user.due)
        else:
            self._send(user)

    def _send(self, user: User) -> None:
        now = time.monotonic()
        if not user.sent:
            self._ledger.begun(user.due)
            user.question = self._pool.question(user.place, self.steer.bodies)
            user.place, user.sent = user.place + 1, now
        try:
            sent = user.socket.send(user.question.request)
        except BlockingIOError:  # still connecting
            self._wake(user, now + _RETRY_S)
            return
        except OSError as error:
            refused = user.opened and error.errno != errno.EPIPE
            self._fail(user, "connect" if refused else "reset")
            return
        if sent != len(user.question.request) and not self._send_rest(user, sent):
            self._fail(user, "reset")
        elif user.opened:
            self._ledger.connect_us[int((time.monotonic() - user.opened) * 1e6)] += 1
            user.opened = 0.0

    def _send_rest(self, user: User, sent: int) -> bool:
        """What did not fit into the socket's buffer, of a large body; whether all of it went. All
        other users wait meanwhile."""
        try:
            user.socket.settimeout(self._load.timeout_s)
            user.socket.sendall(user.question.request[sent:])
            user.socket.settimeout(0.0)
        except OSError:
            return False
        return True

    def _exchange(self, until: float) -> None:
        """Without think time: answer, next request, answer, …"""
        # Everything that the loop touches is a local name: at 80,000 requests a second each look-up
        # counts.
        poll, clock, talking = self._epoll.poll, time.monotonic, self._talking
        timetable, pool = self._timetable, self._pool
        questions = [pool.question(place) for place in range(len(pool))]
        count = len(questions)
        response_us, lag_us = self._ledger.response_us, self._ledger.lag_us
        before = clock()
        while before < until and not (timetable and timetable[0][0] <= before):
            for fd, _ in poll(0.01, _EVENTS):
                user = talking[fd]
                connection = user.socket
                try:
                    data = connection.recv(RECEIVE_BYTES)
                    if (data != user.question.usual or user.data) and not self._right(user, data):
                        continue
                    user.question = question = questions[user.place % count]
                    user.place += 1
                    now = clock()
                    response_us[int((now - user.sent) * 1e6)] += 1
                    user.sent = now
                    sent = connection.send(question.request)
                    if sent != len(question.request) and not self._send_rest(user, sent):
                        self._fail(user, "reset")
                except BlockingIOError:
                    continue
                except OSError:
                    self._fail(user, "reset")
            now = clock()
            lag_us[int((now - before) * 1e6)] += 1
            before = now

    def _receive(self, wait_s: float) -> None:
        if wait_s > 0:
            # `poll` waits in whole milliseconds, `select` on the poll's own file in microseconds.
            select.select([self._epoll.fileno()], [], [], wait_s)
        for fd, _ in self._epoll.poll(0, _EVENTS):
            user = self._talking[fd]
            try:
                data = user.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not user.sent:
                self._unasked(user, data)
            elif self._right(user, data):
                self._answered(user)

    def _right(self, user: User, data: bytes) -> bool:
        """Whether an answer is whole and right now; a wrong one is counted."""
        if not data:
            self._fail(user, "connect" if user.opened else "reset")
            return False
        user.data += data
        try:
            if not user.question.is_right(user.data):
                return False
        except Failed as failed:
            self._fail(user, str(failed))
            return False
        user.data = b""
        return True

    def _unasked(self, user: User, data: bytes) -> None:
        """The server closed the connection of a user who thinks (the next request opens another),
        or sent what nobody had asked for."""
        if data or self._bench:
            kind = "wrong_body" if data else "connect" if user.opened else "reset"
            self._ledger.failures[kind] += 1
        self._drop(user)

    def _answered(self, user: User) -> None:
        now = time.monotonic()
        # In a load run it is part of the schedule's lag that the server was late (rule V4).
        could = max(user.due, user.free) if self._bench else user.due
        self._ledger.answered(
            user.due, user.sent, now, could=could, checked=bool(user.question.right)
        )
        user.sent, user.free = 0.0, now
        self._think(user, now)

    def _think(self, user: User, now: float) -> None:
        if self.steer.pace <= 0:
            self._wake(user, now + 1.0)
            return
        user.due = self._load.scenario.next_due(user.due, now, self.steer.pace, self._draw)
        self._wake(user, user.due)

    def _drop_late(self, now: float) -> None:
        timeout_s = self._load.timeout_s
        if now - self._looked < timeout_s / _LOOKS:
            return
        self._looked = now
        for user in [each for each in self._talking.values() if 0 < each.sent < now - timeout_s]:
            self._fail(user, "timeout")

    def _fail(self, user: User, kind: str) -> None:
        """Count a failure; the user returns on a new connection, but without think time not to a
        server that takes none: such a run ends."""
        now = time.monotonic()
        self._ledger.failed(kind, user.due, now)
        user.sent, user.free = 0.0, now
        self._drop(user)
        if not self._saturated:
            self._think(user, now)
        elif kind != "connect":
            user.due = now
            self._wake(user, now)

    def _drop(self, user: User) -> None:
        if user.socket is not None:
            del self._talking[user.socket.fileno()]
            user.socket.close()
            user.socket, user.data = None, b""


def sharpen() -> None:
    """Let this process sleep to the microsecond, where the kernel can (its default slack of 50 µs
    would show in every latency), and collect no garbage: a collection over 10,000 users would
    show as latency of the server."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.collect()
    gc.disable()


def main() -> None:
    """Carry out a load until ended; a tick a second goes to the file."""
    load, ticks, orders = plan.read(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    ledger = Ledger("raw", load.start)
    engine = Engine(load, ledger)
    sharpen()
    with ticks.open("ab", buffering=0) as file:
        while True:
            _second(engine, ledger, orders)
            file.write(msgspec.json.encode(ledger.tick()) + b"\n")


def _second(engine: Engine, ledger: Ledger, orders: Path) -> None:
    """One second of load, in turns of 10 ms that are also the loop's probe."""
    end, looked = time.monotonic() + ledger.seconds_left(), 0.0
    while (now := time.monotonic()) < end:
        if now - looked >= _STEER_S and orders.exists():
            engine.steer, looked = msgspec.json.decode(orders.read_bytes(), type=Steer), now
        until = min(now + _PROBE_S, end)
        engine.turn(until)
        ledger.loop_lag_us[max(int((time.monotonic() - until) * 1e6), 0)] += 1


if __name__ == "__main__":
    plan.die_with_asked_parent()
    main()
