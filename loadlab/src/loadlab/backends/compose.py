"""Containers: `docker compose --profile TIER up`, limits read back from the containers' control
groups."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadlab import cgroup, tiers
from loadlab.backends.docker import ASK_S, Container, await_answer, docker, last_line, no_container
from loadlab.backends.serving import BackendFailed, Serving
from loadlab.process import CannotStart, free_port
from loadlab.tiers import Tier

_UP_S, _DOWN_S = 180, 60
_READY_S, _OK = 120.0, 200
_PORT, _BUNDLES, _DEFAULT_MODEL = 8000, "/bundles", "iris"
"""Of the image."""


def missing(tier: Tier, root: Path) -> str:
    """Why there can be no containers of this tier here, or nothing."""
    if reason := no_container(root, tier.image):
        return reason
    if docker(root, "compose", "version").returncode:
        return "docker has no compose plugin"
    return ""


@contextmanager
def serving(tier: Tier, model: str, root: Path) -> Iterator[Serving]:
    """Start a tier as users do, in a project of its own; it is taken down with this context.

    Users connect to the container's address, not to the published port: that goes through a process
    of Docker's.

    Args:
        tier: service and profile.
        model: of the image's models.
        root: the checkout.

    Raises:
        BackendFailed: Docker refused, or the image has no such model.
        process.CannotStart: the server is not ready in its limits.
    """
    project = [
        "compose",
        "--project-name",
        f"halfcore-load-{os.getpid()}",
        "--file",
        str(root / tiers.FILE),
        "--profile",
        tier.name,
    ]
    try:
        up = docker(
            root,
            *project,
            "up",
            "--detach",
            "--no-build",
            timeout_s=_UP_S,
            environment=_environment(),
        )
        if up.returncode:
            raise CannotStart(f"{tier.name}: {last_line(up.stderr)}{_said(root, project, tier)}")
        containers = [Container.of(root, each) for each in _ids(root, project, tier.name)]
        doors = [Container.of(root, each) for each in _ids(root, project, "balancer")] or containers
        for each in {*containers, *doors}:
            # Asked here: the health check of the compose file is put off, for each costs CPU time
            # of the tier.
            await_answer(
                each,
                _PORT,
                "/health/ready",
                good=lambda status: status == _OK,
                ready_s=_READY_S,
                said=lambda: _said(root, project, tier),
            )
        yield Serving(
            addresses=[(door.address, _PORT) for door in doors],
            groups=[cgroup.of_process(each.pid) for each in containers],
            pids=[each.pid for each in containers],
            ended=lambda: next((why for each in containers if (why := each.ended())), ""),
            network_pid=doors[0].pid,
            manifest=_manifest(root, containers[0].id, model),
            path="/predict" if model == _DEFAULT_MODEL else f"/models/{model}/predict",
            details={
                "image": tier.image,
                "image_id": containers[0].image,
                "balancer": "haproxy, in limits of its own" if doors is not containers else "none",
            },
        )
    finally:
        docker(
            root,
            *project,
            "down",
            "--timeout",
            "10",
            "--volumes",
            timeout_s=_DOWN_S,
            environment=_environment(),
        )


def _environment() -> dict[str, str]:
    """A published port that is free, a health check that stays out of the measurement, and the
    model that the image has as its default."""
    return {
        "PORT": str(free_port()),
        "HEALTH_INTERVAL": "24h",
        "MODEL_NAME": "",
        "HALFCORE_DEFAULT_MODEL": "",
    }


def _ids(root: Path, project: list[str], service: str) -> list[str]:
    listed = docker(root, *project, "ps", "--quiet", service, environment=_environment())
    return listed.stdout.split() if not listed.returncode else []


def _manifest(root: Path, container: str, model: str) -> dict[str, Any]:
    """Of the newest bundle of a model in the image."""
    packed = subprocess.run(  # noqa: S603  our own words
        ["docker", "cp", f"{container}:{_BUNDLES}/{model}", "-"],  # noqa: S607
        capture_output=True,
        check=False,
        timeout=ASK_S,
        cwd=root,
    )
    if packed.returncode:
        raise BackendFailed(f"model={model}: the image has no such model")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        found = [
            files.extractfile(each)
            for each in files.getmembers()
            if each.name.endswith("/manifest.json")
        ]
        manifests: list[dict[str, Any]] = [json.load(each) for each in found if each]
    if not manifests:
        raise BackendFailed(f"model={model}: the image has no bundle of it")
    return max(manifests, key=lambda each: str(each["created_at"]))


def _said(root: Path, project: list[str], tier: Tier) -> str:
    """The server's last line."""
    logs = docker(
        root,
        *project,
        "logs",
        "--no-log-prefix",
        "--tail",
        "3",
        tier.name,
        environment=_environment(),
    )
    return f": {last_line(logs.stdout)}" if logs.stdout.strip() else ""
