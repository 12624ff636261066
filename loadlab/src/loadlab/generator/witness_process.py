"""The witness as the lab sees it: a process and the file that it writes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from loadlab.generator.ledger import Tick
from loadlab.generator.plan import Load
from loadlab.generator.process import TickFile


class Witness:
    """A running witness; made by `witnessing`."""

    def __init__(self, process: subprocess.Popen[bytes], ticks: TickFile, log: Path) -> None:
        self._process, self._ticks, self._log = process, ticks, log
        self.pid = process.pid

    def ticks(self) -> list[Tick]:
        """What it saw since the last call."""
        return self._ticks.read()

    def broken(self) -> str:
        """Why it is no more, or nothing."""
        if self._process.poll() is None:
            return ""
        return (
            f"the witness ended with {self._process.returncode}: "
            f"{self._log.read_text()[-300:].strip()}"
        )


@contextmanager
def witnessing(folder: Path, load: Load) -> Iterator[Witness]:
    """Start the witness, and end it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "load.json").write_bytes(msgspec.json.encode(load))
    ticks = TickFile(folder / "ticks.jsonl")
    with (folder / "witness.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  our own words
            [
                sys.executable,
                "-m",
                "loadlab.generator.witness",
                str(folder / "load.json"),
                str(folder / "ticks.jsonl"),
            ],
            env={**os.environ, "LOADLAB_PARENT": str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Witness(process, ticks, folder / "witness.log")
    finally:
        process.kill()
        process.wait()
