"""Non-blocking connections to a loopback server."""

import ctypes
import errno
import socket
import struct
from contextlib import suppress

_PR_SET_TIMERSLACK = 29
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""Value of SO_LINGER."""
RECEIVE_BYTES = 4096
"""Asked for at once; a prediction's answer is a fraction of it."""


def connect(host: str, port: int, *, wait_s: float | None = None) -> socket.socket:
    """Open a connection; with `wait_s` it is established on return, without it may still be on its
    way.

    Raises:
        OSError: refused, or not in time.
    """
    connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closing resets: thousands of ports in TIME_WAIT would be missing in the next round.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if wait_s is None:
            connection.setblocking(False)
            if (code := connection.connect_ex((host, port))) not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
        else:
            connection.settimeout(wait_s)
            connection.connect((host, port))
            connection.setblocking(False)
    except OSError:
        connection.close()
        raise
    return connection


def sharpen_timers() -> None:
    """Let this process sleep to the microsecond, where the kernel can: its default slack of 50 µs
    would show in every latency."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
