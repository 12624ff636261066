"""Containers: `docker compose --profile TIER up`, limits read back from the containers' control groups."""

import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loadlab import cgroup, tiers
from loadlab.backends.docker import ASK_S, Container, docker, last_line
from loadlab.backends.serving import BackendFailed, Serving
from loadlab.client.answer import ask
from loadlab.process import CannotStart, free_port
from loadlab.tiers import Tier

_UP_S, _DOWN_S = 180, 60
_READY_S, _POLL_S, _OK = 120.0, 0.1, 200
_PORT, _BUNDLES, _DEFAULT_MODEL = 8000, "/bundles", "iris"
"""Of the image."""
_NOFILE = 65536


def missing(tier: Tier, root: Path) -> str:
    """Why there can be no containers of this tier here, or nothing."""
    if not shutil.which("docker"):
        return "docker is not installed"
    if docker(root, "info", "--format", "{{.ServerVersion}}").returncode:
        return "the Docker engine does not answer"
    if docker(root, "compose", "version").returncode:
        return "docker has no compose plugin"
    if docker(root, "image", "inspect", tier.image).returncode:
        return f"the image {tier.image} is not here"
    return ""


@contextmanager
def serving(tier: Tier, model: str, root: Path) -> Iterator[Serving]:
    """Start a tier as users do, in a project of its own; it is taken down with this context.

    Users connect to the container's address, not to the published port: that goes through a process of Docker's.

    Args:
        tier: service and profile.
        model: of the image's models.
        root: the checkout.

    Raises:
        BackendFailed: Docker refused, or the image has no such model.
        process.CannotStart: the server is not ready in its limits.
    """
    project = ["compose", "--project-name", f"halfcore-load-{os.getpid()}", "--file", str(root / tiers.FILE), "--profile", tier.name]
    try:
        up = docker(root, *project, "up", "--detach", "--no-build", timeout_s=_UP_S, environment=_environment())
        if up.returncode:
            raise CannotStart(f"{tier.name}: {last_line(up.stderr)}{_said(root, project, tier)}")
        containers = [Container.of(root, each) for each in _ids(root, project, tier.name)]
        doors = [Container.of(root, each) for each in _ids(root, project, "balancer")] or containers
        for each in {*containers, *doors}:
            _await_ready(each, lambda: _said(root, project, tier))
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
        docker(root, *project, "down", "--timeout", "10", "--volumes", timeout_s=_DOWN_S, environment=_environment())


def _await_ready(container: Container, said: Callable[[], str]) -> None:
    """Ask until it is ready: the health check of the compose file is put off, for each costs CPU time of the tier."""
    request = f"GET /health/ready HTTP/1.1\r\nhost: {container.address}\r\nconnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if why := container.ended():
            raise CannotStart(f"{why}{said()}")
        with suppress(OSError, ValueError):
            if ask(container.address, _PORT, request, timeout_s=5.0)[0] == _OK:
                return
        time.sleep(_POLL_S)
    raise CannotStart(f"not ready after {_READY_S:.0f} s{said()}")


def _environment() -> dict[str, str]:
    """A published port that is free, a health check that stays out of the measurement, and no more open files than may be had."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _NOFILE if hard == resource.RLIM_INFINITY else min(hard, _NOFILE)
    return {"PORT": str(free_port()), "HEALTH_INTERVAL": "24h", "NOFILE": str(files)}


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
        found = [files.extractfile(each) for each in files.getmembers() if each.name.endswith("/manifest.json")]
        manifests: list[dict[str, Any]] = [json.load(each) for each in found if each]
    if not manifests:
        raise BackendFailed(f"model={model}: the image has no bundle of it")
    return max(manifests, key=lambda each: str(each["created_at"]))


def _said(root: Path, project: list[str], tier: Tier) -> str:
    """The server's last line."""
    told = docker(root, *project, "logs", "--no-log-prefix", "--tail", "3", tier.name, environment=_environment())
    return f": {last_line(told.stdout)}" if told.stdout.strip() else ""
