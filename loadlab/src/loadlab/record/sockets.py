"""How many connections there are to a port, asked of the kernel directly (sock_diag, as `ss` does):
exact, and a few milliseconds for 10,000."""

import socket
import struct

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("=2s2s16s16sIQ")
_RECEIVE_BYTES = 1 << 16


def established(port: int) -> int:
    """Established TCP connections of this network namespace whose other end is `port`; raises
    `OSError` where the kernel does not report them."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(2.0)
        return sum(_count(kernel, family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _count(kernel: socket.socket, family: int, port: int) -> int:
    which = _ID.pack(bytes(2), port.to_bytes(2, "big"), bytes(16), bytes(16), 0, (1 << 64) - 1)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _ESTABLISHED) + which
    kernel.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
    found = 0
    while True:
        data = kernel.recv(_RECEIVE_BYTES)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                raise OSError(
                    f"sock_diag: error {-struct.unpack_from('=i', data, at + _HEADER.size)[0]}"
                )
            found += kind == _BY_FAMILY
            at += (length + 3) & ~3
