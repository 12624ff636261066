"""A real HAProxy in front of servers, as compose/haproxy has it: Debian's package is `haproxy`."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.serving import free_port

CONFIG = """
global
    stats socket {folder}/control mode 600 level admin
defaults
    mode http
    timeout client 65s
    timeout http-keep-alive 65s
    timeout http-request 10s
    timeout connect 1s
    timeout queue 5s
    timeout server {server_timeout}
frontend door
    bind 127.0.0.1:{port}
    option http-buffer-request
    default_backend replicas
backend replicas
    balance leastconn
    http-reuse always
    option httpchk
    http-check send meth GET uri /health/ready hdr Host halfcore
    timeout check 2s
    {retries}
    default-server check inter 300ms fastinter 100ms downinter 100ms fall 2 rise 1
{servers}
"""
"""The checks are more frequent than in compose/haproxy: a proof drains a hundred times."""


def missing() -> bool:
    """Whether HAProxy is not installed."""
    return shutil.which("haproxy") is None


@dataclass
class Balancer:
    """A running HAProxy."""

    port: int
    control: Path

    def up(self) -> list[bool]:
        """Which of the servers get requests."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.control))
            connection.sendall(b"show stat\n")
            text = b""
            while chunk := connection.recv(65536):
                text += chunk
        rows = [line.split(",") for line in text.decode().splitlines()]
        return [
            row[17].startswith("UP") for row in rows if row[0] == "replicas" and row[1][0] == "s"
        ]

    def until(self, up: Sequence[bool], *, timeout_s: float = 60.0) -> None:
        """Wait until exactly these servers get requests."""
        deadline = time.monotonic() + timeout_s
        while (found := self.up()) != list(up):
            assert time.monotonic() < deadline, f"{found}, expected {list(up)}"
            time.sleep(0.02)


@contextmanager
def balancing(
    folder: Path, ports: Sequence[int], *, retries: bool = False, server_timeout: str = "65s"
) -> Iterator[Balancer]:
    """HAProxy in front of servers on these ports, until the block ends.

    Args:
        folder: for its files.
        ports: of the servers, on loopback.
        retries: whether it asks another server if one did not answer, as compose/haproxy does.
        server_timeout: as HAProxy writes it.
    """
    port = free_port()
    again = "retries 3\n    option redispatch 1\n    retry-on conn-failure empty-response 503"
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIG.format(
            folder=folder,
            port=port,
            server_timeout=server_timeout,
            retries=again if retries else "retries 0",
            servers="\n".join(
                f"    server s{number} 127.0.0.1:{one}" for number, one in enumerate(ports)
            ),
        )
    )
    process = subprocess.Popen(["haproxy", "-db", "-f", file], stderr=subprocess.DEVNULL)
    try:
        balancer = Balancer(port, folder / "control")
        _await(balancer, process)
        yield balancer
    finally:
        process.kill()
        process.wait(30)


def _await(balancer: Balancer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            balancer.up()
        except OSError:
            assert process.poll() is None, "haproxy ended; see its configuration"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
