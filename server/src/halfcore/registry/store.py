"""Bundles that were downloaded and accepted, on disk, so that a cold start needs no registry.

    STORE/
      iris/                       the name that clients use
        3-0f3a9c41d2e4b6a8/       registered version, and 16 digits of manifest.json's sha256
        .champion.json            which of them is served in that role, and which was before
        .refused.json             what this start of the server refused, and why
        .lock                     held by the one process that downloads and tries
        .tmp-…                    a download in progress

Only a whole and accepted bundle has a name without a leading dot. Every function here blocks; the
follower calls them off the event loop.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from halfcore.log import logger, reason_of

_DIGITS = 16


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What is served in a role."""

    folder: str
    version: str
    manifest_sha256: str
    uri: str
    since: datetime
    previous: str = ""
    """The folder that was served before, kept for a rollback."""
    workspace: str = ""
    """The MLflow workspace of both."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that is not tried again."""

    version: str
    manifest_sha256: str
    code: str
    reason: str
    at: datetime
    session: str
    """The start of the server that refused it: another one may have more memory, or a newer
    runtime."""


class Store:
    """One directory of bundles, which workers and other servers on this host may share.

    Args:
        root: created if it is missing.
        session: identifies this start of the server; the same in all its workers.
        keep: bundles to keep per model, including those that are and were last served.
    """

    def __init__(self, root: Path, *, session: str, keep: int) -> None:
        self._root = root
        self._session = session
        self._keep = keep

    def try_lock(self, name: str) -> BinaryIO | None:
        """Take the lock, across all processes, for downloading, trying and pruning a model's
        bundles; None if another process has it.

        Removes what a process that was killed left behind. Closing the file releases the lock, and
        so does the end of the process.
        """
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        self._sweep(folder)
        return file

    def find(self, name: str, version: str, manifest_sha256: str) -> Path | None:
        """The accepted bundle of that identity, its manifest's hash checked again; the model file
        is checked when it is loaded."""
        path = self._root / name / _folder(version, manifest_sha256)
        try:
            found = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        except OSError:
            return None
        return path if found == manifest_sha256 else None

    def staging(self, name: str) -> Path:
        """An empty temporary folder, which the caller accepts or discards."""
        path = self._root / name / f".tmp-{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        return path

    def accept(self, staging: Path, version: str, manifest_sha256: str) -> Path:
        """Make a proven bundle visible by one rename; return its path."""
        target = staging.with_name(_folder(version, manifest_sha256))
        for file in staging.iterdir():
            _flush(file)
        _flush(staging)
        if target.exists():  # damaged; otherwise `find` would have returned it
            self.discard(target)
        staging.rename(target)
        _flush(target.parent)
        return target

    def discard(self, path: Path) -> None:
        """Remove a bundle or a temporary folder; hides a bundle first, because half a bundle must
        not be found."""
        if not path.name.startswith("."):
            with suppress(OSError):
                path = path.rename(path.with_name(f".tmp-{uuid.uuid4().hex}"))
        shutil.rmtree(path, ignore_errors=True)

    def served(self, name: str, role: str) -> Served | None:
        """What was served last in a role, if that is known."""
        try:
            return msgspec.json.decode(
                (self._root / name / f".{role}.json").read_bytes(), type=Served
            )
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def last_known_good(self, name: str, role: str, workspace: str) -> list[tuple[Path, str]]:
        """Bundles for a cold start, each with its registered version: the one served last, then
        the one served before it.

        Empty if they are from another workspace: that is another tenant's model.
        """
        served = self.served(name, role)
        folders = (
            [served.folder, served.previous] if served and served.workspace == workspace else []
        )
        return [
            (self._root / name / folder, folder.rpartition("-")[0]) for folder in folders if folder
        ]

    def point(
        self,
        name: str,
        role: str,
        path: Path,
        *,
        version: str,
        manifest_sha256: str,
        uri: str,
        workspace: str,
    ) -> None:
        """Record what is served in a role, and remove bundles that are not needed any more."""
        previous = self._previous(name, role, path.name, workspace)
        served = Served(
            folder=path.name,
            version=version,
            manifest_sha256=manifest_sha256,
            uri=uri,
            since=datetime.now(UTC),
            previous=previous,
            workspace=workspace,
        )
        _write(path.with_name(f".{role}.json"), msgspec.json.encode(served))
        os.utime(path)  # the bundle served most recently is removed last
        self._prune(path.parent)

    def _previous(self, name: str, role: str, folder: str, workspace: str) -> str:
        """The folder served before this one; empty if none of the same workspace was."""
        before = self.served(name, role)
        if before is None or before.workspace != workspace:
            return ""
        return before.previous if before.folder == folder else before.folder

    def refusal(self, name: str, version: str, manifest_sha256: str) -> Refused | None:
        """Why this start of the server refused a bundle, if it did."""
        for refused in self._refused(name):
            if (refused.version, refused.manifest_sha256, refused.session) == (
                version,
                manifest_sha256,
                self._session,
            ):
                return refused
        return None

    def refuse(
        self, name: str, version: str, manifest_sha256: str, *, code: str, reason: str
    ) -> Refused:
        """Record a refusal for all workers of this start."""
        now = datetime.now(UTC)
        refused = Refused(
            version=version,
            manifest_sha256=manifest_sha256,
            code=code,
            reason=reason,
            at=now,
            session=self._session,
        )
        others = [
            one
            for one in self._refused(name)
            if one.session == self._session and one.manifest_sha256 != manifest_sha256
        ]
        _write(self._root / name / ".refused.json", msgspec.json.encode([*others[-99:], refused]))
        return refused

    def forget_refusals(self, name: str) -> None:
        """Forget the refusals of a model; if the store cannot be written, they stay, and the log
        says so."""
        try:
            (self._root / name / ".refused.json").unlink(missing_ok=True)
        except OSError as error:
            logger.warning(
                "failed to forget which versions of %s were refused: %s; they stay refused until "
                "this start ends or the store can be written",
                name,
                error.strerror,
            )

    def _refused(self, name: str) -> list[Refused]:
        try:
            return msgspec.json.decode(
                (self._root / name / ".refused.json").read_bytes(), type=list[Refused]
            )
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return []

    def _sweep(self, folder: Path) -> None:
        """Remove what a process that was killed while it held the lock left behind."""
        for path in folder.glob(".tmp-*"):
            logger.info("removing %s, left behind by an interrupted download", path.name)
            self.discard(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _prune(self, folder: Path) -> None:
        needed = set()
        for pointer in folder.glob(".*.json"):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                served = msgspec.json.decode(pointer.read_bytes(), type=Served)
                needed |= {served.folder, served.previous}
        bundles = sorted(
            (path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."),
            key=lambda path: -path.stat().st_mtime,
        )
        for path in [path for path in bundles if path.name not in needed][
            max(0, self._keep - len(needed - {""})) :
        ]:
            self.discard(path)


def unwritable(error: OSError) -> str:
    """Why the store cannot be written, and what to do; without a path, because clients read it."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "let the user who runs this server write to HALFCORE_STORE, its directory"
    else:
        advice = "make room in HALFCORE_STORE, its directory"
    return (
        f"the store cannot be written: {error.strerror or reason_of(error)}; {advice}, or let it "
        "name another one"
    )


def _folder(version: str, manifest_sha256: str) -> str:
    return f"{version}-{manifest_sha256[:_DIGITS]}"


def _write(path: Path, content: bytes) -> None:
    """Replace a small file atomically."""
    staging = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        staging.write_bytes(content)
        _flush(staging)
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
