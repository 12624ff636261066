"""Whatever an exception is, the log says a reason."""

import asyncio
import errno
import os
from pathlib import Path

import asyncpg
import pytest

from halfcore.bundle import BundleError
from halfcore.log import reason_of
from halfcore.postgres.database import DatabaseError
from halfcore.registry.errors import Unavailable


class OddError(Exception):
    """An exception of somebody's, without a text."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "TimeoutError: no answer in time"),
        (asyncio.CancelledError(), "CancelledError: the operation was cancelled"),
        (ConnectionResetError(), "ConnectionResetError: the other side reset the connection"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
            "ConnectionRefusedError: Connect call failed",
        ),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/no"),
            "FileNotFoundError: No such file or directory: /no",
        ),
        (OSError("a text alone"), "OSError: a text alone"),
        (MemoryError(), "MemoryError: out of memory"),
        (KeyError("x"), "KeyError: 'x'"),
        (OddError(), "OddError: odd error"),
        (OddError("\n  two\nlines"), "OddError: two"),
        (OddError("x" * 10_000), "OddError: " + "x" * 500),
        (asyncpg.InterfaceError("the pool is closing"), "InterfaceError: the pool is closing"),
        (
            asyncpg.UndefinedTableError('relation "x" does not exist'),
            'UndefinedTableError: relation "x" does not exist',
        ),
        (
            asyncpg.ConnectionDoesNotExistError(),
            "ConnectionDoesNotExistError: connection does not exist error",
        ),
        (
            ExceptionGroup("several", [TimeoutError(), OddError()]),
            "TimeoutError: no answer in time",
        ),
        (DatabaseError("our own sentences stand alone"), "our own sentences stand alone"),
        (BundleError("files", Path("a/b"), "c", "so do these"), "bundle a/b: c: so do these"),
        (Unavailable("code", "and these"), "and these"),
        (DatabaseError(), "DatabaseError: database error"),
    ],
)
def test_every_exception_has_a_reason(error: BaseException, says: str) -> None:
    """One line, never empty."""
    assert reason_of(error) == says
