"""How lab and generator communicate during a run: small files, replaced whole. No gevent here: both
sides import this."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

_PR_SET_PDEATHSIG = 1
Bodies = Literal["pool", "fresh"]
"""Those of the load in turn, or ones that nobody has sent before, if the load has any."""


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab wants from now on."""

    pace: float = 1.0
    """Think times are divided by it; 0: no more requests (drain)."""
    bodies: Bodies = "pool"
    """What is sent."""


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """What Locust's master knows of its workers."""

    connected: int
    missing: int
    """Ever declared missing."""
    silent: int
    """Times that a worker was seen without a heartbeat for two seconds or more."""


def write(file: Path, message: msgspec.Struct) -> None:
    """Replace a file, whole or not at all."""
    written = file.with_name(f".{file.name}")
    written.write_bytes(msgspec.json.encode(message))
    os.replace(written, file)  # noqa: PTH105  atomic, as its name does not say


def host_and_port(url: str) -> tuple[str, int]:
    """Of http://host:port."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def die_with_asked_parent() -> None:
    """Have the kernel end this process when the lab that started it dies, however it dies; nothing
    without a lab."""
    parent = int(os.environ.get("LOADLAB_PARENT", "0"))
    if not parent:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
