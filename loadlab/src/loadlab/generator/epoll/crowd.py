"""The raw engine: many users who think, on one epoll loop, counted and steered as Locust's workers
are.

`python -m loadlab.generator.epoll.crowd LOAD TICKS STEER`. For rates that Locust cannot drive
on the cores that the server leaves. Every answer is compared whole.
"""

import gc
import heapq
import random
import select
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from loadlab.generator import plan, steer
from loadlab.generator.epoll.conversation import Conversation, Failed, Question
from loadlab.generator.epoll.wire import sharpen_timers
from loadlab.generator.ledger import Ledger
from loadlab.generator.plan import Load
from loadlab.generator.steer import Steer

_EVENTS = 4096
_RETRY_S = 0.02
"""A connection that is not established yet is tried again after this; its request's intended start
stays."""
_PROBE_S = 0.01
_STEER_S = 0.1
_LONGEST_WAIT_S = 0.05


_NONE = Question(b"", b"")


class _User:
    """One user. Times are of the monotonic clock, seconds."""

    __slots__ = ("address", "answered", "due", "entry", "place", "question", "sent", "talk")

    def __init__(self, address: tuple[str, int], place: int, due: float) -> None:
        self.address, self.place, self.due = address, place, due
        self.question = _NONE
        """That was asked last."""
        self.talk: Conversation | None = None
        self.sent = 0.0
        """When the current request went; 0: the user thinks."""
        self.answered = 0.0
        self.entry = 0
        """The only entry of the timetable that counts: a failure makes the others void."""


class Crowd:
    """All users of a load.

    Args:
        load: what to do.
        ledger: counts.
    """

    def __init__(self, load: Load, ledger: Ledger) -> None:
        self._load, self._ledger = load, ledger
        self._draw = random.Random(f"{load.seed}/raw")  # noqa: S311  think times, reproducible
        self._questions = [Conversation.prepare(each, load) for each in load.exchanges]
        self._fresh = 0
        self._epoll = select.epoll()
        self._users: dict[int, _User] = {}
        self._timetable: list[tuple[float, int, _User]] = []
        self._entries = 0
        self._waiting: deque[tuple[float, _User]] = deque()
        self.steer = Steer()
        self._plan_arrivals(load)

    def _plan_arrivals(self, load: Load) -> None:
        began = time.monotonic()
        for number in range(load.users):
            offset_s = number / load.rate if load.smooth else number // load.rate
            user = _User(
                load.addresses[number % len(load.addresses)],
                self._draw.randrange(len(self._questions)),
                began + offset_s,
            )
            self._wake(user, user.due)

    def turn(self, until: float) -> None:
        """Send what is due and read what has arrived, until then."""
        while (now := time.monotonic()) < until:
            self._send_due(now)
            self._drop_late(now)
            due = self._timetable[0][0] if self._timetable else until
            self._receive(min(due, until, now + _LONGEST_WAIT_S) - time.monotonic())

    def _wake(self, user: _User, at: float) -> None:
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
            elif user.talk is None:
                self._arrive(user, now)
            else:
                self._send(user, user.talk)

    def _arrive(self, user: _User, now: float) -> None:
        """Connect; the first request, like one after a failure, is due now."""
        if not user.answered:
            self._ledger.arrive()
            user.answered = now
        try:
            user.talk = Conversation(user.address)
        except OSError:
            self._ledger.begun(user.due)
            self._ledger.failed("connect", user.due, time.monotonic())
            self._think(user, now)
            return
        self._users[user.talk.fileno] = user
        self._epoll.register(user.talk.fileno, select.EPOLLIN)
        self._send(user, user.talk)

    def _send(self, user: _User, talk: Conversation) -> None:
        now = time.monotonic()
        if not user.sent:
            self._ledger.begun(user.due)
            user.question = self._question(user)
            user.sent = now
            self._waiting.append((now, user))
        try:
            established_s = talk.ask(user.question)
        except BlockingIOError:  # still connecting
            self._wake(user, now + _RETRY_S)
        except Failed as failed:
            self._fail(user, str(failed))
        else:
            if established_s is not None:
                self._ledger.connect_us[int(established_s * 1e6)] += 1

    def _question(self, user: _User) -> Question:
        """What the user shall ask now."""
        if self.steer.bodies == "fresh" and self._load.fresh:
            self._fresh += 1
            return Conversation.prepare(self._load.fresh.exchange(self._fresh - 1), self._load)
        user.place = (user.place + 1) % len(self._questions)
        return self._questions[user.place]

    def _receive(self, wait_s: float) -> None:
        if wait_s > 0:
            # `poll` waits in whole milliseconds, `select` on the poll's own file in microseconds.
            select.select([self._epoll.fileno()], [], [], wait_s)
        for fd, _ in self._epoll.poll(0, _EVENTS):
            user = self._users.get(fd)
            if user is not None and user.talk is not None:
                self._take(user, user.talk)

    def _take(self, user: _User, talk: Conversation) -> None:
        try:
            whole = talk.take(user.question if user.sent else None)
        except Failed as failed:
            if user.sent:
                self._ledger.checked += str(failed) == "wrong_prediction"
                self._fail(user, str(failed))
            else:  # the server closed an idle connection: the next request opens another
                self._drop(user)
            return
        if whole:
            now = time.monotonic()
            self._ledger.checked += bool(user.question.right)
            self._ledger.answered(user.due, user.sent, now)
            user.sent = 0.0
            self._think(user, now)

    def _think(self, user: _User, now: float) -> None:
        """The next request is due a think time after this answer, or in the open model after this
        request was due."""
        if self.steer.pace <= 0:
            self._wake(user, now + 1.0)
            return
        think_s = self._load.scenario.think_s(self._draw) / self.steer.pace
        if self._load.scenario.open:
            user.due += think_s
            self._ledger.dropped += user.due < now
        else:
            user.due = now + think_s
        self._wake(user, user.due)

    def _drop_late(self, now: float) -> None:
        waiting, oldest = self._waiting, now - self._load.timeout_s
        while waiting and waiting[0][0] < oldest:
            sent, user = waiting.popleft()
            if user.sent == sent:
                self._fail(user, "timeout")

    def _fail(self, user: _User, kind: str) -> None:
        now = time.monotonic()
        self._ledger.failed(kind, user.due, now)
        user.sent = 0.0
        self._drop(user)
        self._think(user, now)

    def _drop(self, user: _User) -> None:
        if user.talk is not None:
            del self._users[user.talk.fileno]
            user.talk.close()
            user.talk = None


def main() -> None:
    """Carry out a load until ended; a tick a second goes to the file."""
    load, ticks, wishes = plan.read(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
    sharpen_timers()
    ledger = Ledger("raw", load.start.here())
    crowd = Crowd(load, ledger)
    gc.collect()
    gc.disable()  # a collection over 10,000 users would show as latency of the server
    with ticks.open("ab", buffering=0) as file:
        while True:
            _second(crowd, ledger, wishes)
            file.write(msgspec.json.encode(ledger.tick()) + b"\n")


def _second(crowd: Crowd, ledger: Ledger, wishes: Path) -> None:
    """One second of load, in turns of 10 ms that are also the loop's probe."""
    end = time.monotonic() + ledger.seconds_left()
    looked = 0.0
    while (now := time.monotonic()) < end:
        if now - looked >= _STEER_S and wishes.exists():
            crowd.steer, looked = msgspec.json.decode(wishes.read_bytes(), type=Steer), now
        until = min(now + _PROBE_S, end)
        crowd.turn(until)
        ledger.loop_us[max(int((time.monotonic() - until) * 1e6), 0)] += 1


if __name__ == "__main__":
    steer.die_with_asked_parent()
    main()
