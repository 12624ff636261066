"""A real `mlflow server` on a free port, with artifacts proxied to disk or to an S3 endpoint, that
can be stopped, restarted and hung.

Starting takes MLflow some ten seconds, so a session has one of each kind (tests/conftest.py), and
tests share it by names of their own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from support.serving import free_port

# For processes that speak to the server through MLflow's client, which by default waits two minutes
# and tries seven times.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
ADMIN = ("admin", "chosen by the tests")
"""User and password of a server that was started with `auth=True`."""


@dataclass
class MlflowServer:
    """A server process; `url` stays the same over restarts."""

    command: list[str]
    environment: dict[str, str]
    port: int
    log: Path
    auth: tuple[str, str] | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.log.parent,
            )

    def wait_ready(self, timeout_s: float = 200.0) -> None:
        """Return once it answers."""
        _await_http(f"{self.url}/health", self.process, self.log, timeout_s)
        self._remember_inner()

    def stop(self) -> None:
        """Kill it and its children; the port is free and connections are refused afterwards.
        Idempotent."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
        self.process = None

    def restart(self) -> None:
        """Start it again on the same port and wait until it answers."""
        self.start()
        self.wait_ready()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Refuse connections for a while."""
        self.stop()
        try:
            yield
        finally:
            self.restart()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Accept connections (the kernel does) but answer nothing for a while."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def _remember_inner(self) -> None:
        """What `mlflow server` started in the end: a restart takes this shorter way, half as long,
        to the very same process."""
        assert self.process is not None
        (child, *_) = Path(
            f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        ).read_text().split() or [""]
        if child:
            self.command = _strings(f"/proc/{child}/cmdline")
            self.environment = dict(
                entry.split("=", 1) for entry in _strings(f"/proc/{child}/environ")
            )


def _strings(path: str) -> list[str]:
    return Path(path).read_text().rstrip("\0").split("\0")


@contextmanager
def mlflow_server(
    folder: Path,
    *flags: str,
    store: str | None = None,
    artifacts: str | None = None,
    auth: bool = False,
    **environment: str,
) -> Iterator[MlflowServer]:
    """Run an MLflow server until the block ends; yields once it answers.

    Args:
        folder: of its log, and of its store and artifacts where these are not given.
        *flags: more of `mlflow server`'s, for example "--allowed-hosts", "mlflow:5000".
        store: SQLAlchemy URI; default: SQLite in `folder`.
        artifacts: where proxied artifacts go: a folder or s3://BUCKET; default: a folder in
            `folder`.
        auth: ask for user and password (`ADMIN`).
        **environment: more variables of the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", store or f"sqlite:///{folder}/mlflow.db"]
    command += [
        "--serve-artifacts",
        "--artifacts-destination",
        artifacts or str(folder / "artifacts"),
        *flags,
    ]
    if auth:
        command += ["--app-name", "basic-auth"]
        environment |= {
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
            "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(folder)),
        }
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "MODEL_", "HALFCORE_", "AWS_"))
    }
    server = MlflowServer(
        command,
        inherited | QUIET | environment,
        port,
        folder / "server.log",
        ADMIN if auth else None,
    )
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def _auth_config(folder: Path) -> Path:
    path = folder / "auth.ini"
    path.write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = "
        f"sqlite:///{folder}/auth.db\nadmin_username = {ADMIN[0]}\n"
        f"admin_password = {ADMIN[1]}\nauthorization_function = "
        "mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return path


@contextmanager
def s3_endpoint(folder: Path, bucket: str = "artifacts") -> Iterator[dict[str, str]]:
    """Run an S3 endpoint with one empty bucket; yields the environment that leads MLflow's server
    to it (with `artifacts="s3://artifacts"`)."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "s3.log"
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-c",
        "from moto.server import main; main()",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | S3_KEYS, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _await_http(f"{url}/moto-api/data.json", process, log, 200.0)
        httpx.put(f"{url}/{bucket}", headers={"host": f"127.0.0.1:{port}"}).raise_for_status()
        yield S3_KEYS | {"MLFLOW_S3_ENDPOINT_URL": url}
    finally:
        process.kill()
        process.wait(60)


def _await_http(
    url: str, process: subprocess.Popen[bytes] | None, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process is None or process.poll() is not None:
            raise AssertionError(f"the server ended: {log.read_text(errors='replace')[-3000:]}")
        try:
            if httpx.get(url, timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)  # nobody listens yet
    raise AssertionError(f"nothing answers at {url}: {log.read_text(errors='replace')[-3000:]}")
