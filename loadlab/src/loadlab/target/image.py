"""A published image as the baseline (`BASELINE_IMAGE=name just compare …`): a container
per replica in the tier's limits.

It needs the `/predict` contract and nothing else: it gets no settings, and serves the model that it
brings. Whether that answers as the registered model does is what the run's proof on golden rows
finds out before anything is timed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from loadlab.run.order import Order
from loadlab.target import cgroup
from loadlab.target.docker import Container, await_answer, docker, last_line, open_files
from loadlab.target.process import CannotStart
from loadlab.target.processes import hold, manifest
from loadlab.target.serving import Serving

_PORT = 8000
"""Where the image exposes no port, or several."""
_READY_S, _START_S, _END_S = 180.0, 60, 60
"""As long as a baseline's process may take: importing takes seconds of CPU time."""
_ERROR = 500


@contextmanager
def serving(
    order: Order, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start every replica; all are removed with this context. Arguments and errors are those of the
    `cgroup` backend.

    Users connect to the containers' own addresses, in turn: a published port goes through a process
    of Docker's.
    """
    bundle = hold(bundles, order.model, scratch)
    port = _port(order.image, root)
    started: list[str] = []
    try:
        for _ in range(order.tier.replicas):
            # Those before one that fails must be removed too
            started.append(_start(order, root, cpus))  # noqa: PERF401
        containers = [Container.of(root, each) for each in started]
        for each in containers:
            # Which of its paths reports readiness is not known: any status except a server's error
            # is accepted.
            await_answer(
                each,
                port,
                "/health",
                good=lambda status: status < _ERROR,
                ready_s=_READY_S,
                said=partial(_said, each, root),
            )
        yield Serving(
            addresses=[(each.address, port) for each in containers],
            groups=[cgroup.of_process(each.pid) for each in containers],
            pids=[each.pid for each in containers],
            ended=lambda: next((why for each in containers if (why := each.ended())), ""),
            network_pid=containers[0].pid,
            manifest=labels_only(manifest(bundle)),
            details={
                "service": f"image {order.image}",
                "image": order.image,
                "image_id": containers[0].image,
            },
        )
    finally:
        for name in started:
            docker(root, "rm", "--force", "--volumes", name, timeout_s=_END_S)


def labels_only(found: dict[str, Any]) -> dict[str, Any]:
    """A manifest as a baseline is held to it: of the golden rows only the label."""
    return {
        **found,
        "golden": [
            {"row": each["row"], "prediction": each["prediction"]} for each in found["golden"]
        ],
    }


def _start(order: Order, root: Path, cpus: str) -> str:
    limits, files = order.tier.limits, open_files()
    words = (
        [f"--memory={limits.memory_bytes}", f"--memory-swap={limits.memory_bytes}"]
        if limits.memory_bytes
        else []
    )
    words += (
        [f"--cpu-period={limits.period_us}", f"--cpu-quota={limits.quota_us}"]
        if limits.cpus
        else []
    )
    words += [f"--cpuset-cpus={cpus}"] if cpus else []
    words += [
        f"--ulimit=nofile={files}:{files}",
        "--sysctl=net.core.somaxconn=4096",
        "--no-healthcheck",
        f"--label=halfcore-load={os.getpid()}",
    ]
    ran = docker(root, "run", "--detach", "--pull=never", *words, order.image, timeout_s=_START_S)
    if ran.returncode:
        raise CannotStart(f"{order.image}: {last_line(ran.stderr)}")
    return ran.stdout.strip()


def _port(image: str, root: Path) -> int:
    found = docker(root, "image", "inspect", "--format", "{{json .Config.ExposedPorts}}", image)
    exposed = json.loads(found.stdout or "null") or {}
    ports = [int(name.partition("/")[0]) for name in exposed]
    return ports[0] if len(ports) == 1 else _PORT


def _said(container: Container, root: Path) -> str:
    found = docker(root, "logs", "--tail", "3", container.id)
    return f": {last_line(found.stderr or found.stdout)}"
