"""Runs a proof and ends it with one line: `proven.py SCENARIO BAR -- COMMAND …`. The exit code is
the command's. `just prove` collects the lines into a report.

What was measured is what the proof stored (support/proof.py), or the last line that it printed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

MEASURED = "PROOF_MEASURED"
"""Names the file that gets what a proof measured."""
LINES = "PROOF_LINES"
"""Names the folder that gets each proof's line as JSON, if a report is made of them."""
_MOST_CHARACTERS = 300


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
    """Run a proof, passing on what it prints; return its line and its exit code."""
    began = time.monotonic()
    last, seed = "nothing was printed", "none"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured"
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {MEASURED: str(file)},
        ) as process:
            assert process.stdout is not None
            for text in process.stdout:
                sys.stdout.write(text)
                sys.stdout.flush()
                last = text.strip() or last
                if found := re.search(r"\bseed[ =:]+(\d+)", text):
                    seed = found[1]
        measured = file.read_text() if file.exists() else last
    line = Line(
        scenario=scenario,
        bar=bar,
        measured=" ".join(measured.split())[:_MOST_CHARACTERS],
        seed=seed,
        seconds=round(time.monotonic() - began, 1),
        passed=process.returncode == 0,
    )
    return line, process.returncode


def main() -> int:
    """Run; the command's exit code. Its help is no proof."""
    scenario, bar, _, *command = sys.argv[1:]
    if {"-h", "--help"} & set(command):
        return subprocess.call(command)
    line, code = run(scenario, bar, command)
    if folder := os.environ.get(LINES):
        (Path(folder) / f"{scenario}.json").write_bytes(msgspec.json.encode(line))
    sys.stdout.write(line.text() + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
