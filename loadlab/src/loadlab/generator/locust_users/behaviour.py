"""What every user does, whatever it speaks HTTP with: think, ask, check, and count from when it
meant to ask."""

import random
import time
from typing import Any

import gevent
from gevent.event import Event
from locust import User, task

from loadlab.generator.exchange import Exchange
from loadlab.generator.ledger import Ledger
from loadlab.generator.plan import Load
from loadlab.generator.steer import Bodies

_IDLE_S = 5.0
"""How often a user checks for orders in the drain phase, when no requests are sent."""


class Session:
    """What all users of a process share; filled before the first user starts."""

    load: Load
    kind: "type[ThinkingUser]"
    ledger: Ledger
    prepared: list[tuple[Any, bytes]]
    """What the user class made of each exchange once (bytes to send, say), and the body of its
    right answer; empty: any will do."""
    pace = 1.0
    """Think times are divided by it; 0: no more requests (drain)."""
    bodies: Bodies = "pool"
    """What is sent."""
    fresh = 0
    """The number of the next body that nobody has sent before: workers take them in turn."""
    draw: random.Random
    number = 0
    """Users started so far."""
    next_start = 0.0
    ready = Event()
    """Set once all of the above is set: Locust may order a worker to start users before its load
    has arrived."""

    @classmethod
    def open(cls, load: Load, kind: "type[ThinkingUser]", worker: str, place: int) -> None:
        """Prepare everything that users would otherwise do once each; place: of the worker among
        the workers, from 0."""
        cls.load, cls.kind, cls.pace, cls.bodies, cls.number = load, kind, 1.0, "pool", 0
        cls.ledger = Ledger(worker, load.start.here())
        cls.draw = random.Random(f"{load.seed}/{worker}")  # noqa: S311  think times, reproducible
        cls.fresh = place
        cls.prepared = [(kind.prepare(each, load), each.answer.encode()) for each in load.exchanges]
        cls.ready.set()

    @classmethod
    def question(cls, place: int) -> tuple[Any, bytes]:
        """What to ask now, as in `prepared`, by a user whose turn it would be to ask the exchange
        at `place`."""
        if cls.bodies == "pool" or cls.load.fresh is None:
            return cls.prepared[place]
        exchange = cls.load.fresh.exchange(cls.fresh)
        cls.fresh += cls.load.workers
        return cls.kind.prepare(exchange, cls.load), exchange.answer.encode()


class Failed(Exception):
    """An exchange failed; the message is the kind."""


class ThinkingUser(User):
    """Draws think times from the scenario and asks one prepared question after another."""

    abstract = True

    def __init__(self, environment: Any) -> None:
        Session.ready.wait()
        super().__init__(environment)
        Session.number += 1
        self.address = Session.load.addresses[Session.number % len(Session.load.addresses)]
        self._next = Session.draw.randrange(len(Session.prepared))
        self._due = time.monotonic()

    @classmethod
    def prepare(cls, exchange: Exchange, load: Load) -> Any:
        """What `exchange` shall be as this class sends it; called once per exchange."""
        raise NotImplementedError

    def connect(self) -> None:
        """Open the connection, if this class does so itself; raises `Failed` or `OSError`."""

    def exchange(self, prepared: Any, right: bytes) -> None:
        """Ask, and check the answer; raises `Failed`, `TimeoutError` or `OSError`."""
        raise NotImplementedError

    def start(self, group: Any) -> Any:
        """Smooth ramp: Locust starts a second's users at once; here each waits for its turn within
        that second."""
        if Session.load.smooth:
            now, interval_s = time.monotonic(), 0.8 * Session.load.workers / Session.load.rate
            Session.next_start = max(Session.next_start + interval_s, now)
            gevent.sleep(Session.next_start - now)
        return super().start(group)

    def on_start(self) -> None:
        """Arrive: the first request is due now."""
        Session.ledger.arrive()
        self._due = time.monotonic()

    def on_stop(self) -> None:
        """Leave."""
        Session.ledger.users -= 1

    def wait_time(self) -> float:
        """Seconds until the next request is due, counted from the last answer, or in the open model
        from when the last one was due."""
        now = time.monotonic()
        if Session.pace <= 0:
            return _IDLE_S
        think_s = Session.load.scenario.think_s(Session.draw) / Session.pace
        if Session.load.scenario.open:
            self._due += think_s
            Session.ledger.dropped += self._due < now
        else:
            self._due = now + think_s
        return max(self._due - now, 0.0)

    @task
    def predict(self) -> None:
        """One exchange, counted."""
        if Session.pace <= 0:
            return
        ledger, due = Session.ledger, self._due
        self._next = (self._next + 1) % len(Session.prepared)
        prepared, right = Session.question(self._next)
        ledger.begun(due)
        sent = time.monotonic()
        try:
            self.connect()
            self.exchange(prepared, right)
        except Failed as failed:
            ledger.failed(str(failed), due, time.monotonic())
        except TimeoutError:
            ledger.failed("timeout", due, time.monotonic())
        except OSError:
            ledger.failed("reset", due, time.monotonic())
        except (
            gevent.GreenletExit
        ):  # killed at the end of the drain: the request was never answered
            ledger.failed("unanswered", due, time.monotonic())
            raise
        else:
            ledger.answered(due, sent, time.monotonic())


class ClientUser(ThinkingUser):
    """Asks through one of Locust's own clients, which are made for one host."""

    abstract = True

    def __init__(self, environment: Any) -> None:
        Session.ready.wait()
        self.host = "http://{}:{}".format(
            *Session.load.addresses[(Session.number + 1) % len(Session.load.addresses)]
        )
        super().__init__(environment)

    @classmethod
    def prepare(cls, exchange: Exchange, _load: Load) -> bytes:
        """The body."""
        return exchange.body.encode()
