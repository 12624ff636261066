"""Whole runs of the load lab for tests: a checkout of its own, `loadlab load` as a process, and
what must not be left of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from loadlab.generator import exchange
from loadlab.record.cgroup import PARENT, ROOT
from loadlab.record.schema import PhaseName, Run
from loadlab.record.store import VERDICT_FILE, Log, read
from loadlab.verdict.judge import Verdict

CHECKOUT = Path(__file__).parents[2]
TIER = "half-core"
FAULTY = Path(__file__).with_name("faulty")
"""Holds what plants faults in a server that is started with it."""


@dataclass
class Lab:
    """A place with the compose file, the locustfile and room for runs; `bundles` has to be filled.

    Args:
        folder: becomes a checkout of its own, so that its runs are nobody else's.
    """

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for name in ("compose", "loadlab"):
            (self.folder / name).symlink_to(CHECKOUT / name)
        self.bundles.parent.mkdir()
        subprocess.run(["git", "init", "--quiet", str(self.folder)], check=True)

    @property
    def bundles(self) -> Path:
        """Where the lab looks for models."""
        return self.folder / ".halfcore/bundles"

    @property
    def store(self) -> Path:
        """Where it keeps its runs."""
        return self.folder / ".halfcore/loads"

    def limit(self, *, memory: str = "512M", environment: Mapping[str, str] | None = None) -> None:
        """Replace the tiers by one: half a core, this much memory, and settings for its server."""
        tier = {
            "labels": {"io.halfcore.tier": TIER},
            "environment": dict(environment or {}),
            "deploy": {"resources": {"limits": {"cpus": "0.5", "memory": memory}}},
        }
        (self.folder / "compose").unlink()
        (self.folder / "compose").mkdir()
        (self.folder / "compose/compose.yaml").write_text(
            yaml.safe_dump({"services": {TIER: tier}})
        )

    def plant(self, fault: str, *, memory: str = "512M") -> Path:
        """Have the server misbehave (`tests/support/faulty`) from when the file that is returned
        exists."""
        trigger = self.folder / "now"
        self.limit(
            memory=memory,
            environment={
                "PYTHONPATH": str(FAULTY),
                "FAULT": fault,
                "FAULT_FROM": str(trigger),
                "FAULT_ROWS": str(exchange.ROWS),
            },
        )
        return trigger

    def start(
        self,
        *words: str,
        tier: str = TIER,
        backend: str = "cgroup",
        before: tuple[str, ...] = (),
        **changes: str,
    ) -> subprocess.Popen[str]:
        """`loadlab load` here, behind the words of `before`; `changes` are of its environment."""
        chosen = [f"tier={tier}"] if tier else []
        chosen += [f"backend={backend}"] if backend else []
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "loadlab", "load", *chosen, *words],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **changes},
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Interrupt what still runs: a test has failed."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=200)
        self.started.clear()

    def runs(self) -> list[Path]:
        """The folders of all runs, oldest first."""
        return sorted(file.parent for file in self.store.glob("*/run.json"))

    def stored(self) -> Log:
        """The only run."""
        (folder,) = self.runs()
        return read(folder)

    def verdict(self) -> Verdict:
        """Of the only run, as it was stored."""
        (folder,) = self.runs()
        return msgspec.json.decode((folder / VERDICT_FILE).read_bytes(), type=Verdict)

    def await_phase(self, name: PhaseName, process: subprocess.Popen[str]) -> Run:
        """Wait until the newest run has come to a phase, or past it."""
        while True:
            assert process.poll() is None, process.communicate()[0]
            for folder in self.runs()[-1:]:
                run = msgspec.json.decode((folder / "run.json").read_bytes(), type=Run)
                if any(phase.name == name for phase in run.phases):
                    return run
            time.sleep(0.05)


def finish(
    process: subprocess.Popen[str], code: int, says: str = "", timeout_s: float = 200
) -> str:
    """Wait for its end; what it said."""
    said, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == code, said
    assert says in plain(said), said
    return said


def plain(said: str) -> str:
    """Without the frames and line breaks of a table."""
    return " ".join(said.replace("│", " ").split())


def process_of(run: Run, role: str) -> int:
    """The id of the only process with a role."""
    (found,) = [each.pid for each in run.processes if each.role == role]
    return found


def left_over(lab: subprocess.Popen[str], run: Run | None = None) -> list[str]:
    """What a lab that has ended should have taken with it: processes of its run, others that it
    started, and its control groups."""
    named = [
        f"process {each.name} ({each.pid})"
        for each in (run.processes if run else [])
        if Path(f"/proc/{each.pid}").exists()
    ]
    groups = [f"control group {group}" for group in ROOT.glob(f"**/{PARENT}/{lab.pid}-*")]
    return [*named, *_children(lab.pid), *groups]


def _children(lab: int) -> list[str]:
    """Processes that carry a lab's id in their environment."""
    mark, found = f"LOADLAB_PARENT={lab}".encode(), []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in file.read_bytes().split(b"\0"):
                found.append(f"process {file.parent.name}")
        except OSError:
            continue
    return found
