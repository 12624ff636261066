"""Closes the connections of clients that are slow on purpose or dead, so that a table full of them
frees itself within seconds.

granian has one timer for a request's head and for the pause between requests, and that pause must
be long (`idle_timeout_s`). So a client could hold a connection for that long with half a head. Only
while clients wait for a place, this looks at what the kernel knows of each connection, and closes
those that sent something and got no answer for longer than any request may take. Connections that
pause between requests are left alone.
"""

import asyncio
import os
import socket
import struct
from contextlib import suppress

from halfcore.log import logger
from halfcore.process import listener
from halfcore.settings.groups import Settings

ANSWER_TIMEOUT_S = 20.0
"""Seconds in which a client must take at least a part of an answer; then the kernel closes."""
SILENT_S = 5.0
"""Seconds in which a new connection must send something."""
LOOK_EVERY_S = 1.0
_TCP_INFO_BYTES = 136
_LAST_SENT_AT, _LAST_RECEIVED_AT, _BYTES_RECEIVED_AT = 44, 52, 128
"""Where `tcp_info` has the milliseconds since data was sent and since it was received, and the
number of bytes received."""
_FIRST_LOOK_S = 0.05


def longest_answer_s(settings: Settings) -> float:
    """Seconds from the first bytes of a request to its answer: its body, which may take a quarter
    more than its time, its rows' decoding, and their waiting. A run of the model is much shorter
    where anybody waits for it."""
    return 1.25 * settings.body_timeout_s + 2 * settings.queue_timeout_s


async def free_the_table(port: int, *, unanswered_s: float) -> None:
    """Watch this process's listener on a port until it is closed.

    Args:
        port: of the listener.
        unanswered_s: longest time from a request's first bytes to its answer, seconds.
    """
    number = await _listener_on(port)
    if (listening := listener.duplicate(number, port)) is not None:
        with listening:
            limit_answers(listening, ANSWER_TIMEOUT_S)
    waited = False
    while (listening := listener.duplicate(number, port)) is not None:
        with listening:
            waiting = listener.waiting(listening) > 0
        if waiting and waited:
            closed = await asyncio.to_thread(close_slow, port, unanswered_s=unanswered_s)
            if closed:
                logger.warning(
                    "closed %d connections of slow clients, because others wait for a place; raise "
                    "HALFCORE_MAX_CONNECTIONS if memory allows it",
                    closed,
                )
        waited = waiting
        await asyncio.sleep(LOOK_EVERY_S)


async def _listener_on(port: int) -> int:
    """The descriptor of this process's listener, which granian opens in its own time."""
    while True:
        if numbers := listener.numbers(port):
            return numbers[0]
        await asyncio.sleep(_FIRST_LOOK_S)


def limit_answers(listening: socket.socket, timeout_s: float) -> None:
    """Let the kernel close the connections accepted from now on whose client takes nothing of an
    answer for so long; without effect where the kernel has no such limit."""
    with suppress(OSError):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def close_slow(port: int, *, unanswered_s: float, silent_s: float = SILENT_S) -> int:
    """Close the connections of slow clients; return how many."""
    closed = 0
    for number in listener.open_sockets():
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            if _is_accepted(connection, port) and _is_slow(connection, unanswered_s, silent_s):
                connection.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _is_accepted(connection: socket.socket, port: int) -> bool:
    return (
        connection.family in (socket.AF_INET, socket.AF_INET6)
        and connection.getsockname()[1] == port
        and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _is_slow(connection: socket.socket, unanswered_s: float, silent_s: float) -> bool:
    """Whether it waits for an answer for too long, or has never sent anything."""
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    last_sent_ms, last_received_ms = (
        struct.unpack_from("I", information, at)[0] for at in (_LAST_SENT_AT, _LAST_RECEIVED_AT)
    )
    (received,) = struct.unpack_from("Q", information, _BYTES_RECEIVED_AT)
    if not received:
        return bool(last_sent_ms > silent_s * 1000)  # since it was accepted
    return bool(last_sent_ms > unanswered_s * 1000 and last_received_ms < last_sent_ms)
