"""A real PgBouncer in front of the tests' PostgreSQL; Debian's package is called `pgbouncer`."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.postgres import PASSWORD, USER, Postgres
from support.serving import free_port

MISSING = "PgBouncer is not installed (apt-get install pgbouncer)"


class PgBouncer:
    """A running pooler; `dsn` leads to PostgreSQL through it."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def dsn(self, database: str, parameters: str = "") -> str:
        """The URL of a database."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}{parameters}"

    def said(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")


def _configuration(
    port: int, postgres: Postgres, pool_mode: str, sessions: int, home: Path, prepared: str
) -> str:
    return f"""
[databases]
* = host=127.0.0.1 port={postgres.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {home}/users.txt
pool_mode = {pool_mode}
default_pool_size = {sessions}
server_round_robin = 1
logfile = {home}/log
pidfile =
{prepared}
"""


@contextmanager
def pgbouncer(
    postgres: Postgres, *, pool_mode: str = "transaction", sessions: int = 2
) -> Iterator[PgBouncer]:
    """Run PgBouncer until the block ends; the test is skipped where it is not installed.

    Args:
        postgres: what it stands in front of.
        pool_mode: PgBouncer's: `session` or `transaction`.
        sessions: of PostgreSQL that all clients share, used in turn.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip(MISSING)
    home = Path(tempfile.mkdtemp(prefix="halfcore-pgbouncer-"))
    port = free_port()
    (home / "users.txt").write_text(f'"{USER}" "{PASSWORD}"\n')
    (home / "ini").write_text(
        _configuration(port, postgres, pool_mode, sessions, home, _without_prepared(program))
    )
    owner = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (home, *home.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, "-q", str(home / "ini")], stdout=output, stderr=output, **owner
        )  # type: ignore[call-overload]
    try:
        _await_listening(process, home / "log")
        yield PgBouncer(port, home / "log")
    finally:
        process.kill()
        process.wait(20)
        shutil.rmtree(home)


def _without_prepared(program: str) -> str:
    """The line that lets a newer PgBouncer, which can keep track of prepared statements, be as one
    that cannot."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, said.split()[1].split(".")[:2]))
    return "max_prepared_statements = 0" if version >= (1, 21) else ""


def _await_listening(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        said = ""
        with suppress(FileNotFoundError):
            said = log.read_text(errors="replace")
        if "process up" in said:
            return
        output = (log.parent / "output").read_text(errors="replace")
        assert process.poll() is None, f"PgBouncer ended: {said}{output}"
        assert time.monotonic() < deadline, f"PgBouncer does not listen: {said}{output}"
        time.sleep(0.02)
