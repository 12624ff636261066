"""A migrated database for the prediction log, and a client that numbers its requests."""

import asyncio
import json
import socket
import threading
from types import TracebackType
from typing import Any, Self

from halfcore.postgres.database import Database
from halfcore.postgres.migrate import migrate, read
from support.postgres import Postgres
from support.serving import Server, receive, request

BODY = b'{"features":[1,2,3,4.5]}'


def migrated(postgres: Postgres, name: str | None = None) -> str:
    """A database with all tables; its name."""
    name = name or postgres.create_database()

    async def run() -> None:
        database = Database(postgres.dsn(name))
        await migrate(database, read(), say=lambda _: None)
        await database.close()

    asyncio.run(run())
    return name


def rows(
    postgres: Postgres, name: str, columns: str = "*", order: str = "writer, row_number"
) -> list[dict[str, Any]]:
    """The log's rows."""
    found = postgres.sql(
        f"SELECT row_to_json(r) FROM (SELECT {columns} FROM halfcore.prediction_log ORDER BY "  # noqa: S608
        f"{order}) r",
        name,
    )
    return [json.loads(row[0]) for row in found]


class Client(threading.Thread):
    """Sends prediction after prediction on one connection, each with an id of its own, until the
    block ends.

    Attributes:
        answered: ids of the requests that were answered with 200, in order.
        failed: first lines of all other answers.
    """

    def __init__(self, server: Server, prefix: str = "client", path: str = "/predict") -> None:
        super().__init__()
        self.answered: list[str] = []
        self.failed: list[bytes] = []
        self._server, self._prefix, self._path = server, prefix, path
        self._ending = threading.Event()

    def run(self) -> None:
        """Send until told to stop."""
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=60) as connection:
            while not self._ending.wait(0.002):
                name = f"{self._prefix}-{len(self.answered)}"
                connection.sendall(request(self._path, BODY, headers={"x-request-id": name}))
                answer = receive(connection)
                if b" 200 " in answer[:20]:
                    self.answered.append(name)
                else:
                    self.failed.append(answer.partition(b"\r\n")[0])
                    break

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self.join()
