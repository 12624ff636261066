"""Replicas behind HAProxy, a plain process in its own control group: its CPU time is counted
apart, and charged.

The configuration is that of `compose/haproxy/haproxy.cfg` without what only containers need: no
resolver, and no health checks, whose CPU time would be the replicas' and whose limits would take a
starved replica out. No health check removes a replica here. Connections to the replicas are kept:
they are opened in the users' own network namespace, where rule V7 counts openings.
"""

import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from loadlab.target.cgroup import Limits
from loadlab.target.process import Command, free_port, running
from loadlab.target.programs import clean_environment
from loadlab.target.serving import BackendFailed, Serving

MISSING = (
    "replicas need HAProxy as their balancer, and there is no `haproxy` here: "
    "`apt-get install haproxy` installs it"
)
_READY = "/health"
_WAIT_S = 5.0
_GLOBAL = """global
    # It is held to the server's CPUs: more threads would only take turns there.
    nbthread 1
    maxconn {users}
    # In http mode a few connections to the replicas serve all users: no two files for each user.
    no strict-limits
    # Most of its open files are users' connections: by default it would keep no connection to a
    # replica for the next request, and open one for each.
    tune.pool-low-fd-ratio 95
    tune.pool-high-fd-ratio 95
    stats socket {control} mode 600 level admin

defaults
    timeout connect 5s
    timeout client 65s
    timeout server 65s            # a server that is slow shall be seen as slow
    timeout queue 65s
"""
_HTTP = """
frontend door
    mode http
    timeout http-request 10s
    timeout http-keep-alive 65s
    bind 127.0.0.1:{port} backlog 4096
    option http-buffer-request
    default_backend replicas

backend replicas
    mode http
    balance leastconn
    http-reuse always
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response 503
    # Connections that a burst opened are kept: by default half of them are closed every 5 s, and
    # the next burst opens them again.
    default-server pool-purge-delay 10m
"""
_TCP = """
frontend door
    mode tcp
    bind 127.0.0.1:{port} backlog 4096
    default_backend replicas

backend replicas
    mode tcp
    balance roundrobin
"""


def missing() -> str:
    """Why there can be no balancer here, or nothing."""
    return "" if shutil.which("haproxy") else MISSING


@contextmanager
def behind(
    replicas: Serving,
    mode: Literal["http", "tcp"],
    *,
    users: int,
    late: bool,
    scratch: Path,
    cpus: str,
) -> Iterator[Serving]:
    """Put HAProxy before replicas that run; it ends with this context.

    Args:
        replicas: as a backend started them.
        mode: what is dealt out.
        users: how many connections it shall take.
        late: the last replica gets nothing until `Serving.settled` is called, as one that is added
            under load.
        scratch: for the configuration and the control socket.
        cpus: CPUs that it is held to, as `taskset` takes them: the server's.

    Raises:
        BackendFailed: HAProxy is not installed.
        process.CannotStart: HAProxy does not start.
    """
    if reason := missing():
        raise BackendFailed(reason)
    port, control, file = free_port(), scratch / "haproxy.sock", scratch / "haproxy.cfg"
    file.write_text(
        configuration(mode, replicas.addresses, port=port, control=control, users=users, late=late)
    )
    command = Command(["haproxy", "-db", "-f", str(file)], clean_environment(), scratch, _READY)
    with running("balancer", command, port=port, limits=Limits(), cpus=cpus) as balancer:

        def ended() -> str:
            code = balancer.process.poll()
            return replicas.ended() or (
                f"the balancer ended with {code}: {balancer.last_words()}"
                if code is not None
                else ""
            )

        yield replace(
            replicas,
            addresses=[("127.0.0.1", port)],
            balancer=balancer.group,
            balancer_pid=balancer.process.pid,
            ended=ended,
            settled=_admit(control, len(replicas.addresses)) if late else lambda: None,
            details={
                **replicas.details,
                "balancer": (
                    f"haproxy, mode {mode}, in a control group of its own; its CPU time is charged"
                ),
            },
        )


def configuration(
    mode: Literal["http", "tcp"],
    addresses: Sequence[tuple[str, int]],
    *,
    port: int,
    control: Path,
    users: int,
    late: bool,
) -> str:
    """HAProxy's configuration; see `behind`."""
    spare = 256  # the witness, and those who ask before the run
    servers = [
        f"    server replica{number} {host}:{port_}"
        for number, (host, port_) in enumerate(addresses, 1)
    ]
    if late:
        servers[-1] += " disabled"
    doors = (_HTTP if mode == "http" else _TCP).format(port=port)
    return _GLOBAL.format(users=users + spare, control=control) + doors + "\n".join(servers) + "\n"


def _admit(control: Path, number: int) -> Callable[[], None]:
    """Let the last replica take part."""

    def admit() -> None:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_WAIT_S)
            door.connect(str(control))
            door.sendall(f"set server replicas/replica{number} state ready\n".encode())
            said = door.recv(1000).decode().strip()
        if said:
            raise BackendFailed(f"the balancer did not admit replica {number}: {said}")

    return admit
