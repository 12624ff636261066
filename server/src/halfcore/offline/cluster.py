"""The files of a folder scored by the workers of a Ray cluster: a task per file, one session of the
model per worker process."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halfcore.bundle import MANIFEST_FILE
from halfcore.offline.partitions import Outcome, Partition, Plan, score_partition
from halfcore.offline.score import Scorer
from halfcore.offline.sources import FileError

LOCAL = "local"
"""Stands for the address of a cluster that is started here, and ends with the run."""
_CONNECT_TIMEOUT_S = 30.0
RETRIES = 3
"""Of a file whose worker ended, as on a machine that is switched off."""

_scorers: dict[str, Scorer] = {}
"""In a worker process: what is noted of a model → its session."""


def score(plan: Plan, *, address: str = LOCAL, workers: int | None = None) -> Iterator[Outcome]:
    """Score the files that have no answers yet; yields each when it is done, in any order.

    Args:
        plan: its files must have the same paths on every machine of the cluster; the bundle is
            sent to the workers.
        address: of the cluster (`auto`: the one of this machine), or `LOCAL`.
        workers: files at once; None: as many as the cluster has cores for.

    Raises:
        FileError: Ray is not installed, or there is no such cluster.
    """
    if not plan.todo:
        return
    ray = _ray()
    try:
        _connect(ray, address)
        # Spread, or Ray fills this machine first and then looks for another.
        options = {"num_cpus": 1, "max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
        task = ray.remote(**options)(score_in_worker)
        content = ray.put(_content(plan.bundle))
        waiting: dict[Any, Partition] = {}
        for partition in plan.todo:
            if len(waiting) == workers:
                yield _next(ray, waiting)
            waiting[task.remote(content, partition, plan.model, plan.keep)] = partition
        while waiting:
            yield _next(ray, waiting)
    finally:
        ray.shutdown()


def score_in_worker(
    content: dict[str, bytes], partition: Partition, model: dict[str, str], keep: list[str]
) -> Outcome:
    """Score a file in a worker process; the first one of a model loads it.

    Args:
        content: the bundle's files.
        partition: what to score.
        model: see `Plan`.
        keep: columns that are copied.
    """
    key = str(model)
    if key not in _scorers:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in content.items():
                (Path(folder) / name).write_bytes(data)
            _scorers.clear()
            _scorers[key] = Scorer(Path(folder), keep=keep)
    return score_partition(_scorers[key], partition, model)


def _next(ray: Any, waiting: dict[Any, Partition]) -> Outcome:
    """The outcome of a file that is done."""
    (done,), _ = ray.wait(list(waiting), num_returns=1)
    partition = waiting.pop(done)
    try:
        outcome: Outcome = ray.get(done)
    # Whatever a worker raises, and Ray's own errors: the other files go on.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().rpartition("\n")[2]
        return Outcome(partition.name, error=f"{partition.name}: the worker failed: {reason}")
    return outcome


def _content(path: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in path.iterdir()
        if file.name == MANIFEST_FILE or file.suffix == ".onnx"
    }


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        quiet["include_dashboard"] = False
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).partition("\n")[0]
        raise FileError(
            f"the Ray cluster {address} cannot be reached: {reason}; `ray start --head` starts "
            "one; with authentication, it needs RAY_AUTH_MODE=token and its token in RAY_AUTH_TOKEN"
        ) from None


def _ray() -> Any:
    # Read at import. Ray would send statistics of its use, and would have every worker run `uv`
    # with a copy of the working directory if this process was started by it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray  # late: an extra
    except ImportError:
        raise FileError("--ray needs Ray, which halfcore[ray] installs") from None
    return ray
