"""Writes a bundle to disk: whole or not at all. The format is fixed in docs/bundle-format.md."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any

from model_export.errors import InfrastructureError

if TYPE_CHECKING:
    from pathlib import Path

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
_LEFTOVER_AGE_S = 3600.0


def require_writable(folder: Path) -> None:
    """See that files can be made in a folder, or that it can be made: before the proof, which takes
    minutes. Makes nothing.

    Raises:
        InfrastructureError: names the folder, the user who runs this, and what to do.
    """
    wanted = folder.absolute()
    there = _nearest(wanted)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix="."):
            pass
    except OSError as error:
        raise InfrastructureError(
            f"cannot write to {wanted}: {_why_not(wanted, there, error)}"
        ) from error


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _why_not(folder: Path, there: Path, error: OSError) -> str:
    """Why nothing can be written there, and what to do."""
    if error.errno == errno.EROFS:
        return "it is on a read-only file system; mount a folder there without :ro"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return error.strerror or type(error).__name__
    try:
        status = there.stat()
    except OSError:
        return f"user {os.geteuid()}, who runs this, may not enter {there.parent}"
    which = "it" if there == folder else str(there)
    # Docker makes the missing folder of a mount, and it belongs to root.
    of_docker = (
        "; if Docker made it, make it yourself before the start" if status.st_uid == 0 else ""
    )
    return (
        f"{which} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):04o}) and "
        f"this runs as user {os.geteuid()}; "
        'in a container add --user "$(id -u):$(id -g)" to docker run, or let every user write to '
        f"it with chmod a+rwX{of_docker}"
    )


def write(root: Path, manifest: dict[str, Any], model: bytes) -> Path:
    """Write one bundle under `root`, then remove older exports of the same version.

    The files are flushed under a name that begins with a dot, which readers ignore, and appear by
    one rename. Where the very same graph is there already, only its manifest is replaced. Whatever
    fails before that leaves the old state whole.

    Args:
        root: folder of all bundles; made if it is missing.
        manifest: as docs/bundle-format.md says, with `name`, `version` and `onnx.sha256`.
        model: the serialized graph.

    Returns:
        the bundle's folder.

    Raises:
        OSError: disk full, no permission, and the like.
    """
    folder = root / str(manifest["name"])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{manifest['version']}-{manifest['onnx']['sha256'][:8]}"
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
    if target.is_dir():
        _repair(target, model, text)
    else:
        _write_new(target, model, text)
    _prune(target, manifest["version"])
    return target


def _write_new(target: Path, model: bytes, manifest: bytes) -> None:
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        staging.mkdir()
        _write_flushed(staging / MODEL_FILE, model)
        _write_flushed(staging / MANIFEST_FILE, manifest)
        _flush_folder(staging)
        staging.rename(target)
    except BaseException:  # Ctrl-C included: nothing may stay behind
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _flush_folder(target.parent)


def _repair(target: Path, model: bytes, manifest: bytes) -> None:
    """Replace the manifest, and the graph too where it is damaged."""
    graph = target / MODEL_FILE
    if (
        not graph.is_file()
        or hashlib.sha256(graph.read_bytes()).digest() != hashlib.sha256(model).digest()
    ):
        _replace(graph, model)
    _replace(target / MANIFEST_FILE, manifest)


def _replace(path: Path, content: bytes) -> None:
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        _write_flushed(staging, content)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(kept: Path, version: str) -> None:
    """Remove other exports of the version, and what a killed export left an hour ago or longer."""
    export_of_version = re.compile(re.escape(version) + r"-[0-9a-f]{8}")
    for other in kept.parent.iterdir():
        if other.name.startswith("."):
            if time.time() - other.stat().st_mtime > _LEFTOVER_AGE_S:
                shutil.rmtree(other, ignore_errors=True)
        elif other != kept and export_of_version.fullmatch(other.name):
            doomed = other.with_name(f".{other.name}.{uuid.uuid4().hex}")
            other.rename(doomed)  # out of sight at once: a half-removed bundle must not be seen
            shutil.rmtree(doomed, ignore_errors=True)


def exists(root: Path, name: str) -> bool:
    """True where some bundle of the model is there."""
    return any(
        not path.parent.name.startswith(".") for path in (root / name).glob(f"*/{MANIFEST_FILE}")
    )
