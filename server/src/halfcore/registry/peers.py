"""Messages between the workers of one server, which request a reload: datagrams between sockets in
the directory that the workers share."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from halfcore.log import logger, reason_of

_LONGEST = 4096
"""Largest message in bytes; a model's name is far shorter."""
_SUFFIX = ".reload"


class Peers:
    """The other workers of this server.

    Args:
        shared: the directory; None if there is only one worker, and then nothing is sent.
    """

    def __init__(self, shared: Path | None) -> None:
        self._shared = shared
        self._socket: socket.socket | None = None
        self._own = Path()

    def start(self, receive: Callable[[str], None]) -> None:
        """Listen on the running loop, and call `receive` with each message; it must neither block
        nor raise."""
        if self._shared is None:
            return
        self._own = self._shared / f"{os.getpid()}{_SUFFIX}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.setblocking(False)
        try:
            listener.bind(str(self._own))
        except OSError as error:  # for example, a path of more than 107 bytes
            listener.close()
            logger.warning(
                "cannot send reloads to the other workers, which notice a change at their next "
                "poll: %s",
                reason_of(error),
            )
            return
        self._socket = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._read, listener, receive)

    def send(self, message: str) -> None:
        """Send a message to the other workers without waiting; skips those that died."""
        if self._shared is None or self._socket is None:
            return
        for other in self._shared.glob(f"*{_SUFFIX}"):
            if other != self._own:
                with suppress(OSError):
                    self._socket.sendto(message.encode(), str(other))

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._own.unlink(missing_ok=True)

    @staticmethod
    def _read(listener: socket.socket, receive: Callable[[str], None]) -> None:
        with suppress(BlockingIOError):
            while True:
                receive(listener.recv(_LONGEST).decode(errors="replace"))
