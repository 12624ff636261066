"""Replaces files atomically: a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write the content under another name, then rename it. For one writer; not flushed to the
    disk, so a power failure may lose the file."""
    staging = path.with_name(f".{path.name}.new")
    staging.write_bytes(content)
    staging.replace(path)


def replace_file_durably(path: Path, content: bytes) -> None:
    """The same, flushed to the disk, and safe with several writers."""
    staging = hidden_name(path)
    try:
        write_flushed(staging, content)
        staging.replace(path)
    except BaseException:  # Ctrl-C included
        staging.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def hidden_name(path: Path) -> Path:
    """A new name next to the path that begins with a dot, so that readers ignore it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def write_flushed(path: Path, content: bytes) -> None:
    """Make a new file and flush it to the disk.

    Raises:
        OSError: the file exists, the disk is full, and the like.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
