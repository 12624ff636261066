"""Servers that tests of several folders share; each is started by the first test that asks for it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from halfcore.database import Database
from halfcore.migrate import migrate, read
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer, mlflow_server, s3_endpoint
from support.postgres import Postgres

settings.register_profile("same", derandomize=True)
settings.load_profile("same")  # every run tries the same examples: a red test is red again

_TOGETHER = {"loadlab": "lab", "follow": "mlflow", "registry": "mlflow", "watch": "mlflow"}
"""Folder → group of tests that one process runs: there may be one load run at a time, and MLflow's servers take long to start."""


def pytest_configure(config: pytest.Config) -> None:
    """The mark that says which documented commands a test executes: see tests/support/walks."""
    config.addinivalue_line("markers", "walks(commands): documented commands that the test executes")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook, and would come first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file's tests, and those that share something expensive, in one process when `just test` runs them in several.

    A file may name its group itself.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        folder = Path(item.path).parent.name
        item.add_marker(pytest.mark.xdist_group(_TOGETHER.get(folder, str(item.path))))


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


@pytest.fixture(scope="session")
def guarded_tracking(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[MlflowServer]:
    """An MLflow server on PostgreSQL with artifacts in S3, which asks for a password and knows two hosts: itself, and `mlflow:5000`."""
    folder = tmp_path_factory.mktemp("guarded")
    postgres_server.start()
    store = postgres_server.dsn(postgres_server.create_database()).replace("postgresql:", "postgresql+psycopg2:")
    hosts = "127.0.0.1:*,mlflow:5000"
    with (
        s3_endpoint(folder) as environment,
        mlflow_server(folder, "--allowed-hosts", hosts, store=store, artifacts="s3://artifacts", auth=True, **environment) as server,
    ):
        yield server
