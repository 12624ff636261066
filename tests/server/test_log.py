"""Whatever an exception is, the log says a reason."""

import asyncio
import errno
import json
import logging
import os
from pathlib import Path

import asyncpg
import pytest

from halfcore.bundle import BundleError
from halfcore.log import JsonFormatter, TextFormatter, reason_of
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


def record(message: str, error: Exception | None = None) -> logging.LogRecord:
    """A line of the log before it is written."""
    info = error and (type(error), error, None)
    return logging.LogRecord("halfcore", logging.ERROR, "file", 1, message, (), info)


def test_a_line_of_text_has_no_control_characters() -> None:
    """Also below it, where the stack of an exception quotes what a client or a registry sent."""
    text = TextFormatter("%(message)s").format(record("a\x1b[2Jb\r", ValueError("\x9b2J\x00")))
    assert text == "a\\x1b[2Jb\\x0d\nValueError: \\x9b2J\\x00"


def test_a_name_that_is_not_utf8_is_a_line_of_json() -> None:
    """As Python reads a file's name from the system."""
    name = os.fsdecode(b"bundles/\xff")
    assert json.loads(JsonFormatter().format(record(name)))["message"] == name
