"""Which backend a run uses, and starting it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from loadlab.target import cgroup, containers, haproxy, processes
from loadlab.target.serving import Asked, BackendFailed, Serving

Backend = Literal["cgroup", "compose", "given"]


def choose(order: Asked, root: Path) -> tuple[Backend, str]:
    """The backend asked for, or the one that works here, containers first; with the reason. Raises
    `BackendFailed` if it does not."""
    if order.target:
        return "given", "target= names a server that runs already"
    if order.balancer != "none" and (reason := haproxy.missing()):
        raise BackendFailed(f"balancer={order.balancer}: {reason}")
    tried = order.backend != "cgroup" and order.balancer == "none"
    why_not = containers.no_container(root, order.tier.image) if tried else "not asked for"
    if not why_not:
        return "compose", "Docker and the image are there"
    if order.backend == "compose":
        raise BackendFailed(f"backend=compose: {why_not}")
    try:
        cgroup.version()
    except cgroup.Unavailable as error:
        asked = "backend=cgroup: " if order.backend == "cgroup" else f"no backend: {why_not}; "
        raise BackendFailed(f"{asked}{error}") from None
    return "cgroup", why_not if tried else "as asked"


def starting(
    backend: Backend, order: Asked, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> AbstractContextManager[Serving]:
    """A fresh server in the tier's limits; see the backends for what it raises."""
    if backend == "given":
        return nullcontext(processes.given(order.target))
    if order.service == "image":
        return containers.image(order, root, bundles=bundles, scratch=scratch, cpus=cpus)
    if backend == "compose":
        return containers.compose(order.tier, order.model, root)
    started = processes.serving(order, root, bundles=bundles, scratch=scratch, cpus=cpus)
    return started if order.balancer == "none" else _balanced(started, order, scratch, cpus)


@contextmanager
def _balanced(
    started: AbstractContextManager[Serving], order: Asked, scratch: Path, cpus: str
) -> Iterator[Serving]:
    with started as replicas, haproxy.behind(replicas, order, scratch=scratch, cpus=cpus) as served:
        yield served
