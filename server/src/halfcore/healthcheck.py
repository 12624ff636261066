"""`python -m halfcore.healthcheck`: checks whether the server of this container is ready. Exit code
0 or 1, for images without curl and shell.

It imports a socket and no more: on a tenth of a core every import slows the server in the same
container, and http.client doubles the CPU time (36 ms against 16 on the machine of
docs/benchmarks.md).
"""

import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 10.0
"""Long, because a server that has spent its quota answers late but is healthy."""
ADDRESS_FILE = "HALFCORE_ADDRESS_FILE"
"""Names the file to which the server writes the address that it listens on: a command-line flag
takes precedence over the environment."""
# Nothing listens here
_LOOPBACK = {"0.0.0.0": ["127.0.0.1"], "::": ["::1", "127.0.0.1"]}  # noqa: S104
"""Where to reach a server that listens on every address; a container without IPv6 has no ::1, even
if the server listens on `::`."""


def write_address(file: str, host: str, port: int, *, tls: bool = False) -> None:
    """Write the server's address for `address`, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    staging = f"{file}.{os.getpid()}"
    # Importing pathlib takes longer than this check
    with open(staging, "w", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write(f"{port} {host}{' tls' * tls}\n")
    os.replace(staging, file)  # noqa: PTH105  as above


def address(environ: "Mapping[str, str]") -> tuple[str, int, bool]:
    """Host and port of the server, and whether it speaks TLS: as it wrote them to its file,
    otherwise those of its environment variables.

    Raises:
        ValueError: HALFCORE_PORT is not a number.
    """
    try:
        file = environ.get(ADDRESS_FILE) or os.devnull
        with open(file, encoding="utf-8") as stream:  # noqa: PTH123  as above
            found = stream.read().split()
    except OSError:
        found = []
    tls = "tls" in found[2:] if found else bool(environ.get("HALFCORE_TLS_CERTIFICATE"))
    port = found[0] if found else environ.get("HALFCORE_PORT", "8000")
    host = found[1] if len(found) > 1 else environ.get("HALFCORE_HOST", "127.0.0.1")
    return host, int(port), tls


def url(host: str, port: int) -> str:
    """`HOST:PORT` for a URL or a Host header; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ready(host: str, port: int, *, tls: bool = False) -> bool:
    """Whether `/health/ready` answers 200.

    Raises:
        OSError: no server listens there, or it did not answer in time.
    """
    request = f"GET /health/ready HTTP/1.1\r\nHost: {url(host, port)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as plain:
        connection = _with_tls(plain) if tls else plain
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.readline().split(b" ", 2)[1:2] == [b"200"]


def _with_tls(plain: socket.socket) -> socket.socket:
    """The connection with TLS. The certificate is not checked: it names the server's public name,
    and this is its own container."""
    import ssl  # late: it takes longer than the rest of this check

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def main() -> int:
    """Check this container's server; returns the exit code."""
    try:
        host, port, tls = address(os.environ)
    except ValueError as error:
        sys.stderr.write(f"HALFCORE_PORT: {error}\n")
        return 1
    for asked in _LOOPBACK.get(host, [host]):
        try:
            if ready(asked, port, tls=tls):
                return 0
            sys.stderr.write(f"{url(asked, port)} is not ready; GET /health says why\n")
        except OSError as error:
            sys.stderr.write(f"{url(asked, port)} cannot be reached: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
