"""Users for Locust: think, ask, check, and count from when they meant to ask. This package imports
gevent and is for Locust's processes only: the lab itself never imports it.

`RawHttpUser` (the default) costs a tenth of the others; `FastHttpUser` and `StockHttpUser` are
Locust's own clients under the same behaviour.
"""

import random
import socket
import time
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event
from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser as LocustFastHttpUser
from locust import HttpUser, User, task

from loadlab.generator.http import (
    RECEIVE_BYTES,
    Failed,
    Question,
    authority,
    connect,
    is_right,
    meaning,
)
from loadlab.generator.ledger import Ledger
from loadlab.generator.plan import Load, Pool, Steer

_IDLE_S = 5.0
"""How often a user checks for orders in the drain phase, when no requests are sent."""
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class Session:
    """What all users of a process share; filled before the first user starts."""

    load: Load
    kind: "type[ThinkingUser]"
    ledger: Ledger
    pool: Pool
    steer = Steer()
    draw: random.Random
    bodies: dict[str, bytes]
    """The first answer that failed in each way, for Locust's page."""
    number = 0
    """Users started so far."""
    next_start = 0.0
    ready = Event()
    """Set once all of the above is set: Locust may order a worker to start users before its load
    has arrived."""

    @classmethod
    def open(
        cls, load: Load, kind: "type[ThinkingUser]", worker: str, place: int, epoch: float
    ) -> None:
        """Prepare everything that users would otherwise do once each; place: of the worker among
        the workers, from 0; epoch: when the run began, on this machine's monotonic clock."""
        cls.kind = kind
        cls.ledger = Ledger(worker, epoch)
        cls.draw = random.Random(f"{load.seed}/{worker}")  # noqa: S311  think times, reproducible
        cls.change(load, place)
        cls.ready.set()

    @classmethod
    def change(cls, load: Load, place: int) -> None:
        """Replace the load between two tests: a field of Locust's page was changed."""
        cls.load, cls.pool = load, Pool(load, place, heads=cls.kind is RawHttpUser)
        cls.bodies = {}


class ThinkingUser(User):
    """Draws think times from the scenario and asks one prepared question after another."""

    abstract = True

    def __init__(self, environment: Any) -> None:
        Session.ready.wait()
        Session.number += 1
        addresses = Session.load.addresses
        self.address = addresses[Session.number % len(addresses)]
        self.host = f"http://{authority(*self.address)}"
        super().__init__(environment)
        self._next = Session.draw.randrange(len(Session.pool))
        self._due = time.monotonic()

    def exchange(self, question: Question) -> None:
        """Ask, and compare the whole answer; raises `Failed`, `TimeoutError` or `OSError`."""
        raise NotImplementedError

    def start(self, group: Any) -> Any:
        """Smooth ramp: Locust starts a second's users at once; here each waits for its turn within
        that second."""
        if Session.load.smooth:
            now, interval_s = time.monotonic(), 0.8 * Session.load.workers / Session.load.rate
            # At most a second from now: the rate may have been raised on Locust's page
            Session.next_start = min(max(Session.next_start + interval_s, now), now + 1)
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
        now, pace = time.monotonic(), Session.steer.pace
        if pace <= 0:
            return _IDLE_S
        self._due = Session.load.scenario.next_due(self._due, now, pace, Session.draw)
        return max(self._due - now, 0.0)

    @task
    def predict(self) -> None:
        """One exchange, counted."""
        if Session.steer.pace <= 0:
            return
        ledger, due = Session.ledger, self._due
        self._next += 1
        question = Session.pool.question(self._next, Session.steer.bodies)
        ledger.begun(due)
        sent = time.monotonic()
        try:
            if Session.load.problem:
                raise Failed(Session.load.problem)
            self.exchange(question)
        except Failed as failed:
            ledger.failed(str(failed), due, time.monotonic())
            Session.bodies.setdefault(str(failed), failed.body)
        except OSError as error:
            kind = "timeout" if isinstance(error, TimeoutError) else "reset"
            ledger.failed(kind, due, time.monotonic())
        except gevent.GreenletExit:  # killed at the end of the drain: it was never answered
            ledger.failed("unanswered", due, time.monotonic())
            raise
        else:
            ledger.answered(due, sent, time.monotonic(), checked=bool(question.right))


class RawHttpUser(ThinkingUser):
    """The default user: HTTP over its own socket, one keep-alive connection, requests prepared as
    bytes. Comparing an answer's bytes costs less than parsing it, so all are compared, and parsed
    only where they differ."""

    _socket: Any = None

    def exchange(self, question: Question) -> None:
        """Connect if there is no connection, send, receive, compare; a connection that failed is
        closed."""
        try:
            # A server closes a connection that is idle for long; clients open another.
            if self._socket is not None and _to_read(self._socket._sock) == b"":  # noqa: SLF001
                self._close()
            if self._socket is None:
                self._connect()
            self._socket.sendall(question.request)
            data = b""
            while not data or not question.is_right(data):
                if not (more := self._socket.recv(RECEIVE_BYTES)):
                    raise Failed("reset")
                data += more
        except BaseException:
            self._close()
            raise

    def on_stop(self) -> None:
        """Leave, and close the connection."""
        super().on_stop()
        self._close()

    def _connect(self) -> None:
        began, wait_s = time.monotonic(), Session.load.timeout_s
        try:
            self._socket = connect(self.address, wait_s=wait_s, make=gevent_socket.socket)
        except OSError:
            raise Failed("connect") from None
        Session.ledger.connect_us[int((time.monotonic() - began) * 1e6)] += 1

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class ClientUser(ThinkingUser):
    """Asks through one of Locust's own clients, with its events and statistics."""

    abstract = True
    client: Any
    more: dict[str, Any] = {}  # noqa: RUF012  of the arguments of the client's `post`

    def exchange(self, question: Question) -> None:
        """Ask through the client; compares every answer whole."""
        with self.client.post(
            Session.load.path,
            data=question.request,
            headers={"content-type": "application/json"},
            name="predict",
            catch_response=True,
            **self.more,
        ) as answer:
            kind = ""
            if answer.status_code != 200:
                kind = f"status_{answer.status_code}" if answer.status_code else "reset"
            elif question.right and not is_right(answer.content or b"", question.right):
                kind = "wrong_prediction"
            if kind:
                body = answer.content or b""
                answer.failure(meaning(kind, Session.bodies.get(kind, body)))
                raise Failed(kind, body)


class FastHttpUser(ClientUser, LocustFastHttpUser):
    """geventhttpclient through Locust's session."""

    network_timeout = 10.0
    connection_timeout = 10.0


class StockHttpUser(ClientUser, HttpUser):
    """requests through Locust's session: what most locustfiles use. Expensive: some 4,000 requests
    a second and core at best."""

    def on_start(self) -> None:
        """Arrive."""
        self.more = {"timeout": Session.load.timeout_s}
        super().on_start()


def mend_keep_alive() -> None:
    """Let geventhttpclient keep connections whose file number is 1,024 or more.

    Before each request it looks with `select.select` whether the idle connection was closed. For
    such a file number that raises `ValueError`, which it takes for a closed connection: with more
    than about 1,000 users every request then opens a new one (geventhttpclient 2.3.9 to 2.6.1 at
    least).
    """
    # There is no public way to replace it.
    ConnectionPool._is_socket_alive = _is_alive  # type: ignore[method-assign, assignment]  # noqa: SLF001


def _is_alive(_pool: ConnectionPool, connection: Any) -> bool:
    """An idle connection that has something to read was closed, or has an answer without a
    request."""
    if connection is None or connection.fileno() < 0:
        return False
    plain = getattr(connection, "_sock", None)
    return plain is None or _to_read(plain) is None  # None is TLS: the request will find out


def _to_read(plain: socket.socket) -> bytes | None:
    """The first byte that an idle connection has to read, without gevent's waiting; empty: it was
    closed; None: it has none."""
    try:
        return plain.recv(1, _LOOK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def count_connections() -> None:
    """Count the connections that geventhttpclient opens."""
    create = ConnectionPool._create_socket  # noqa: SLF001

    def counted(pool: ConnectionPool) -> Any:
        Session.ledger.connect_us[0] += 1
        return create(pool)

    ConnectionPool._create_socket = counted  # type: ignore[method-assign, assignment]  # noqa: SLF001
