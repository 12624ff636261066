"""Runs the models of the matrix in processes with limits of time and memory, several at a time."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.errors import MORE
from model_export.limits import resident_mb
from support.matrix.exported import RESULT, run

_TICK_S = 0.05
_WAITING = 6
"""Times its CPU time that a model may take: other processes use the machine, too, and a model that
waits without end ends at last."""
_PRELOADED = ["support.matrix.exported", "support.matrix.preloaded"]


@dataclass(frozen=True)
class Limits:
    """What one model may use.

    Attributes:
        cpu_s: seconds of CPU time, which do not depend on what else the machine does.
        megabytes: of memory in use.
        processes: models at a time.
    """

    cpu_s: int
    megabytes: int
    processes: int = 2


@dataclass
class _Active:
    process: Any
    deadline: float


def run_all(
    asked: Mapping[str, int | None],
    root: Path,
    limits: Limits,
    ended: Callable[[str, dict[str, Any]], None],
) -> None:
    """Train and export the models, each in its folder in `root`.

    Args:
        asked: name → rows of the proof; None: as many as by default.
        root: folder of all of them.
        limits: of each.
        ended: gets each name with its result.
    """
    context = multiprocessing.get_context("forkserver")
    # The server of forks imports everything once; it computes nothing, so that forks are safe. It
    # finds modules by PYTHONPATH only, and ignores those that it does not find.
    places = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    context.set_forkserver_preload(_PRELOADED)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    template = _template(root)
    waiting, active = list(reversed(asked)), dict[str, _Active]()
    try:
        while waiting or active:
            while waiting and len(active) < limits.processes:
                name = waiting.pop()
                active[name] = _start(context, name, root, template, asked[name], limits)
            time.sleep(_TICK_S)
            for name in list(active):
                if result := _result(active[name], root / name, limits):
                    del active[name]
                    ended(name, result)
    finally:
        for one in active.values():
            one.process.kill()


def _template(root: Path) -> Path:
    """An empty store of MLflow: its tables take seconds to make, and each model gets a copy."""
    template = root / "empty.db"
    if not template.exists():
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{template}")
        mlflow.search_experiments()
    return template


def _start(
    context: Any, name: str, root: Path, template: Path, gate_rows: int | None, limits: Limits
) -> _Active:
    shutil.rmtree(root / name, ignore_errors=True)
    shutil.rmtree(root / "bundles" / name, ignore_errors=True)
    arguments = (name, root / name, template, gate_rows, limits.cpu_s, limits.megabytes)
    process = context.Process(target=run, args=arguments)
    process.start()
    return _Active(process, time.monotonic() + _WAITING * limits.cpu_s)


def _result(one: _Active, folder: Path, limits: Limits) -> dict[str, Any] | None:
    """The result of a model whose process has ended or exceeds a limit; None: not yet."""
    process = one.process
    if not process.is_alive():
        process.join()
        file = folder / RESULT
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            return found
        if process.exitcode == -signal.SIGXCPU:
            return _ended(folder, f"more than {limits.cpu_s} s of CPU time")
        return _stored(folder, "traceback", f"the process ended with status {process.exitcode}")
    megabytes = resident_mb(process.pid)
    if megabytes <= limits.megabytes and time.monotonic() < one.deadline:
        return None
    process.kill()
    process.join()
    what = (
        f"more than {limits.megabytes:,} MB of memory"
        if megabytes > limits.megabytes
        else f"more than {_WAITING * limits.cpu_s} s"
    )
    return _ended(folder, what)


def _ended(folder: Path, what: str) -> dict[str, Any]:
    return _stored(folder, "refused", f"the export needed {what}: train a smaller model {MORE}")


def _stored(folder: Path, outcome: str, message: str) -> dict[str, Any]:
    result = {"outcome": outcome, "message": message, "seconds": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(result))
    return result
