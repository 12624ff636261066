"""Which backend a run uses, and starting it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from loadlab.run.order import Order, address
from loadlab.target import baseline, cgroup, compose, given, haproxy, image
from loadlab.target import processes as cgroup_backend
from loadlab.target.serving import BackendFailed, Serving

Backend = Literal["cgroup", "compose", "given"]


def choose(order: Order, root: Path) -> tuple[Backend, str]:
    """The backend asked for, or the one that works here, containers first; with the reason. Raises
    `BackendFailed` if it does not."""
    if order.target:
        return "given", "target= names a server that runs already"
    if order.balancer != "none" and (reason := haproxy.missing()):
        raise BackendFailed(f"balancer={order.balancer}: {reason}")
    containers_too = order.backend in {"auto", "compose"} and order.balancer == "none"
    no_containers = compose.missing(order.tier, root) if containers_too else "not asked for"
    if order.backend == "compose" and no_containers:
        raise BackendFailed(f"backend=compose: {no_containers}")
    if not no_containers:
        return "compose", "Docker and the image are there"
    try:
        cgroup.version()
    except cgroup.Unavailable as error:
        raise BackendFailed(
            f"backend=cgroup: {error}"
            if order.backend == "cgroup"
            else f"no backend: {no_containers}; {error}"
        ) from None
    return (
        "cgroup",
        no_containers if order.backend == "auto" and order.balancer == "none" else "as asked",
    )


def starting(
    backend: Backend, order: Order, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> AbstractContextManager[Serving]:
    """A fresh server in the tier's limits; see the backends for what it raises."""
    if backend == "given":
        return given.serving(*address(order.target))
    if order.service == "image":
        return image.serving(order, root, bundles=bundles, scratch=scratch, cpus=cpus)
    if backend == "compose":
        return compose.serving(order.tier, order.model, root)
    return _processes(order, root, bundles=bundles, scratch=scratch, cpus=cpus)


@contextmanager
def _processes(
    order: Order, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Replicas of ours or of a baseline, behind the balancer that was asked for."""
    with ExitStack() as stack:
        if order.service == "halfcore":
            started = cgroup_backend.serving(
                order.tier, order.model, bundles=bundles, scratch=scratch, cpus=cpus
            )
        else:
            started = baseline.serving(order, root, bundles=bundles, scratch=scratch, cpus=cpus)
        serving = stack.enter_context(started)
        if order.balancer != "none":
            door = haproxy.behind(
                serving,
                order.balancer,
                users=order.users,
                late=order.late,
                scratch=scratch,
                cpus=cpus,
            )
            serving = stack.enter_context(door)
        yield serving
