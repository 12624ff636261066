"""All proofs, one after the other, whatever becomes of each: `just prove`. Ends with a table of
them, stored as JSON and text next to their own records; the exit code is 1 if one failed."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
from support.proof import ROOT, STORE
from support.proven import INTERRUPTED, LINES, Line, await_end, interruptible

NOT_HERE = frozenset({"prove-baselines"})
"""Proofs of what Halfcore is compared with."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run of all proofs."""

    started_at: str
    """UTC, ISO 8601."""
    commit: str
    passed: bool
    lines: list[Line]


def recipes() -> list[str]:
    """The recipes that are proofs, in the justfile's order."""
    found = subprocess.run(
        ["just", "--list", "--unsorted", "--list-heading", ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split()[0] for line in found.splitlines() if line.startswith("    prove-")]
    return [name for name in names if name not in NOT_HERE]


def prove(names: Sequence[str], command: Sequence[str] = ("just",)) -> list[Line]:
    """Run proofs; one that has no line of its own gets one."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            began = time.monotonic()
            environment = os.environ | {LINES: folder}
            with subprocess.Popen(
                [*command, name], cwd=ROOT, env=environment, text=True, process_group=0
            ) as process:
                await_end(process, f"{LINES}={folder}")
            file = Path(folder) / f"{name.removeprefix('prove-')}.json"
            if file.exists():
                lines.append(msgspec.json.decode(file.read_bytes(), type=Line))
                continue
            lines.append(
                Line(
                    scenario=name.removeprefix("prove-"),
                    bar="exit code 0",
                    measured=f"exit code {process.returncode}",
                    seed="none",
                    seconds=round(time.monotonic() - began, 1),
                    passed=process.returncode == 0,
                )
            )
    return lines


def conclude(lines: Sequence[Line], store: Path, console: Console) -> int:
    """Show and store a report; 0 if all passed."""
    now = datetime.now(UTC)
    commit = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    passed = all(line.passed for line in lines)
    report = Report(
        started_at=now.isoformat(timespec="seconds"),
        commit=commit,
        passed=passed,
        lines=list(lines),
    )
    store.mkdir(parents=True, exist_ok=True)
    file = store / f"{now:%Y-%m-%d-%H%M%S}-report-{commit or 'nocommit'}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    file.with_suffix(".txt").write_text("".join(line.text() + "\n" for line in lines))
    table = Table(title="proofs")
    for heading in ("scenario", "bar", "measured", "seed", "s", ""):
        table.add_column(heading)
    for line in lines:
        verdict = "passed" if line.passed else "[red]FAILED[/]"
        seconds = f"{line.seconds:.0f}"
        table.add_row(line.scenario, line.bar, line.measured, line.seed, seconds, verdict)
    console.print(table)
    console.print(f"stored in {file} and as .txt", soft_wrap=True)
    return 0 if passed else 1


def main() -> int:
    """Run; 0 if all passed, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of recipes; all if there is none")
    known = recipes()
    names = parser.parse_args().names or known
    for name in names:
        if name not in (*known, *NOT_HERE):
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            parser.error(f"{name}: no such proof; there are {', '.join(known)}{meant}")
    interruptible()
    try:
        return conclude(prove(names), STORE, Console())
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
