"""`python -m halfcore.healthcheck`: is the server of this container ready? Exit code 0 or 1, for
images without curl and shell.

A socket and nothing else: on a tenth of a core every import is felt by the server beside it, and
http.client doubles the CPU time (36 ms against 16 on the machine of docs/benchmarks.md).
"""

import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 10.0
"""Long, for a server that has used up its quota answers late and is not ill."""


ADDRESS_FILE = "HALFCORE_ADDRESS_FILE"
"""Names the file in which the server leaves the address that it listens on: a command-line flag
wins over the environment."""
# Nobody listens here
_LOOPBACK = {"0.0.0.0": ["127.0.0.1"], "::": ["::1", "127.0.0.1"]}  # noqa: S104
"""Where to ask a server that listens on every address; a container without IPv6 has no ::1, though
`::` may be listened on."""


def write_address(file: str, host: str, port: int) -> None:
    """Leave the server's address for `address`, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    staging = f"{file}.{os.getpid()}"
    # Pathlib takes longer to import than this check to run
    with open(staging, "w", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write(f"{port} {host}\n")
    os.replace(staging, file)  # noqa: PTH105  as above


def address(environ: "Mapping[str, str]") -> tuple[str, int]:
    """Host and port of the server: those that it has written down, else those that its variables
    name.

    Raises:
        ValueError: HALFCORE_PORT is not a number.
    """
    try:
        # As above
        with open(environ.get(ADDRESS_FILE) or os.devnull, encoding="utf-8") as stream:  # noqa: PTH123
            port, _, host = stream.read().strip().partition(" ")
    except OSError:
        port = host = ""
    port = port or environ.get("HALFCORE_PORT", "8000")
    host = host or environ.get("HALFCORE_HOST", "127.0.0.1")
    return host, int(port)


def url(host: str, port: int) -> str:
    """`HOST:PORT` as it stands in a URL and in a Host header; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ready(host: str, port: int) -> bool:
    """Whether `/health/ready` answers 200.

    Raises:
        OSError: nobody listens, or nothing came in time.
    """
    request = f"GET /health/ready HTTP/1.1\r\nHost: {url(host, port)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.readline().split(b" ", 2)[1:2] == [b"200"]


def main() -> int:
    """Ask this container's server."""
    try:
        host, port = address(os.environ)
    except ValueError as error:
        sys.stderr.write(f"HALFCORE_PORT: {error}\n")
        return 1
    for asked in _LOOPBACK.get(host, [host]):
        try:
            if ready(asked, port):
                return 0
            sys.stderr.write(f"{url(asked, port)} is not ready; GET /health says why\n")
        except OSError as error:
            sys.stderr.write(f"{url(asked, port)} cannot be asked: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
