"""Which backend a run uses, and starting it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from loadlab import cgroup
from loadlab.backends import cgroup as cgroup_backend
from loadlab.backends import compose, given, rival
from loadlab.backends.serving import BackendFailed, Serving
from loadlab.run.arguments import Order, address

Backend = Literal["cgroup", "compose", "given"]


def choose(order: Order, root: Path) -> tuple[Backend, str]:
    """The backend asked for, or the one that works here, containers first; with the reason. Raises `BackendFailed` if it does not."""
    if order.target:
        return "given", "target= names a server that runs already"
    no_containers = compose.missing(order.tier, root) if order.backend in {"auto", "compose"} else "not asked for"
    if order.backend == "compose" and no_containers:
        raise BackendFailed(f"backend=compose: {no_containers}")
    if not no_containers:
        return "compose", "Docker and the image are there"
    try:
        cgroup.version()
    except cgroup.Unavailable as error:
        raise BackendFailed(f"backend=cgroup: {error}" if order.backend == "cgroup" else f"no backend: {no_containers}; {error}") from None
    return "cgroup", no_containers if order.backend == "auto" else "as asked"


def starting(backend: Backend, order: Order, root: Path, *, bundles: Path, scratch: Path, cpus: str) -> AbstractContextManager[Serving]:
    """A fresh server in the tier's limits; see the backends for what it raises."""
    if backend == "given":
        return given.serving(*address(order.target))
    if order.service != "halfcore":
        return rival.serving(order.tier, order.model, order.service, root, bundles=bundles, scratch=scratch, cpus=cpus)
    if backend == "compose":
        return compose.serving(order.tier, order.model, root)
    return cgroup_backend.serving(order.tier, order.model, bundles=bundles, scratch=scratch, cpus=cpus)
