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
from typing import TYPE_CHECKING, Any

from model_export.bundle.files import (
    flush_folder,
    hidden_name,
    replace_file_durably,
    write_flushed,
)
from model_export.bundle.sign import SIGNATURE_BYTES, SIGNATURE_FILE
from model_export.errors import InfrastructureError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
_LEFTOVER_AGE_S = 3600.0
"""Older hidden folders belong to an export that was killed."""


def require_writable(folder: Path) -> None:
    """Check that the folder takes new files, or that it can be made. Called before the proof, which
    takes minutes; makes nothing.

    Raises:
        InfrastructureError: names the folder, the user who runs this, and what to do.
    """
    wanted = folder.absolute()
    existing = _nearest_existing(wanted)
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix="."):
            pass
    except OSError as error:
        raise InfrastructureError(
            f"cannot write to {wanted}: {_why_not(wanted, existing, error)}"
        ) from error


def _nearest_existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _why_not(folder: Path, existing: Path, error: OSError) -> str:
    """Why the folder cannot be written to, and what to do."""
    if error.errno == errno.EROFS:
        return "it is on a read-only file system; mount a folder there without :ro"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return error.strerror or type(error).__name__
    try:
        status = existing.stat()
    except OSError:
        return f"user {os.geteuid()}, who runs this, may not enter {existing.parent}"
    which = "it" if existing == folder else str(existing)
    # Docker makes the missing folder of a mount, and root owns it.
    of_docker = (
        "; if Docker made it, make it yourself before the start" if status.st_uid == 0 else ""
    )
    return (
        f"{which} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):04o}) and "
        f"this runs as user {os.geteuid()}; "
        'in a container add --user "$(id -u):$(id -g)" to docker run, or let every user write to '
        f"it with chmod a+rwX{of_docker}"
    )


def write(
    root: Path, manifest: dict[str, Any], model: bytes, key: Ed25519PrivateKey | None = None
) -> Path:
    """Write one bundle under `root`, then remove older exports of the same version.

    The files are flushed into a folder whose name begins with a dot, which readers ignore; one
    rename makes them visible. If the same graph exists already, only its manifest is replaced. A
    failure before the rename leaves the old bundle as it was.

    Args:
        root: folder of all bundles; made if it is missing.
        manifest: as in docs/bundle-format.md, with `name`, `version` and `onnx.sha256`.
        model: the serialized graph.
        key: signs the manifest; None: the bundle has no signature.

    Returns:
        the bundle's folder.

    Raises:
        OSError: disk full, no permission, and the like.
    """
    folder = root / str(manifest["name"])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{manifest['version']}-{manifest['onnx']['sha256'][:8]}"
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
    signature = key.sign(text) if key else b""
    if target.is_dir():
        _repair(target, model, text, signature)
    else:
        _write_new(target, model, text, signature)
    _prune(target, manifest["version"])
    return target


def _write_new(target: Path, model: bytes, manifest: bytes, signature: bytes) -> None:
    staging = hidden_name(target)
    try:
        staging.mkdir()
        write_flushed(staging / MODEL_FILE, model)
        write_flushed(staging / MANIFEST_FILE, manifest)
        if signature:
            write_flushed(staging / SIGNATURE_FILE, signature)
        flush_folder(staging)
        staging.rename(target)
    except BaseException:  # Ctrl-C included: leave no files behind
        shutil.rmtree(staging, ignore_errors=True)
        raise
    flush_folder(target.parent)


def _repair(target: Path, model: bytes, manifest: bytes, signature: bytes) -> None:
    """Replace the manifest, and the graph too if it is damaged.

    While the manifest is replaced, the file of the signature holds the new and the old one: a
    reader finds that of the manifest that it has read.
    """
    graph = target / MODEL_FILE
    if (
        not graph.is_file()
        or hashlib.sha256(graph.read_bytes()).digest() != hashlib.sha256(model).digest()
    ):
        replace_file_durably(graph, model)
    file = target / SIGNATURE_FILE
    old = file.read_bytes()[:SIGNATURE_BYTES] if file.exists() else b""
    if signature:
        replace_file_durably(file, signature + old)
    replace_file_durably(target / MANIFEST_FILE, manifest)
    if signature and old:
        replace_file_durably(file, signature)
    elif old:
        file.unlink()


def _prune(kept: Path, version: str) -> None:
    """Remove other exports of the version, and files that a killed export left over an hour ago."""
    export_of_version = re.compile(re.escape(version) + r"-[0-9a-f]{8}")
    for other in kept.parent.iterdir():
        if other.name.startswith("."):
            if time.time() - other.stat().st_mtime > _LEFTOVER_AGE_S:
                shutil.rmtree(other, ignore_errors=True)
        elif other != kept and export_of_version.fullmatch(other.name):
            doomed = hidden_name(other)
            other.rename(doomed)  # hide it first: readers must not see a half-removed bundle
            shutil.rmtree(doomed, ignore_errors=True)


def manifests(folder: Path) -> list[Path]:
    """The manifests of all complete bundles of one model.

    Args:
        folder: of the model, under the folder of all bundles.
    """
    found = folder.glob(f"*/{MANIFEST_FILE}")
    return [path for path in found if not path.parent.name.startswith(".")]


def exists(root: Path, name: str) -> bool:
    """True if the model has a bundle."""
    return bool(manifests(root / name))
