"""Types documented commands in a clean checkout, as a newcomer would, with the adaptations of
`tables`."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from support.mlflow_server import QUIET
from support.serving import free_port
from support.walks.catalogue import ROOT, Command, documented, meets
from support.walks.tables import ADAPTATIONS, ENVIRONMENT

_OURS = (
    "HALFCORE_",
    "MODEL_",
    "MLFLOW_",
    "BASELINE_",
    "DATABASE_URL",
    "VIRTUAL_ENV",
    "UV_PROJECT_ENVIRONMENT",
    "UV_NO_SYNC",
)
_SAID = 6000
"""Characters of its output that a failed command's message shows."""
_Found = TypeVar("_Found")
_Test = TypeVar("_Test", bound=Callable[..., Any])


def walks(*patterns: str) -> Callable[[_Test], _Test]:
    """Mark a test that executes every documented command that meets one of the patterns; it asks
    for the fixture `walker`.

    Raises:
        ValueError: no page has such a command (any more).
    """
    commands = [
        command
        for command in documented()
        if any(meets(command.text, pattern) for pattern in patterns)
    ]
    for pattern in patterns:
        if not any(meets(command.text, pattern) for command in commands):
            raise ValueError(f"no page documents {pattern!r}: the walk has to follow the page")
    return pytest.mark.walks(commands)


def claimed(file: Path) -> list[Command]:
    """The commands that the tests of a file execute."""
    spec = importlib.util.spec_from_file_location(f"claims_of_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    marks = [mark for test in vars(module).values() for mark in getattr(test, "pytestmark", ())]
    return [command for mark in marks if mark.name == "walks" for command in mark.args[0]]


class Done(NamedTuple):
    """A command that came to its end."""

    status: int
    out: str
    said: str
    """Standard error."""


class Uploaded(NamedTuple):
    """What the watch did with the examples."""

    before: Done
    """Whether it was healthy before it began."""
    meanwhile: Done
    """And while it lived."""
    said: str
    executed: set[str]


class Walker:
    """Types commands in a folder."""

    def __init__(
        self, folder: Path, commands: list[Command], *, installs: bool = False, **values: str
    ) -> None:
        """Type in `folder`.

        Args:
            commands: that the walk has to execute.
            installs: let uv make an environment of the folder's own, rather than use the tests'.
            **values: what the adaptations put into their braces.
        """
        self.folder, self.commands, self.installs = folder, commands, installs
        self.port = free_port()
        self.values = {
            "port": str(self.port),
            "folder": str(folder),
            "path": _path(),
            "more": "",
        } | values
        if not installs:
            self.values |= {"environment": sys.prefix, "no_sync": "1"}
        self.executed: set[str] = set()

    def skip(self, reason: str) -> None:
        """Skip the test: what its commands need is not here."""
        self.executed |= {command.text for command in self.commands}
        pytest.skip(reason)

    def find(self, pattern: str) -> Command:
        """The only one of the walk's commands that meets a pattern."""
        (found,) = [command for command in self.commands if meets(command.text, pattern)]
        return found

    def adapted(self, command: Command, **values: str) -> str:
        """A command's text as it is typed here."""
        known, text = self.values | values, f"{command.before}\n{command.text}".strip()
        for adaptation in ADAPTATIONS:
            if re.search(adaptation.documented, text):
                here = adaptation.here.format_map(known)
                text = re.sub(adaptation.documented, lambda _, here=here: here, text)  # type: ignore[misc]
        return text

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of a command: the machine's own without ours, those of the table, and
        more."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(_OURS)
        } | QUIET
        environment["PATH"] = self.values["path"]
        for key, (value, _) in ENVIRONMENT.items():
            with suppress(KeyError):  # not every walk has everything, MLflow for one
                environment[key] = value.format_map(self.values)
        return environment | more

    def run(
        self,
        command: Command,
        *,
        status: int | tuple[int, ...] = 0,
        timeout_s: float = 110.0,
        environment: Mapping[str, str] | None = None,
        **values: str,
    ) -> Done:
        """Type a command and wait for its end; an unexpected exit status fails the test."""
        text = self.adapted(command, **values)
        process = subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment(**(environment or {})),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, said = process.communicate()
            raise AssertionError(
                f"`{text}` took more than {timeout_s:.0f} s:\n{(out + said)[-_SAID:]}"
            ) from None
        self.executed.add(command.text)
        expected = (status,) if isinstance(status, int) else status
        assert process.returncode in expected, (
            f"`{text}`: exit status {process.returncode}:\n{(out + said)[-_SAID:]}"
        )
        return Done(process.returncode, out, said)

    @contextmanager
    def start(
        self, command: Command, *, environment: Mapping[str, str] | None = None, **values: str
    ) -> Iterator["Running"]:
        """Type a command that goes on until it is ended, and end it with the block."""
        text = self.adapted(command, **values)
        log = self.folder / f".halfcore/walk-{len(self.executed)}-{free_port()}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self.folder,
                env=self.environment(**(environment or {})),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.executed.add(command.text)
        running = Running(text, process, log, self.port)
        try:
            yield running
        finally:
            running.http.close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


class Running:
    """A command that goes on until it is ended."""

    def __init__(self, text: str, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.text, self.process, self.log = text, process, log
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20.0)

    def said(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text(errors="replace")

    def until(self, look: Callable[[], _Found], what: str, timeout_s: float = 90.0) -> _Found:
        """Wait until something holds, and return it; the command's end fails the test."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(httpx.TransportError):  # nobody listens yet
                if found := look():
                    return found
            assert self.process.poll() is None, (
                f"`{self.text}` ended with {self.process.returncode}:\n{self.said()[-_SAID:]}"
            )
            assert time.monotonic() < deadline, (
                f"`{self.text}`: not {what} after {timeout_s:.0f} s:\n{self.said()[-_SAID:]}"
            )
            time.sleep(0.05)

    def ready(self, timeout_s: float = 90.0) -> httpx.Client:
        """Wait until the server is ready; returns a client of it."""
        self.until(lambda: self.http.get("/health/ready").status_code == 200, "ready", timeout_s)
        return self.http

    def prints(self, text: str, timeout_s: float = 90.0) -> None:
        """Wait until it has printed a text."""
        self.until(lambda: text in self.said(), f"printed {text!r}", timeout_s)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """End it; returns what it printed.

        SIGTERM is sent to the command alone, as a supervisor does it, and SIGINT to all its
        processes, as a terminal does it. Either way no process of it may be left.
        """
        (os.kill if number is signal.SIGTERM else os.killpg)(self.process.pid, number)
        status = self.process.wait(40)
        deadline = time.monotonic() + 20
        while left := _members(self.process.pid):
            assert time.monotonic() < deadline, f"`{self.text}` left processes {left}"
            time.sleep(0.02)
        assert status in {0, -number, 128 + number}, (
            f"`{self.text}` ended with {status}:\n{self.said()[-_SAID:]}"
        )
        return self.said()


def _path() -> str:
    """Where programs are looked for, with those of the tests' environment last: a newcomer has none
    of them."""
    ours = str(Path(sys.prefix, "bin"))
    return ":".join([*(folder for folder in os.environ["PATH"].split(":") if folder != ours), ours])


def clean_checkout(folder: Path) -> Path:
    """A clone of this tree as it is, changes that are not committed included; returns it."""
    git = ["git", "-c", "user.name=walks", "-c", "user.email=walks@localhost"]
    subprocess.run([*git, "clone", "--quiet", "--shared", ROOT, folder], check=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    subprocess.run([*git, "add", "--all"], cwd=folder, check=True)
    subprocess.run(
        [*git, "commit", "--quiet", "--allow-empty", "--message", "The tree that is tested"],
        cwd=folder,
        check=True,
    )
    return folder


def changed(folder: Path) -> str:
    """What `git status` says of a checkout; empty if nothing has changed."""
    return subprocess.run(
        ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def _members(group: int) -> list[int]:
    """The processes of a group that live; one that only waits to be noticed as ended does not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found
