"""Starts one export as a process of its own, waits for it within its time, and says what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_export.watch.settings import WatchSettings

_TICK_S = 0.25
_HEADROOM_MB = 4096
"""The kernel counts what is reserved and never used, too (stacks, arenas: 1.5 GB for iris), so its bound stands higher by this."""


@dataclass(frozen=True)
class Outcome:
    """How an export ended."""

    kind: Literal["passed", "refused", "failed"]
    """failed: not for the model's sake; worth trying again."""
    reason: str = ""
    bundle: Path | None = None


@contextmanager
def exported(uri: str, tracking_uri: str, settings: WatchSettings, tick: Callable[[], None]) -> Iterator[Outcome]:
    """Export one model; the bundle is there until the block ends.

    Args:
        uri: models:/NAME/VERSION.
        tracking_uri: of MLflow.
        settings: work folder and limits.
        tick: called four times a second while it runs; what it raises ends the export.

    Yields:
        the outcome. Whether by time, by memory, by a signal or by itself: the process and all that it started have ended by then.
    """
    folder = settings.work / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield _run(uri, tracking_uri, settings, folder.resolve(), tick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(uri: str, tracking_uri: str, settings: WatchSettings, folder: Path, tick: Callable[[], None]) -> Outcome:
    order = {
        "uri": uri, "tracking_uri": tracking_uri, "out": str(folder / "bundles"), "gate_rows": settings.gate_rows,
        "no_unpickle": settings.no_unpickle, "allocated_mb": settings.memory_limit_mb + _HEADROOM_MB, "parent": os.getpid(),
    }  # fmt: skip
    (folder / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-m", "model_export.watch.job", str(folder / "order.json"), str(folder / "result.json")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(folder)},  # MLflow leaves its downloads behind
        )
    try:
        too_much = _wait(process, settings.time_limit_s, settings.memory_limit_mb, tick)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has started may outlive it
        process.wait()
    if too_much:
        return Outcome("refused", too_much)
    return _read(folder, process.returncode, settings.memory_limit_mb)


def _wait(process: subprocess.Popen[bytes], limit_s: float, limit_mb: int, tick: Callable[[], None]) -> str:
    """Wait for the end; returns what there was too much of, if anything."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TICK_S)
            return ""
        if _resident_mb(process.pid) > limit_mb:
            return f"needed more than the {limit_mb} MB that an export may use"
        tick()
    return f"needed more than the {limit_s:g} s that an export may take"


def _resident_mb(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return 0.0


def _read(folder: Path, status: int, memory_limit_mb: int) -> Outcome:
    if not (folder / "result.json").is_file():
        return _without_result(folder, status, memory_limit_mb)
    result = json.loads((folder / "result.json").read_text())
    if result["outcome"] == "passed":
        (manifest,) = (folder / "bundles").glob("*/*/manifest.json")  # not where the process says, for a model may have run in it
        return Outcome("passed", bundle=manifest.parent)
    return Outcome(result["outcome"], result["reason"])


def _without_result(folder: Path, status: int, memory_limit_mb: int) -> Outcome:
    """A signal is the model's doing, most likely for want of memory; status 1 is Python's, before the export or after it."""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    if status == 1:
        return Outcome("failed", f"the export could not run{last}")
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return Outcome("refused", f"the export was ended {how}; it may have needed more than the {memory_limit_mb} MB that it may use{last}")
