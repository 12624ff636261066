"""A stored run of `loadlab memory` as the table of docs/operations.md, between two marks."""

import os
import re
from pathlib import Path

from loadlab.experiments import runner
from loadlab.experiments.bench.memory import ASKED, REST_S, Memory

_MARKED = re.compile(r"(?<=<!-- memory -->\n).*?(?=<!-- /memory -->)", re.DOTALL)
_MB, _KB = 1e6, 1e3


def fill(page: Path, runs: Path) -> bool:
    """Write the newest stored run into a page; False without a run, a page or marks."""
    files = sorted(runs.glob("*-memory-*.json"))
    text = page.read_text() if page.exists() else ""
    if not files or not _MARKED.search(text):
        return False
    link = Path(os.path.relpath(files[-1], page.parent)).as_posix()
    page.write_text(
        _MARKED.sub(lambda _: f"{_table(runner.load(files[-1], Memory), link)}\n", text)
    )
    return True


def _table(run: Memory, link: str) -> str:
    rows = ["| what | MB |", "| --- | ---: |"]
    for held in run.rows:
        name = f"{held.model} (`model.onnx` of {held.file / _MB:.2f} MB)"
        rows.append(f"| {name}: ready, no connection | {held.at_rest / _MB:.0f} |")
        rows.append(f"| {held.model}: at its peak while it loaded | {held.peak / _MB:.0f} |")
        rows.append(f"| {held.model}: ready, as RSS | {held.resident / _MB:.0f} |")
        if held.connected is not None:
            each = (held.connected - held.at_rest) / held.connections / _KB
            asked = f"{held.connections:,} connections, each answered {ASKED} times and then quiet"
            rows.append(
                f"| {held.model}: {asked} ({each:.1f} kB each) | {held.connected / _MB:.0f} |"
            )
    used = [f"{held.model} {held.cpu * 100:.2g} %" for held in run.rows if held.cpu is not None]
    rest = (
        ["", f"CPU time at rest, of a core over {REST_S:.0f} s: {', '.join(used)}."] if used else []
    )
    machine = run.fingerprint
    where = (
        f"control groups version {machine.cgroup_version}, CPython {machine.python}, one worker; "
        f"commit `{machine.commit[:12]}`"
    )
    return "\n".join(
        [
            *rows,
            *rest,
            "",
            (
                f"*{where}{' with uncommitted changes' if machine.dirty else ''}; "
                f"[`{run.command}`]({link}).*"
            ),
        ]
    )
