"""Docker and Compose as a user types them, and clients that keep their connections open while
containers come and go."""

import http.client
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from support.serving import free_port

ROOT = Path(__file__).parents[2]


def _named(name: str) -> str:
    """One of the project's images, as `just image` and Compose name it."""
    namespace = os.environ.get("NAMESPACE", "")
    return f"{namespace}/{name}:{_TAG}" if namespace else f"{name}:{_TAG}"


_TAG = os.environ.get("TAG") or "latest"
SERVER, EXPORT, MLFLOW = _named("halfcore"), _named("halfcore-export"), _named("halfcore-mlflow")
BODY = b'{"features": [5.1, 3.5, 1.4, 0.2]}'
ANSWER = (
    b'{"prediction":"setosa","probabilities":{"setosa":1,"versicolor":0,"virginica":0},'
    b'"model":"iris","version":"1"}'
)
"""What README.md promises to who types its curl."""


def docker(*arguments: str, check: bool = True, timeout_s: float = 300, **environment: str) -> str:
    """Run `docker …`; return what it printed.

    Raises:
        AssertionError: it failed; with what it said.
    """
    result = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | environment,
        cwd=ROOT,
    )
    assert not check or result.returncode == 0, (
        f"docker {' '.join(arguments)}: {result.stdout[-2000:]}{result.stderr[-4000:]}"
    )
    return result.stdout.strip() if check else result.stdout + result.stderr


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container or an image."""
    known: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return known


@contextmanager
def container(
    *arguments: str, command: tuple[str, ...] = (), image: str = SERVER, inside: int = 8000
) -> Iterator[tuple[str, int]]:
    """Run an image in the background with a port of it on loopback; yields its id and the port
    here, and removes it in the end."""
    port = free_port()
    name = docker("run", "-d", "-p", f"127.0.0.1:{port}:{inside}", *arguments, image, *command)
    try:
        yield name, port
    finally:
        docker("rm", "-f", "-v", name)


class Compose:
    """A Compose project of this test run, with a free port as its door."""

    def __init__(self, *profiles: str, **environment: str) -> None:
        self.port = free_port()
        self.project = f"halfcore-test-{os.getpid()}"
        self._environment = {
            "PORT": str(self.port),
            "COMPOSE_PROJECT_NAME": self.project,
        } | environment
        self._profiles = [flag for profile in profiles for flag in ("--profile", profile)]

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> str:
        """Run `docker compose … ARGUMENTS`."""
        return docker(
            "compose",
            *self._profiles,
            *arguments,
            check=check,
            timeout_s=timeout_s,
            **self._environment,
        )

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        return self("ps", "-a", "-q", service).split()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self("down", "--volumes", "--timeout", "10")


def ask(
    port: int, path: str = "/predict", body: bytes | None = BODY, timeout_s: float = 30
) -> tuple[int, bytes]:
    """One request on a connection of its own; status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(
            "GET" if body is None else "POST",
            path,
            body,
            {"content-type": "application/json"} if body else {},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def await_ready(port: int, timeout_s: float = 60) -> None:
    """Wait until `/health/ready` answers 200."""
    until(lambda: _status(port) == 200, f"nothing ready on port {port}", timeout_s)


def until(holds: Callable[[], object], otherwise: str, timeout_s: float = 60) -> None:
    """Wait for a state.

    Raises:
        AssertionError: it did not come in time.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _status(port: int) -> int:
    try:
        return ask(port, "/health/ready", None, timeout_s=5)[0]
    except OSError:
        return 0
    except http.client.HTTPException:
        return 0


class Users:
    """Clients that each keep one connection open and ask, think, ask; what went wrong is collected
    by kind.

    A user whose connection was closed between two requests opens another, as every HTTP client
    does; a request that was sent and not answered with the right answer is a failure.
    """

    def __init__(self, port: int, count: int = 24, think_s: float = 0.04) -> None:
        self.outcomes: Counter[str] = Counter()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._live, args=(port, think_s), daemon=True)
            for _ in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    @property
    def answered(self) -> int:
        """Right answers so far."""
        return self.outcomes["right"]

    @property
    def failures(self) -> dict[str, int]:
        """How often what went wrong so far."""
        return {kind: count for kind, count in self.outcomes.items() if kind != "right"}

    def _live(self, port: int, think_s: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        while not self._stop.wait(think_s):
            try:
                connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                kind = (
                    "right"
                    if (answer.status, body) == (200, ANSWER)
                    else f"{answer.status} {body[:200]!r}"
                )
            except (OSError, http.client.HTTPException) as error:
                kind = f"{type(error).__name__}: {error}"
                connection.close()
            with self._lock:
                self.outcomes[kind] += 1
        connection.close()


def predictions(name: str) -> int:
    """Right answers that a server's container has given, from its own metrics."""
    code = (
        "import urllib.request as u; "
        "print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
    )
    text = docker("exec", name, "python", "-c", code)
    return sum(
        int(float(value))
        for value in re.findall(
            r'^halfcore_requests_total\{[^}]*outcome="200"[^}]*route="/predict"[^}]*\} (\S+)$|',
            text,
            re.M,
        )
        if value
    )
