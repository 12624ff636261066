"""Locust's FastHttpUser under the lab's behaviour, with its keep-alive mended."""

import socket
from typing import Any

from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser as LocustFastHttpUser

from loadlab.generator.exchange import is_right
from loadlab.generator.locust_users.behaviour import ClientUser, Failed, Session

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def mend_keep_alive() -> None:
    """Let geventhttpclient keep connections whose file number is 1,024 or more.

    Before each request it looks with `select.select` whether the idle connection was closed. For
    such a file number that raises `ValueError`, which it takes for a closed connection: with more
    than about 1,000 users every request then opens a new one (geventhttpclient 2.3.9 to 2.6.1 at
    least).
    """
    # There is no public way to replace it.
    ConnectionPool._is_socket_alive = _is_alive  # type: ignore[method-assign, assignment]  # noqa: SLF001


def count_connections() -> None:
    """Count the connections that geventhttpclient opens."""
    create = ConnectionPool._create_socket  # noqa: SLF001

    def counted(pool: ConnectionPool) -> Any:
        Session.ledger.connect_us[0] += 1
        return create(pool)

    ConnectionPool._create_socket = counted  # type: ignore[method-assign, assignment]  # noqa: SLF001


def _is_alive(_pool: ConnectionPool, connection: Any) -> bool:
    """An idle connection that has something to read was closed, or has an answer without a
    request."""
    if connection is None or connection.fileno() < 0:
        return False
    plain = getattr(connection, "_sock", None)
    if plain is None:  # TLS: the request will find out
        return True
    try:
        plain.recv(1, _PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class FastHttpUser(ClientUser, LocustFastHttpUser):
    """geventhttpclient through Locust's session, with its events and statistics."""

    network_timeout = 10.0
    connection_timeout = 10.0

    def exchange(self, prepared: bytes, right: bytes) -> None:
        """Ask through Locust's client; compares every answer whole."""
        headers = {"content-type": "application/json"}
        with self.client.post(
            Session.load.path,
            data=prepared,  # type: ignore[arg-type]  # typed for texts; bytes are sent as they are
            headers=headers,
            name="predict",
            catch_response=True,
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                raise Failed(f"status_{answer.status_code}" if answer.status_code else "reset")
            if right:
                Session.ledger.checked += 1
                if not is_right(answer.content or b"", right):
                    answer.failure("wrong prediction")
                    raise Failed("wrong_prediction")
