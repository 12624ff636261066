"""`python -m halfcore.healthcheck`: is the server of this container ready? Exit code 0 or 1, for images without curl and shell.

A socket and nothing else: on a tenth of a core every import is felt by the server beside it, and http.client doubles the CPU time (36 ms
against 16 on the machine of docs/benchmarks.md).
"""

import os
import socket
import sys

TIMEOUT_S = 10.0
"""Long, for a server that has used up its quota answers late and is not ill."""


def ready(host: str, port: int) -> bool:
    """Whether `/health/ready` answers 200.

    Raises:
        OSError: nobody listens, or nothing came in time.
    """
    request = f"GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.readline().split(b" ", 2)[1:2] == [b"200"]


def main() -> int:
    """Ask the server that this environment configures; an address that means all is asked over loopback."""
    host = os.environ.get("HALFCORE_HOST", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  nobody listens here
    try:
        return 0 if ready(host, int(os.environ.get("HALFCORE_PORT", "8000"))) else 1
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
