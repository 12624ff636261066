"""Stored results of several runs: one JSON file each, written whole, checked when read."""

import os
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec


class StoreError(ValueError):
    """A stored run cannot be read; the message names the file and the field."""


class Stored(Protocol):
    """What is kept as one JSON file."""

    @property
    def format(self) -> int:
        """Number of the form, for later readers."""


S = TypeVar("S", bound=Stored)


def stamp(started_at: str) -> str:
    """A date and time in ISO 8601 as file names begin."""
    return started_at[:19].replace(":", "").replace("T", "-")


def write(kept: msgspec.Struct, file: Path) -> Path:
    """Write a file, whole or not at all; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}")
    written.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    os.replace(written, file)  # noqa: PTH105  atomic, as its name does not say
    return file


def read(file: Path, kind: type[S], form: int) -> S:
    """Read a file that `write` wrote; raises `StoreError`."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{file}: {error}") from None
    if found.format != form:
        raise StoreError(f"{file}: format is {found.format}, expected {form}")
    return found
