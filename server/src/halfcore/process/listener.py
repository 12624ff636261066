"""The kernel's side of this process's listening sockets, which granian keeps to itself: they are
found among the open files.

A listener that is closed resets the connections that wait to be accepted, and their requests are
lost. So new connections are kept out first, by a filter that drops their first packet, and those
that wait are accepted. A client whose packet was dropped sends it again after a second, and is
refused then, because the listener is closed.
"""

import ctypes
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

_SO_ATTACH_FILTER = 26
_TCP_INFO_BYTES = 104
_WAITING_AT = 24
"""Where a listener's `tcp_info` has the number of connections that wait (tcpi_unacked)."""
_FILTER = (
    (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone is a new connection:
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # anything else belongs to one that exists
)
"""A classic BPF program: code, jump if true, jump if false, value."""


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


def listeners(port: int) -> list[socket.socket]:
    """This process's listening sockets on a port, as duplicates: the listener stays open until they
    are closed, too."""
    return [found for number in open_sockets() if (found := duplicate(number, port)) is not None]


def numbers(port: int) -> list[int]:
    """The descriptors of this process's listening sockets on a port."""
    found = []
    for number in open_sockets():
        if (one := duplicate(number, port)) is not None:
            one.close()
            found.append(number)
    return found


def duplicate(number: int, port: int) -> socket.socket | None:
    """A duplicate of a descriptor that is a listening socket on a port; None if it is not."""
    with suppress(OSError):  # closed meanwhile
        copy = socket.socket(fileno=os.dup(number))
        if _listens(copy, port):
            return copy
        copy.close()
    return None


def open_sockets() -> list[int]:
    """The descriptors of this process's sockets."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                found.append(int(entry.name))
    return found


def _listens(one: socket.socket, port: int) -> bool:
    return (
        one.family in (socket.AF_INET, socket.AF_INET6)
        and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and one.getsockname()[1] == port
    )


def keep_out(listener: socket.socket) -> None:
    """Accept no connection that begins from now on; those that have begun are not affected.

    Raises:
        OSError: this system has no such filters.
    """
    program = (_Instruction * len(_FILTER))(*(_Instruction(*step) for step in _FILTER))
    pointer = struct.pack("HP", len(_FILTER), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted."""
    information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    number: int = struct.unpack_from("I", information, _WAITING_AT)[0]
    return number
