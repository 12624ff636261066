"""Which backend a run uses, and starting it; with HAProxy before replicas that are processes.

HAProxy is a plain process in its own control group: its CPU time is counted apart, and charged. No
health check removes a replica here; `haproxy.cfg.j2` says why. Connections to the replicas are
kept: they are opened in the users' own network namespace, where rule V7 counts openings.
"""

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from jinja2 import StrictUndefined, Template

from loadlab.record import cgroup
from loadlab.record.cgroup import Limits
from loadlab.record.schema import Backend
from loadlab.target import containers, programs
from loadlab.target.process import Command, free_port, running, try_groups
from loadlab.target.serving import Asked, BackendFailed, Serving

_WAIT_S = 5.0
_SPARE = 256
"""Connections of the witness, and of those who ask before the run."""


def choose(order: Asked, root: Path) -> tuple[Backend, str]:
    """The backend asked for, or the one that works here, containers first; with the reason. Raises
    `BackendFailed` if it does not."""
    if order.target:
        if why := programs.no_server(order.target):
            raise BackendFailed(f"target={order.target}: {why}: start the server, or correct it")
        return "given", "target= names a server that runs already"
    if order.balancer != "none" and (reason := no_haproxy()):
        raise BackendFailed(f"balancer={order.balancer}: {reason}")
    tried = order.backend != "cgroup" and order.balancer == "none"
    why_not = containers.no_container(root, order.tier.image) if tried else "not asked for"
    if not why_not:
        return "compose", "Docker and the image are there"
    if order.backend == "compose":
        raise BackendFailed(f"backend=compose: {why_not}")
    try:
        try_groups()
    except cgroup.Unavailable as error:
        asked = "backend=cgroup: " if order.backend == "cgroup" else f"no backend: {why_not}; "
        raise BackendFailed(f"{asked}{error}") from None
    return "cgroup", why_not if tried else "as asked"


def no_haproxy() -> str:
    """Why there can be no balancer here, or nothing."""
    if shutil.which("haproxy"):
        return ""
    without = "replicas need HAProxy as their balancer, and there is no `haproxy` here"
    return f"{without}: `apt-get install haproxy` installs it"


def starting(
    backend: Backend, order: Asked, root: Path, *, bundles: Path, scratch: Path, cpus: str
) -> AbstractContextManager[Serving]:
    """A fresh server in the tier's limits; see the backends for what it raises."""
    if backend == "given":
        return nullcontext(programs.given(order.target, bundles, order.model))
    if order.service == "image":
        return containers.image(order, root, bundles=bundles, cpus=cpus)
    if backend == "compose":
        return containers.compose(order.tier, order.model, root)
    started = programs.serving(order, root, bundles=bundles, scratch=scratch, cpus=cpus)
    return started if order.balancer == "none" else _balanced(started, order, scratch, cpus)


@contextmanager
def _balanced(
    started: AbstractContextManager[Serving], order: Asked, scratch: Path, cpus: str
) -> Iterator[Serving]:
    """Start replicas, and HAProxy before them, held to `cpus` as they are.

    The last replica of an order that says so (`late`) gets nothing until `Serving.settled` is
    called, as one that is added under load. Raises `process.CannotStart`.
    """
    control, file = scratch / "haproxy.sock", scratch / "haproxy.cfg"
    arguments = ["haproxy", "-db", "-f", str(file)]
    command = Command(arguments, programs.clean_environment(), scratch, "/health")
    with started as replicas:
        port = free_port()
        file.write_text(configuration(order, replicas.addresses, port=port, control=control))
        with running("balancer", command, port=port, limits=Limits(), cpus=cpus) as balancer:
            admit = partial(_admit, control, len(replicas.addresses))
            what = f"haproxy, mode {order.balancer}, in a control group of its own"
            yield replace(
                replicas,
                addresses=[("127.0.0.1", port)],
                balancer=balancer.group,
                balancer_pid=balancer.process.pid,
                ended=lambda: replicas.ended() or balancer.ended("the balancer"),
                settled=admit if order.late else replicas.settled,
                details=replicas.details | {"balancer": f"{what}; its CPU time is charged"},
            )


def configuration(
    order: Asked, addresses: Sequence[tuple[str, int]], *, port: int, control: Path
) -> str:
    """HAProxy's configuration: in mode http it deals out requests, in mode tcp connections."""
    template = Path(__file__).with_name("haproxy.cfg.j2").read_text()
    filled = Template(template, keep_trailing_newline=True, undefined=StrictUndefined)
    return str(
        filled.render(
            mode=order.balancer,
            late=order.late,
            connections=order.users + _SPARE,
            addresses=addresses,
            port=port,
            control=control,
        )
    )


def _admit(control: Path, number: int) -> None:
    """Let the last replica take part."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_WAIT_S)
        door.connect(str(control))
        door.sendall(f"set server replicas/replica{number} state ready\n".encode())
        said = door.recv(1000).decode().strip()
    if said:
        raise BackendFailed(f"the balancer did not admit replica {number}: {said}")
