"""Servers that tests of several folders share; each is started by the first test that asks for it."""

from collections.abc import Iterator

import pytest

from support.postgres import Postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for the session; ask for `postgres` instead, which leaves it running."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """The session's PostgreSQL, running before the test and, whatever the test did to it, after."""
    postgres_server.start()
    yield postgres_server
    postgres_server.start()
