"""Time and memory of a command, measured from a small process: Linux counts the memory of a large
one that starts a command as the command's own.

As a program: `measured.py FILE COMMAND …` runs the command and writes what it took to the file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """What a command took."""

    status: int
    wall_s: float
    cpu_s: float
    """User and system time of all its threads."""
    peak_bytes: int
    """Of its resident memory."""


def measured(command: Sequence[str], *, cores: set[int] | None = None) -> Measured:
    """Run a command and measure it.

    Args:
        command: program and arguments.
        cores: on which it may run; None: on all.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        environment = os.environ | {"CORES": ",".join(map(str, cores or ()))}
        subprocess.run(
            [sys.executable, "-S", __file__, file, *command], env=environment, check=True
        )
        return Measured(*json.loads(file.read_text()))


def main() -> None:
    """Run the command of the arguments."""
    file, *command = sys.argv[1:]
    cores = os.environ.pop("CORES")
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    began = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime
    found = [os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss * 1024]
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
