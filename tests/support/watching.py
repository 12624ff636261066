"""A real `model-export watch` process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.mlflow_server import IMPATIENT, QUIET

GATE_ROWS = 1_000


@dataclass
class Watching:
    """A running watch."""

    process: subprocess.Popen[bytes]
    log: Path
    work: Path

    def wait_for(self, text: str, *, timeout_s: float = 200.0) -> None:
        """Return once a line of the log holds the text."""
        deadline = time.monotonic() + timeout_s
        while text not in self.said():
            assert self.process.poll() is None or text in self.said(), (
                f"the watch ended:\n{self.said()}"
            )
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        """Everything it has logged."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it with SIGTERM; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(200)


@contextmanager
def watching(
    tracking_uri: str, folder: Path, *arguments: str, **environment: str
) -> Iterator[Watching]:
    """Watch until the block ends, looking five times a second, with a small proof."""
    log, work = folder / "watch.log", folder / "work"
    command = [
        sys.executable,
        "-m",
        "model_export",
        "watch",
        *arguments,
        "--tracking-uri",
        tracking_uri,
        "--work",
        str(work),
    ]
    command += [
        "--interval-s",
        "0.2",
        "--max-backoff-s",
        "0.5",
        "--gate-rows",
        str(GATE_ROWS),
        "--lease-s",
        "1",
    ]
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "MODEL_", "HALFCORE_"))
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=inherited | QUIET | IMPATIENT | environment, stderr=output, stdout=output
        )
    try:
        yield Watching(process, log, work)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(120)
