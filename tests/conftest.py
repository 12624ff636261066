"""Servers that tests of several folders share; each is started by the first test that asks for it."""

import asyncio
from collections.abc import Iterator

import pytest

from halfcore.database import Database
from halfcore.migrate import migrate, read
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer, mlflow_server
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


@pytest.fixture(scope="session")
def schema(postgres_server: Postgres) -> str:
    """A database with the server's schema, to be copied."""
    name = postgres_server.create_database()

    async def run() -> None:
        database = Database(postgres_server.dsn(name))
        await migrate(database, read(), say=str)
        await database.close()

    asyncio.run(run())
    return name


@pytest.fixture
def database(postgres: Postgres, schema: str) -> str:
    """The name of a new database with the server's schema."""
    return postgres.create_database(template=schema)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server on SQLite with artifacts on disk. Shared: tests take model names of their own, and leave it running."""
    with mlflow_server(tmp_path_factory.mktemp("tracking")) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tracking: MlflowServer) -> Registry:
    """Its registry."""
    return Registry(tracking.url)
