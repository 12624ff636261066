"""Runs a proof and ends it with one line: `proven.py SCENARIO BAR -- COMMAND …`. The exit code is
the command's. `just prove` collects the lines into a report.

What was measured is what the proof stored (support/proof.py), or the last line that it printed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

MEASURED = "PROOF_MEASURED"
"""Names the file that gets what a proof measured."""
LINES = "PROOF_LINES"
"""Names the folder that gets each proof's line as JSON, if a report is made of them."""
INTERRUPTED = 130
"""Exit code."""
_MOST_CHARACTERS = 300
_CLEAN_UP_S = 60.0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a proof."""

    scenario: str
    bar: str
    measured: str
    seed: str
    """`none` if nothing is random, or if each run draws other cases."""
    seconds: float
    passed: bool

    def text(self) -> str:
        """For a terminal."""
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{self.scenario}: {verdict}; bar: {self.bar}; measured: {self.measured}; seed: "
            f"{self.seed}; {self.seconds:.0f} s"
        )


def run(scenario: str, bar: str, command: Sequence[str]) -> tuple[Line, int]:
    """Run a proof, passing on what it prints; return its line and its exit code. No process of it
    stays, however it ends; one that is interrupted (`KeyboardInterrupt`) gets time to clean up."""
    began = time.monotonic()
    said = {"last": "nothing was printed", "seed": "none"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured"
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {MEASURED: str(file)},
            process_group=0,
        ) as process:
            reader = threading.Thread(target=_pass_on, args=(process.stdout, said))
            reader.start()
            try:
                await_end(process, f"{MEASURED}={file}")
            finally:
                reader.join()
        measured = file.read_text() if file.exists() else said["last"]
    line = Line(
        scenario=scenario,
        bar=bar,
        measured=" ".join(measured.split())[:_MOST_CHARACTERS],
        seed=said["seed"],
        seconds=round(time.monotonic() - began, 1),
        passed=process.returncode == 0,
    )
    return line, process.returncode


def _pass_on(lines: IO[str], said: dict[str, str]) -> None:
    """Print what a proof prints, and keep its last line and its seed."""
    for text in lines:
        sys.stdout.write(text)
        sys.stdout.flush()
        said["last"] = text.strip() or said["last"]
        if found := re.search(r"\bseed[ =:]+(\d+)", text):
            said["seed"] = found[1]


def await_end(process: "subprocess.Popen[str]", mark: str) -> None:
    """Wait for a process that leads a group, so that a signal reaches it from here alone.

    If this process is interrupted (`KeyboardInterrupt`, raised again), so is the group, and may
    clean up. Then every process with `mark`, NAME=value, in its environment is ended: what was
    started and left, in whichever session.
    """
    try:
        process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_CLEAN_UP_S)
        raise
    finally:
        for file in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it ended meanwhile, or is another user's
                if mark.encode() in file.read_bytes().split(b"\0"):
                    os.kill(int(file.parent.name), signal.SIGKILL)


def interruptible() -> None:
    """From now on SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does; what `nohup` has
    ignored stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def main() -> int:
    """Run; the command's exit code, 130 if interrupted. Its help is no proof."""
    scenario, bar, _, *command = sys.argv[1:]
    if {"-h", "--help"} & set(command):
        return subprocess.call(command)
    interruptible()
    try:
        line, code = run(scenario, bar, command)
    except KeyboardInterrupt:
        sys.stdout.write(f"{scenario}: interrupted, so nothing is proven\n")
        return INTERRUPTED
    if folder := os.environ.get(LINES):
        (Path(folder) / f"{scenario}.json").write_bytes(msgspec.json.encode(line))
    sys.stdout.write(line.text() + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
