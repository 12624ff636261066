"""One lab at a time on a machine: two would measure each other.

The lock is an abstract Unix socket. It belongs to the machine and not to a checkout or a user, has
no file whose owner or mode could be in the way, and ends with its process, however that ends.
Containers with a network of their own do not see one another's.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

NAME = "LOADLAB_LOCK"
"""Variable of the environment with another name of the lock, so that tests can run at the same
time."""
_DEFAULT_NAME = "halfcore-loadlab"
_PEER = struct.Struct("3i")
"""Process, user and group, as `SO_PEERCRED` gives them."""


class Busy(RuntimeError):
    """Another lab runs on this machine; the message names it."""


@contextmanager
def alone() -> Iterator[None]:
    """Hold the machine's only place for a lab; raises `Busy` with the holder."""
    address = f"\0{os.environ.get(NAME) or _DEFAULT_NAME}"
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Busy(
                f"another run of the load lab is active on this machine{_holder(address)}. Two "
                "would measure each other: wait until it has ended, or end it"
            ) from None
        held.listen()  # a connection to it says who holds it
        yield


def _holder(address: str) -> str:
    """Who holds the lock, as far as this process may know: another user's folder is hidden, and in
    another container the process is."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:  # it has just ended, or very many have asked
            return ""
    pid, *_ = _PEER.unpack(credentials)
    if not pid:
        return ", in another container"
    facts = [f"process {pid}"]
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with suppress(psutil.Error):
            facts.append(f"`{_typed(process.cmdline())}`")
        facts.append(f"in {process.cwd()}")
    return f": {', '.join(facts)}"


def _typed(words: list[str]) -> str:
    """A command line, as far as it can be without the interpreter."""
    names = [Path(word).name for word in words]
    if "loadlab" in names:
        words = ["loadlab", *words[names.index("loadlab") + 1 :]]
    return " ".join(words)
