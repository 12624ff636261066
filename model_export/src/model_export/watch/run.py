"""Runs one export in its own process, within limits of time and memory, and returns its outcome."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model_export import limits, stages
from model_export.bundle.write import manifests
from model_export.errors import shorten
from model_export.registry import names
from model_export.watch.settings import DEFAULT_GATE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_export.watch.settings import WatchSettings


logger = logging.getLogger("model_export.watch")


@dataclass(frozen=True)
class Outcome:
    """How an export ended."""

    kind: Literal["passed", "refused", "failed"]
    """failed: the model is not the cause, and trying again may help."""
    reason: str = ""
    bundle: Path | None = None


@contextmanager
def exported_in_child(
    uri: str, tracking_uri: str, settings: WatchSettings, tick: Callable[[], None]
) -> Iterator[Outcome]:
    """Export one model; the bundle is deleted when the block ends.

    Args:
        uri: models:/NAME/VERSION.
        tracking_uri: of MLflow.
        settings: work folder and limits.
        tick: called several times a second while the export runs; an exception in it ends the
            export.

    Yields:
        the outcome. The export's process and all its children have ended by then, by themselves, by
            a signal or because of a limit.
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
    _write_order(uri, tracking_uri, settings, folder, limit_mb)
    files = [str(folder / "order.json"), str(folder / "result.json")]
    with (folder / "log").open("wb") as log:
        # MLflow leaves its downloads in TMPDIR: they are removed with the folder.
        child = limits.Supervised(
            [*limits.interpreter(), "-m", "model_export.watch.job", *files],
            environment={"TMPDIR": str(folder)},
            output=log,
            own_session=True,
        )
    ended = child.wait(limit_mb, settings.time_limit_s, tick)
    logger.debug("%s: the export's own log:\n%s", uri, (folder / "log").read_text(errors="replace"))
    return _beyond_limit(ended, limit_mb, settings) or _read(folder, ended, limit_mb)


def _write_order(
    uri: str, tracking_uri: str, settings: WatchSettings, folder: Path, limit_mb: int
) -> None:
    order = {
        "uri": uri,
        "name": name_of(uri),
        "tracking_uri": tracking_uri,
        "out": str(folder / "bundles"),
        # The default number is chosen by time; a number that was set is not.
        "gate_rows": None if settings.gate_rows == DEFAULT_GATE_ROWS else settings.gate_rows,
        "no_unpickle": settings.no_unpickle,
        "accept_unknown": settings.accept_unknown,
        "signing_key": str(settings.signing_key.absolute()) if settings.signing_key else None,
        "memory_limit_mb": limit_mb,
        "parent": os.getpid(),
    }
    (folder / "order.json").write_text(json.dumps(order))


def _beyond_limit(
    ended: limits.ChildExit, limit_mb: int, settings: WatchSettings
) -> Outcome | None:
    at = f" ({ended.stage})" if ended.stage else ""
    if ended.limit_exceeded == "memory":
        return Outcome("refused", stages.memory_limit_message(ended.stage, limit_mb))
    if ended.limit_exceeded == "time":
        return Outcome(
            "refused",
            f"the export needed more than the {settings.time_limit_s:g} s that an export may "
            f"take{at}: raise MODEL_EXPORT_TIME_LIMIT_S, or export a smaller model",
        )
    return None


def name_of(uri: str) -> str | None:
    """The bundle's name if the registered name cannot be the name of a folder; None if it can."""
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
        # Looked for here, not where the process says: a model ran in it and may have lied.
        models = (folder / "bundles").iterdir()
        (manifest,) = (manifest for model in models for manifest in manifests(model))
        return Outcome("passed", bundle=manifest.parent)
    return Outcome(result["outcome"], result["reason"])


def _without_result(folder: Path, ended: limits.ChildExit, limit_mb: int) -> Outcome:
    """The outcome of a process that wrote no result. The model causes a signal, most often for lack
    of memory; Python causes status 1, before or after the export."""
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
