"""Replicas behind HAProxy, a plain process in its own control group: its CPU time is counted
apart, and charged.

No health check removes a replica here; `haproxy.cfg` says why. Connections to the replicas are
kept: they are opened in the users' own network namespace, where rule V7 counts openings.
"""

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from loadlab.record.cgroup import Limits
from loadlab.target.process import Command, free_port, running
from loadlab.target.programs import clean_environment
from loadlab.target.serving import Asked, BackendFailed, Serving

_READY = "/health"
_WAIT_S = 5.0
_SPARE = 256
"""Connections of the witness, and of those who ask before the run."""


def missing() -> str:
    """Why there can be no balancer here, or nothing."""
    if shutil.which("haproxy"):
        return ""
    without = "replicas need HAProxy as their balancer, and there is no `haproxy` here"
    return f"{without}: `apt-get install haproxy` installs it"


@contextmanager
def behind(replicas: Serving, order: Asked, *, scratch: Path, cpus: str) -> Iterator[Serving]:
    """Put HAProxy before replicas that run, held to `cpus` as they are; it ends with this context.

    The last replica of an order that says so (`late`) gets nothing until `Serving.settled` is
    called, as one that is added under load. Raises `process.CannotStart`.
    """
    port, control, file = free_port(), scratch / "haproxy.sock", scratch / "haproxy.cfg"
    file.write_text(configuration(order, replicas.addresses, port=port, control=control))
    command = Command(["haproxy", "-db", "-f", str(file)], clean_environment(), scratch, _READY)
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
    files = "haproxy.cfg", f"haproxy-{order.balancer}.cfg"
    text = "".join(Path(__file__).with_name(name).read_text() for name in files)
    servers = [
        f"    server replica{number} {host}:{port_}"
        for number, (host, port_) in enumerate(addresses, 1)
    ]
    late = " disabled" if order.late else ""
    filled = text.format(connections=order.users + _SPARE, control=control, port=port)
    return filled + "\n".join(servers) + late + "\n"


def _admit(control: Path, number: int) -> None:
    """Let the last replica take part."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_WAIT_S)
        door.connect(str(control))
        door.sendall(f"set server replicas/replica{number} state ready\n".encode())
        said = door.recv(1000).decode().strip()
    if said:
        raise BackendFailed(f"the balancer did not admit replica {number}: {said}")
