"""Containers: a tier as `docker compose --profile TIER up` starts it, or a published image as the
baseline (`BASELINE_IMAGE=name just compare …`), a container per replica in the tier's limits.

Users connect to the containers' own addresses: a published port goes through a process of Docker's.
Limits are read back from the containers' control groups.
"""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadlab.bundles import newest, read_manifest
from loadlab.record import cgroup
from loadlab.record.machine import git
from loadlab.target import programs, tiers
from loadlab.target.process import CannotStart, await_ready, free_port, get
from loadlab.target.serving import Asked, BackendFailed, Serving
from loadlab.target.tiers import Tier

_PORT, _BUNDLES, _DEFAULT_MODEL = 8000, "/bundles", "iris"
"""Of our image; the port also of another image that exposes none, or several."""
_ASK_S, _UP_S, _START_S, _DOWN_S = 20.0, 180.0, 60.0, 60.0
_READY_S, _IMAGE_READY_S = 120.0, 180.0
"""A published image may take as long as a baseline's process: importing takes seconds of CPU
time."""
_OK, _NO_ERROR = range(200, 201), range(500)
"""Statuses of a server that is ready: ours, and another's, of which it is not known which of its
paths reports readiness."""
_NOFILE = 65536
_LABEL = "org.opencontainers.image"
_NO_REVISION = ("", "unknown")
"""The second is the Dockerfile's default."""
_ENVIRONMENT = {
    "HEALTH_INTERVAL": "24h",  # each check costs CPU time of the tier
    "MODEL_NAME": "",  # the model that the image has as its default
    "HALFCORE_DEFAULT_MODEL": "",
}


@dataclass(frozen=True)
class Container:
    """A container that runs, and its first process."""

    root: Path
    id: str
    pid: int
    address: str
    image: str
    labels: dict[str, str]
    """Of its image too."""

    @classmethod
    def of(cls, root: Path, container: str) -> "Container":
        """Ask the engine."""
        found = json.loads(docker(root, "inspect", container).stdout)[0]
        address = next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"]
        labels = found["Config"]["Labels"] or {}
        return cls(root, container, found["State"]["Pid"], address, found["Image"], labels)

    def ended(self) -> str:
        """Why it is no more, or nothing: its first process is gone, even if the engine has started
        another."""
        if Path(f"/proc/{self.pid}").exists():
            return ""
        found = json.loads(docker(self.root, "inspect", self.id).stdout or "[{}]")[0]
        state = found.get("State", {})
        why = "out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
        return f"the container {self.id[:12]} ended: {why}"

    def await_ready(self, port: int, path: str, good: range, timeout_s: float) -> None:
        """Ask the container itself until the status is good; raises `CannotStart` with its last
        line."""
        why = await_ready(
            lambda: get(self.address, port, path)[0] in good, self.ended, timeout_s=timeout_s
        )
        if why:
            logs = docker(self.root, "logs", "--tail", "3", self.id)
            raise CannotStart(f"{why}: {_last_line(logs.stderr or logs.stdout)}")


def no_container(root: Path, image: str) -> str:
    """Why there can be no container of an image here, or nothing."""
    if not shutil.which("docker"):
        return "docker is not installed"
    needs = {
        "info": "the Docker engine does not answer",
        f"image inspect {image}": f"the image {image} is not here",
        "compose version": "docker has no compose plugin",
    }
    asked = (why for words, why in needs.items() if docker(root, *words.split()).returncode)
    return next(asked, "")


@contextmanager
def compose(tier: Tier, model: str, root: Path) -> Iterator[Serving]:
    """Start a tier as users do, in its own compose project; it is taken down with this context.

    Raises:
        BackendFailed: Docker refused, or the image has no such model.
        process.CannotStart: the server is not ready in its limits.
    """
    project = ["--project-name", f"halfcore-load-{os.getpid()}", "--profile", tier.name]
    project += ["--file", str(root / tiers.FILE)]
    environment = _ENVIRONMENT | {"PORT": str(free_port())}

    def ask(*words: str, timeout_s: float = _ASK_S) -> subprocess.CompletedProcess[str]:
        return docker(root, "compose", *project, *words, timeout_s=timeout_s, **environment)

    def containers(service: str) -> list[Container]:
        listed = ask("ps", "--quiet", service)  # fails where the profile has no such service
        return [Container.of(root, each) for each in listed.stdout.split() if not listed.returncode]

    try:
        up = ask("up", "--detach", "--no-build", timeout_s=_UP_S)
        replicas, balancers = containers(tier.name), containers("balancer")
        if up.returncode or not replicas:
            logs = ask("logs", "--no-log-prefix", "--tail", "3", tier.name).stdout
            said = f": {_last_line(logs)}" if logs.strip() else ""
            raise CannotStart(f"{tier.name}: {_last_line(up.stderr)}{said}")
        for each in (*replicas, *balancers):
            each.await_ready(_PORT, "/health/ready", _OK, _READY_S)
        served = _serving(replicas, balancers or replicas, _PORT, tier.image)
        served.manifest = _manifest(root, replicas[0].id, model)
        served.path = "/predict" if model == _DEFAULT_MODEL else f"/models/{model}/predict"
        served.details |= _source(replicas[0].labels, root)
        served.details["balancer"] = "haproxy, in limits of its own" if balancers else "none"
        yield served
    finally:
        ask("down", "--timeout", "10", "--volumes", timeout_s=_DOWN_S)


@contextmanager
def image(order: Asked, root: Path, *, bundles: Path, cpus: str) -> Iterator[Serving]:
    """Start every replica of a published image; all are removed with this context. Arguments and
    errors are those of `programs.serving`.

    It needs the `/predict` contract and nothing else: it gets no settings, and serves the model
    that it brings. Whether that answers as the registered model does is what the run's proof on
    golden rows finds out before anything is timed.
    """
    manifest = programs.labels_only(read_manifest(programs.case(bundles, order.model).bundle))
    port, started = _exposed_port(order.image, root), list[str]()
    try:
        for _ in range(order.tier.replicas):
            # Those before one that fails must be removed too
            started.append(_start(order, root, cpus))
        replicas = [Container.of(root, each) for each in started]
        for each in replicas:
            each.await_ready(port, "/health", _NO_ERROR, _IMAGE_READY_S)
        served = _serving(replicas, replicas, port, order.image)
        served.manifest = manifest
        served.details["service"] = f"image {order.image}"
        yield served
    finally:
        for name in started:
            docker(root, "rm", "--force", "--volumes", name, timeout_s=_DOWN_S)


def docker(
    root: Path, *arguments: str, timeout_s: float = _ASK_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `docker …`; raises `BackendFailed` if it does not end in time."""
    try:
        return subprocess.run(  # noqa: S603  our own words
            ["docker", *arguments],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        raise BackendFailed(f"docker {arguments[0]} did not end within {timeout_s:.0f} s") from None


def _serving(
    replicas: Sequence[Container], entries: Sequence[Container], port: int, image: str
) -> Serving:
    """Running replicas; users connect to `entries`: the balancer, or the replicas."""
    return Serving(
        addresses=[(each.address, port) for each in entries],
        groups=[cgroup.of_process(each.pid) for each in replicas],
        pids=[each.pid for each in replicas],
        ended=lambda: next(filter(None, (each.ended() for each in replicas)), ""),
        network_pid=entries[0].pid,
        details={"image": image, "image_id": replicas[0].image},
    )


def _source(labels: dict[str, str], root: Path) -> dict[str, str]:
    """Which code is in the image by its labels, and a sentence where that is not the checkout's."""
    revision, version = (labels.get(f"{_LABEL}.{name}", "") for name in ("revision", "version"))
    found = {"image_revision": revision, "image_version": version}
    commit = git(root, "rev-parse", "HEAD")
    if revision in _NO_REVISION:
        found["image_source"] = (
            f"It is not known which code was measured: the image has no label {_LABEL}.revision; "
            "`just image` sets it."
        )
    elif revision != commit:
        found["image_source"] = (
            f"The image is of commit {revision[:12]}, the checkout of "
            f"{commit[:12] or 'an unknown one'}: the image's code was measured."
        )
    return found


def _manifest(root: Path, container: str, model: str) -> dict[str, Any]:
    """Of the newest bundle of a model in the image."""
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{container}:{_BUNDLES}/{model}"
        if docker(root, "cp", source, scratch).returncode:
            raise BackendFailed(f"model={model}: the image has no such model")
        bundles = [file.parent for file in Path(scratch).glob("*/*/manifest.json")]
        if not bundles:
            raise BackendFailed(f"model={model}: the image has no bundle of it")
        return newest(bundles)[0]


def _start(order: Asked, root: Path, cpus: str) -> str:
    limits = order.tier.limits
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # no more than may be had here
    files = _NOFILE if hard == resource.RLIM_INFINITY else min(hard, _NOFILE)
    words = {
        "memory": limits.memory_bytes,
        "memory-swap": limits.memory_bytes,
        "cpu-period": limits.period_us if limits.cpus else None,
        "cpu-quota": limits.quota_us,
        "cpuset-cpus": cpus,
        "ulimit": f"nofile={files}:{files}",
        "sysctl": "net.core.somaxconn=4096",
        "label": f"halfcore-load={os.getpid()}",
        "pull": "never",
    }
    options = [f"--{name}={value}" for name, value in words.items() if value]
    command = ["run", "--detach", "--no-healthcheck", *options, order.image]
    ran = docker(root, *command, timeout_s=_START_S)
    if ran.returncode:
        raise CannotStart(f"{order.image}: {_last_line(ran.stderr)}")
    return ran.stdout.strip()


def _exposed_port(image: str, root: Path) -> int:
    found = docker(root, "image", "inspect", "--format", "{{json .Config.ExposedPorts}}", image)
    ports = [int(name.partition("/")[0]) for name in json.loads(found.stdout or "null") or {}]
    return ports[0] if len(ports) == 1 else _PORT


def _last_line(text: str) -> str:
    """What a program said last."""
    return (text.strip().splitlines() or ["no output"])[-1].strip()
