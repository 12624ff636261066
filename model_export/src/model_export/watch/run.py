"""Starts one export as a process of its own, waits for it within its time, and says what came of
it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model_export import limits, stages
from model_export.errors import shorten
from model_export.registry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_export.watch.settings import WatchSettings


logger = logging.getLogger("model_export.watch")


@dataclass(frozen=True)
class Outcome:
    """How an export ended."""

    kind: Literal["passed", "refused", "failed"]
    """failed: not for the model's sake; worth trying again."""
    reason: str = ""
    bundle: Path | None = None


@contextmanager
def exported_in_child(
    uri: str, tracking_uri: str, settings: WatchSettings, tick: Callable[[], None]
) -> Iterator[Outcome]:
    """Export one model; the bundle is there until the block ends.

    Args:
        uri: models:/NAME/VERSION.
        tracking_uri: of MLflow.
        settings: work folder and limits.
        tick: called some times a second while it runs; what it raises ends the export.

    Yields:
        the outcome. Whether by time, by memory, by a signal or by itself: the process and all that
            it started have ended by then.
    """
    folder = settings.work / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield _run(uri, tracking_uri, settings, folder.resolve(), tick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    uri: str, tracking_uri: str, settings: WatchSettings, folder: Path, tick: Callable[[], None]
) -> Outcome:
    limit_mb = min(settings.memory_limit_mb, limits.usable_mb())
    order = {
        "uri": uri,
        "name": name_of(uri),
        "tracking_uri": tracking_uri,
        "out": str(folder / "bundles"),
        "gate_rows": settings.gate_rows,
        "no_unpickle": settings.no_unpickle,
        "memory_limit_mb": limit_mb,
        "parent": os.getpid(),
    }
    (folder / "order.json").write_text(json.dumps(order))
    command = [
        sys.executable,
        "-m",
        "model_export.watch.job",
        str(folder / "order.json"),
        str(folder / "result.json"),
    ]
    with (folder / "log").open("wb") as log:
        # MLflow leaves its downloads behind: they go with the folder.
        child = limits.Supervised(
            command, environment={"TMPDIR": str(folder)}, output=log, own_session=True
        )
    ended = child.wait(limit_mb, settings.time_limit_s, tick)
    logger.debug("%s: the export's own log:\n%s", uri, (folder / "log").read_text(errors="replace"))
    at = f" ({ended.stage})" if ended.stage else ""
    if ended.limit_exceeded == "memory":
        return Outcome("refused", stages.memory_limit_message(ended.stage, limit_mb))
    if ended.limit_exceeded == "time":
        return Outcome(
            "refused",
            f"the export needed more than the {settings.time_limit_s:g} s that an export may "
            f"take{at}: raise "
            "MODEL_EXPORT_TIME_LIMIT_S, or export a smaller model",
        )
    return _read(folder, ended, limit_mb)


def name_of(uri: str) -> str | None:
    """The bundle's name where the registered one cannot be a folder's; None where it can."""
    name = uri.removeprefix("models:/").rpartition("/")[0]
    return (
        None
        if not uri.startswith("models:/") or names.SAFE_NAME.fullmatch(name)
        else names.safe_name(name)
    )


def _read(folder: Path, ended: limits.ChildExit, limit_mb: int) -> Outcome:
    if not (folder / "result.json").is_file():
        return _without_result(folder, ended, limit_mb)
    result = json.loads((folder / "result.json").read_text())
    if result["outcome"] == "passed":
        (manifest,) = (folder / "bundles").glob(
            "*/*/manifest.json"
        )  # not where the process says, for a model may have run in it
        return Outcome("passed", bundle=manifest.parent)
    return Outcome(result["outcome"], result["reason"])


def _without_result(folder: Path, ended: limits.ChildExit, limit_mb: int) -> Outcome:
    """A signal is the model's doing, most likely for want of memory; status 1 is Python's, before
    the export or after it."""
    if ended.status < 0:
        return Outcome("refused", limits.killed_message(ended, limit_mb))
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    last = f": {shorten(lines[-1], 300)}" if lines else ""
    if ended.status == 1:
        return Outcome("failed", f"the export could not run{last}")
    at = f" ({ended.stage})" if ended.stage else ""
    return Outcome(
        "refused",
        "the model, or a library that runs it, ended the export with status "
        f"{ended.status}{at}{last}",
    )
