"""Finds the bundles of a directory, and says what to do if there are none or some are in the wrong
place."""

import errno
import os
import re
from itertools import islice
from pathlib import Path

import msgspec

from halfcore.bundle import MANIFEST_FILE
from halfcore.readable import unreadable_reason

_DEPTH_OF_BUNDLES = 2
"""Levels from the directory of bundles down to a bundle: NAME, VERSION-HASH."""
_SEARCHED_DEPTH = 5
_SEARCHED_FOLDERS = 500
"""Most folders of a level that are searched for bundles in the wrong place: a mounted disk may hold
millions."""
_SHOWN_NAMES = 5
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Survey(msgspec.Struct, frozen=True):
    """The contents of a directory of bundles; no bundle was opened yet."""

    bundles: dict[str, list[Path]] = {}
    """Model name → its bundle directories."""
    refused: dict[str, str] = {}
    """Model name → one line that says why its directory cannot be read."""
    problem: str = ""
    """One line that says what is wrong with the directory as a whole and what to do; empty if
    nothing is."""


def find(directory: Path) -> dict[str, list[Path]]:
    """The bundle directories below `directory` by model name, without opening them; see
    `survey`."""
    return survey(directory).bundles


def survey(directory: Path) -> Survey:
    """Find the bundles below `directory`, and say why there are none or some are in the wrong
    place.

    Names that begin with a dot are writes in progress and are ignored. A directory that does not
    exist is not a problem here: a server that follows a registry needs none.
    """
    bundles: dict[str, list[Path]] = {}
    refused: dict[str, str] = {}
    if not os.path.lexists(directory):
        return Survey()
    try:
        folders = _folders(directory)
    except OSError as error:
        return Survey(problem=f"{directory}: {unreadable_reason(error, directory)}")
    for folder in folders:
        try:
            found = _folders(folder)
        except OSError as error:
            if _MODEL_NAME.fullmatch(folder.name):  # "lost+found" is not a model
                refused[folder.name] = f"{folder}: {unreadable_reason(error, folder)}"
            continue
        if found and not _has_manifest(folder):
            bundles[folder.name] = found
    problem = _misplaced(directory, folders)
    if not problem and not any(_has_manifest(path) for paths in bundles.values() for path in paths):
        if (root := _root_below(directory)) is not None:
            problem = (
                f"{directory} holds no bundle, but {root} does: mount that folder instead, or set "
                f"HALFCORE_BUNDLES={root}"
            )
            bundles = {}  # these were the folders above the bundles
        elif not bundles and not refused:
            problem = _nothing_found(directory)
    return Survey(bundles, refused, problem)


def _folders(directory: Path) -> list[Path]:
    """The visible folders in a folder, sorted by name.

    Raises:
        OSError: it cannot be listed or searched.
    """
    with os.scandir(directory) as entries:
        folders = sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        )
    if not os.access(directory, os.X_OK):  # its names can be read, but nothing in it
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return [directory / name for name in folders]


def _has_manifest(folder: Path) -> bool:
    return os.path.lexists(folder / MANIFEST_FILE)


def _misplaced(directory: Path, folders: list[Path]) -> str:
    """One line about a bundle that is in a too high folder; empty if there is none."""
    if _has_manifest(directory):
        return (
            f"{directory} is itself a bundle, expected a folder of bundles: mount the folder two "
            f"levels above it, so that {directory}/NAME/VERSION-HASH/{MANIFEST_FILE} exists"
        )
    for folder in folders:
        if _has_manifest(folder):
            return (
                f"{folder} is a bundle one level too high: mount the folder one level above, "
                f"so that {directory}/NAME/{folder.name}/{MANIFEST_FILE} exists"
            )
    return ""


def _nothing_found(directory: Path) -> str:
    """One line about a directory without a bundle: what it holds, and what was expected."""
    expected = (
        f"expected {directory}/NAME/VERSION-HASH/{MANIFEST_FILE}: mount the folder that "
        "`model-export export` wrote to"
    )
    names = sorted(item.name for item in directory.iterdir())
    if not names:
        return (
            f"{directory} is empty, {expected} (Docker creates an empty folder for a path that "
            "does not exist)"
        )
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
    return f"{directory} holds no bundle (found {shown}), {expected}"


def _root_below(directory: Path) -> Path | None:
    """A folder of bundles somewhere below; hidden folders are searched too, because the exporter
    writes to `.halfcore/bundles`."""
    layer = [directory]
    for depth in range(1, _SEARCHED_DEPTH + 1):
        layer = list(
            islice((child for folder in layer for child in _subfolders(folder)), _SEARCHED_FOLDERS)
        )
        if depth <= _DEPTH_OF_BUNDLES:
            continue
        for folder in layer:
            if _has_manifest(folder):
                return folder.parent.parent
    return None


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, also hidden ones; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
