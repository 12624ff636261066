"""Containers: `docker compose --profile TIER up`, limits read back from the containers' control
groups."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadlab.target import cgroup, tiers
from loadlab.target.docker import ASK_S, Container, await_answer, docker, last_line, no_container
from loadlab.target.process import CannotStart, free_port
from loadlab.target.serving import BackendFailed, Serving
from loadlab.target.tiers import Tier

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
    """Start a tier as users do, in its own compose project; it is taken down with this context.

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
    project = _project(root, tier)
    try:
        _up(root, project, tier)
        containers = [Container.of(root, each) for each in _ids(root, project, tier.name)]
        entries = [
            Container.of(root, each) for each in _ids(root, project, "balancer")
        ] or containers
        for each in {*containers, *entries}:
            _await_ready(each, lambda: _said(root, project, tier))
        yield _served(root, tier, model, containers, entries)
    finally:
        down = ["down", "--timeout", "10", "--volumes"]
        docker(root, *project, *down, timeout_s=_DOWN_S, environment=_environment())


def _project(root: Path, tier: Tier) -> list[str]:
    """The beginning of each `docker` command for this process's compose project."""
    name = f"halfcore-load-{os.getpid()}"
    file = str(root / tiers.FILE)
    return ["compose", "--project-name", name, "--file", file, "--profile", tier.name]


def _up(root: Path, project: list[str], tier: Tier) -> None:
    """Start the containers; raises `CannotStart`."""
    command = [*project, "up", "--detach", "--no-build"]
    up = docker(root, *command, timeout_s=_UP_S, environment=_environment())
    if up.returncode:
        raise CannotStart(f"{tier.name}: {last_line(up.stderr)}{_said(root, project, tier)}")


def _await_ready(container: Container, said: Callable[[], str]) -> None:
    """Ask the container itself, because the compose file's health check is put off: each check
    costs CPU time of the tier."""
    await_answer(
        container,
        _PORT,
        "/health/ready",
        good=lambda status: status == _OK,
        ready_s=_READY_S,
        said=said,
    )


def _served(
    root: Path,
    tier: Tier,
    model: str,
    containers: Sequence[Container],
    entries: Sequence[Container],
) -> Serving:
    """The running replicas; users connect to `entries`: the balancer, or the replicas."""
    return Serving(
        addresses=[(entry.address, _PORT) for entry in entries],
        groups=[cgroup.of_process(each.pid) for each in containers],
        pids=[each.pid for each in containers],
        ended=lambda: next((why for each in containers if (why := each.ended())), ""),
        network_pid=entries[0].pid,
        manifest=_manifest(root, containers[0].id, model),
        path="/predict" if model == _DEFAULT_MODEL else f"/models/{model}/predict",
        details={
            "image": tier.image,
            "image_id": containers[0].image,
            "balancer": "haproxy, in limits of its own" if entries is not containers else "none",
        },
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
    command = [*project, "logs", "--no-log-prefix", "--tail", "3", tier.name]
    logs = docker(root, *command, environment=_environment())
    return f": {last_line(logs.stdout)}" if logs.stdout.strip() else ""
