"""Servers that tests of several folders share; each is started by the first test that asks for
it."""

import asyncio
import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from halfcore.postgres.database import Database
from halfcore.postgres.migrate import migrate, read
from loadlab.run import lock
from support.examples import examples
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer, mlflow_server, s3_endpoint
from support.postgres import Postgres

settings.register_profile("project", examples(100))
settings.load_profile("project")  # every `just test` tries the same ones: a red test is red again

_FIRST = ("lab", "mlflow")
"""The longest groups. What begins last must be short, or one process works alone in the end."""
_LOAD_RUNS = {"test_load.py", "test_generators.py"}
_MLFLOW = {"tracking", "registry", "guarded_tracking"}
"""Fixtures that start an MLflow server, which takes long: one process runs all tests that need
it."""
_SLOW_SERVERS_S = 600
"""Time limit of tests that wait for MLflow's servers or for a whole load run, on a machine as busy
as can be."""


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that tests start be interrupted, also where the tests run in the background.

    A shell has its background jobs ignore SIGINT, and whatever they start inherits that. The mark
    says which documented commands a test executes: see tests/support/walks.
    """
    config.addinivalue_line(
        "markers", "walks(commands): documented commands that the test executes"
    )
    # Load runs of tests are not refused for those of another process of tests.
    os.environ[lock.NAME] = f"tests-{os.getpid()}"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from what the collection imports: those objects stay, and it
    would go through all of them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook, and would come first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide the tests into groups, each for one process of `just test`; the longest come first.

    A group is a file, or all tests that share MLflow's servers, or the load runs: two of them at
    once would starve each other.
    """
    for item in items:
        group = _group(item)
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
        if group in _FIRST and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(_SLOW_SERVERS_S))
    items.sort(key=lambda item: _rank(_group(item)))  # stable: the rest stays in order


def _group(item: pytest.Item) -> str:
    if _MLFLOW & set(getattr(item, "fixturenames", ())):
        return "mlflow"
    if Path(item.path).name in _LOAD_RUNS:
        return "lab"
    return str(item.path)


def _rank(group: str) -> int:
    return _FIRST.index(group) if group in _FIRST else len(_FIRST)


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
    """An MLflow server on SQLite with artifacts on disk. Shared: tests take model names of their
    own, and leave it running."""
    with mlflow_server(tmp_path_factory.mktemp("tracking")) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tracking: MlflowServer) -> Registry:
    """Its registry."""
    return Registry(tracking.url)


@pytest.fixture(scope="session")
def guarded_tracking(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> Iterator[MlflowServer]:
    """An MLflow server on PostgreSQL with artifacts in S3, which asks for a password and knows two
    hosts: itself, and `mlflow:5000`."""
    folder = tmp_path_factory.mktemp("guarded")
    postgres_server.start()
    store = postgres_server.dsn(postgres_server.create_database()).replace(
        "postgresql:", "postgresql+psycopg2:"
    )
    hosts = "127.0.0.1:*,mlflow:5000"
    with (
        s3_endpoint(folder) as environment,
        mlflow_server(
            folder,
            "--allowed-hosts",
            hosts,
            store=store,
            artifacts="s3://artifacts",
            auth=True,
            **environment,
        ) as server,
    ):
        yield server
