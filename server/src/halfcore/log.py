"""Log lines, as text or JSON. They never hold a request's body; control characters are escaped."""

import json
import logging
import logging.config
import re
import sys
import time
from typing import Any

import orjson

logger = logging.getLogger("halfcore")
_STANDARD = set(vars(logging.makeLogRecord({})))
_MOST_CHARACTERS = 500
_MEANINGS = {
    "TimeoutError": "no answer in time",
    "CancelledError": "the operation was cancelled",
    "ConnectionResetError": "the other side reset the connection",
    "ConnectionRefusedError": "no server listens there",
    "BrokenPipeError": "the other side closed the connection",
    "IncompleteReadError": "the other side closed the connection in the middle of an answer",
    "MemoryError": "out of memory",
    "RecursionError": "nested too deeply",
}
"""The meaning of an exception without a text, by its class."""
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
"""How they are written: a registry's tag or a request's text must not move a terminal's cursor."""


def reason_of(error: BaseException) -> str:
    """An exception as one line for people; never empty, whatever the exception is.

    Our own exceptions are sentences already. Others begin with their class, because people search
    for it; the system's name the file.
    """
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[0])
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        text = _text(error)
    text = " ".join(text.strip().partition("\n")[0].split())[:_MOST_CHARACTERS]
    if type(error).__module__.startswith("halfcore.") and text:
        return text
    meaning = _MEANINGS.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return f"{kind}: {text or meaning}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  asyncpg's fail here if they have no argument
        return ""


class TextFormatter(logging.Formatter):
    """One line of text, and the stack of an exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text without control characters."""
        return super().format(record).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, message, and what was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON; the stack of an exception is in `stack`."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a file's name that is not UTF-8, which JSON can only escape
            return json.dumps(line, default=str)


def configure(*, level: str, form: str) -> dict[str, Any]:
    """Set up logging for this process and return the configuration, which granian uses for its own
    log lines.

    Args:
        level: lowest level that is logged: `debug`, `info`, `warning` or `error`.
        form: `text` or `json`.
    """
    plain = {"()": TextFormatter, "fmt": "%(asctime)s %(levelname)-7s %(message)s"}
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonFormatter} if form == "json" else plain},
        "handlers": {
            "out": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "line"}
        },
        "loggers": {
            "halfcore": {"level": level.upper(), "handlers": ["out"], "propagate": False},
            # granian logs every start and stop at info; an operator needs only its warnings
            "_granian": {"level": "WARNING", "handlers": ["out"], "propagate": False},
            "litestar": {"level": "WARNING", "handlers": ["out"], "propagate": False},
        },
    }
    logging.config.dictConfig(config)
    return config
