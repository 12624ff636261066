"""Blocks on disk while the database cannot be reached: one directory per writer, with segment
files of blocks, each block with a checksum.

All functions block and run in the log's one file thread. A block is safe when `append` returns,
because `append` ends with `fdatasync`: a crash of the process or the machine loses no spooled row.
A crash during `append` leaves a torn tail, which is cut off when the segment is read.

A directory belongs to the process that holds the lock on it (`flock`, which the kernel releases
when the process dies). A directory without a lock is an orphan: `adopt` takes it over, and its rows
are replayed under its own writer's name.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self
from uuid import UUID

from halfcore.log import reason_of
from halfcore.prediction_log.blocks import Block

MAGIC = b"halfcore prediction log 2\n"
_READABLE = (MAGIC, b"halfcore prediction log 1\n")
"""Formats that can be read, of one length; rows of the first one never have a trace."""
SEGMENT_BYTES = 8 << 20
"""A segment is closed beyond this size: it is read into memory and replayed in one transaction."""
_CHECKSUM = struct.Struct(">I")
_HEAD = struct.Struct(">IqIqq")
"""Length of the payload, first, rows, earliest, latest; between checksum and payload, and covered
by the checksum."""


class SpoolFull(OSError):
    """The spool has reached its largest size; nothing was appended."""


class Unreadable(Exception):
    """A segment from which no block can be read: another format, or a disk error."""


class Contents(NamedTuple):
    """What a segment holds."""

    blocks: list[Block]
    torn_bytes: int
    """Length of the incomplete block at the end."""


class Directory:
    """One writer's segments, locked for this process.

    Attributes:
        writer: the process that wrote the rows.
        segments: the segment files with rows to write, oldest first.
        written: those whose rows are in the database, but which could not be deleted.
        skipped: those that cannot be read, and could not be renamed either.
        bytes: their size.
        rows: number of rows in them, from the blocks' headers.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.writer = UUID(path.name)
        self._lock = lock
        self.segments = sorted(path.glob("*.segment"))
        self.written: list[Path] = []
        self.skipped: list[Path] = []
        self._next = int(self.segments[-1].stem) + 1 if self.segments else 0
        self.bytes = sum(file.stat().st_size for file in self.segments)
        self.rows = sum(map(_count_rows, self.segments))
        self._open: int | None = None

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """Lock a directory; None if another process holds or removed it.

        Raises:
            OSError: from the file system.
        """
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        claimed = None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(lock).st_ino:
                claimed = cls(path, lock)
        except (BlockingIOError, FileNotFoundError):
            return None
        finally:
            if claimed is None:
                os.close(lock)
        return claimed

    @property
    def done(self) -> bool:
        """Whether it holds nothing that this process has to remember."""
        return not (self.segments or self.written or self.skipped)

    def append(self, blocks: Sequence[Block]) -> None:
        """Append blocks; on return they are on the disk.

        Raises:
            OSError: nothing was appended.
        """
        if self._open is None:
            self._open = self._new_segment()
        size = os.fstat(self._open).st_size
        try:
            for block in blocks:
                _write(self._open, _framed(block))
            os.fdatasync(self._open)
        except OSError:
            os.ftruncate(self._open, size)
            raise
        added = os.fstat(self._open).st_size - size
        self.bytes += added
        self.rows += sum(block.rows for block in blocks)
        if size + added >= SEGMENT_BYTES:
            self.seal()

    def seal(self) -> None:
        """Close the segment that is being written; the next block starts another."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def read(self, segment: Path) -> Contents:
        """A sealed segment's blocks.

        Raises:
            Unreadable: it is not a segment of this format, or cannot be read.
        """
        try:
            data = segment.read_bytes()
        except OSError as error:
            raise Unreadable(reason_of(error)) from None
        if len(data) < len(MAGIC) and MAGIC.startswith(data):  # a crash while it was begun
            return Contents([], len(data))
        if not data.startswith(_READABLE):
            raise Unreadable(f"begins with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
        blocks = list(_unframed(data))
        whole = len(MAGIC) + sum(
            _CHECKSUM.size + _HEAD.size + len(block.payload) for block in blocks
        )
        return Contents(blocks, len(data) - whole)

    def remove(self, segment: Path, rows: int) -> None:
        """Delete a segment; its `rows` rows are in the database. It may have been removed since it
        was read.

        Raises:
            OSError: it could not be deleted; it is not read again, and `sweep` tries again.
        """
        size = _size(segment)
        self._forget(segment, size)
        self.rows = max(0, self.rows - rows)
        try:
            segment.unlink(missing_ok=True)
        except OSError:
            self.written.append(segment)
            raise

    def sweep(self) -> None:
        """Try again to delete what is written."""
        with suppress(OSError):
            while self.written:
                self.written[-1].unlink(missing_ok=True)
                self.written.pop()

    def set_aside(self, segment: Path) -> int:
        """Rename a segment that cannot be read, so that it is skipped and people can look at it.
        Forget one that was removed; return the rows that were in the last of these. One that cannot
        be renamed is left to the next start."""
        size = _size(segment)
        lost = 0
        try:
            segment.rename(segment.with_suffix(".unreadable"))
        except FileNotFoundError:
            lost = self.rows if len(self.segments) == 1 else 0
            self.rows -= lost
        except OSError:
            self.skipped.append(segment)
        self._forget(segment, size)
        return lost

    def close(self) -> None:
        """Unlock; remove the directory if it is empty."""
        self.seal()
        self.sweep()
        with suppress(OSError):  # segments remain, for another process
            self.path.rmdir()
        os.close(self._lock)

    def _forget(self, segment: Path, size: int) -> None:
        self.segments.remove(segment)
        # The size of a file that was removed is not known
        self.bytes = self.bytes - size if self.segments else 0

    def _new_segment(self) -> int:
        path = self.path / f"{self._next:012d}.segment"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _write(handle, MAGIC)
            os.fsync(self._lock)  # the directory's own entry
        except OSError:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        self._next += 1
        self.segments.append(path)
        self.bytes += len(MAGIC)
        return handle


class Spool:
    """All writers' directories below one root.

    Args:
        root: the directory; created if it does not exist.
        writer: this process's id.
        most_bytes: largest size of everything below the root; several writers may each exceed it by
            one append.
    """

    def __init__(self, root: Path, *, writer: UUID, most_bytes: int) -> None:
        self._root = root
        self._writer = writer
        self._most_bytes = most_bytes
        self._own: Directory | None = None
        self._adopted: list[Directory] = []

    @property
    def empty(self) -> bool:
        """Whether this process has nothing to replay."""
        return not any(directory.segments for directory in self._directories())

    @property
    def bytes(self) -> int:
        """Size of the segments that this process writes and replays."""
        return sum(directory.bytes for directory in self._directories())

    @property
    def rows(self) -> int:
        """Rows in them."""
        return sum(directory.rows for directory in self._directories())

    def append(self, blocks: Sequence[Block]) -> int:
        """Append blocks; on return they are on the disk. Return how many rows were lost before,
        because this process's directory was removed.

        Raises:
            SpoolFull: they do not fit.
            OSError: from the file system. Nothing was appended.
        """
        lost = 0
        if self._own is not None and not self._own.path.exists():
            lost = self._own.rows
            self._own.close()
            self._own = None
        size = sum(len(block.payload) for block in blocks)
        used = sum(map(_size, self._root.glob("*/*"))) if self._root.exists() else 0
        if used + size > self._most_bytes:
            raise SpoolFull(f"the spool holds {used} bytes, of {self._most_bytes} at most")
        if self._own is None:
            path = self._root / str(self._writer)
            path.mkdir(parents=True, exist_ok=True)
            self._own = Directory.claim(path)
            if self._own is None:
                raise OSError(f"{path} is locked")
        self._own.append(blocks)
        return lost

    def adopt(self) -> list[OSError]:
        """Take over the directories that no process holds; return why some could not be read."""
        held = {directory.path for directory in self._directories()}
        failed = []
        for path in sorted(self._root.glob("*/")):
            if path in held or not _is_uuid(path.name):
                continue
            try:
                directory = Directory.claim(path)
            except OSError as error:  # another user's, for example; the others must not wait for it
                failed.append(error)
                continue
            if directory is not None:
                self._adopted.append(directory)
        self._forget_empty()
        return failed

    def oldest(self) -> tuple[Directory, Path] | None:
        """The next segment to replay: adopted ones before this process's own."""
        self._forget_empty()
        for directory in self._directories():
            if directory.segments:
                directory.seal()
                return directory, directory.segments[0]
        return None

    def close(self) -> None:
        """Unlock everything; what remains is for another process."""
        for directory in self._directories():
            directory.close()
        self._own = None
        self._adopted = []

    def _directories(self) -> list[Directory]:
        return [*self._adopted, self._own] if self._own else self._adopted

    def _forget_empty(self) -> None:
        for directory in self._directories():
            directory.sweep()
        for directory in [each for each in self._adopted if each.done]:
            self._adopted.remove(directory)
            directory.close()


def _framed(block: Block) -> bytes:
    covered = (
        _HEAD.pack(len(block.payload), block.first, block.rows, block.earliest, block.latest)
        + block.payload
    )
    return _CHECKSUM.pack(zlib.crc32(covered)) + covered


def _unframed(data: bytes) -> Iterator[Block]:
    """The blocks of a segment, up to the first incomplete one."""
    offset = len(MAGIC)
    while offset + _CHECKSUM.size + _HEAD.size <= len(data):
        (checksum,) = _CHECKSUM.unpack_from(data, offset)
        start = offset + _CHECKSUM.size
        size, first, rows, earliest, latest = _HEAD.unpack_from(data, start)
        offset = start + _HEAD.size + size
        if offset > len(data) or zlib.crc32(memoryview(data)[start:offset]) != checksum:
            return
        yield Block(first, rows, earliest, latest, data[start + _HEAD.size : offset])


def _count_rows(segment: Path) -> int:
    """The number of rows in a segment, from the blocks' headers."""
    rows = 0
    with segment.open("rb") as file:
        file.seek(len(MAGIC))
        while len(head := file.read(_CHECKSUM.size + _HEAD.size)) == _CHECKSUM.size + _HEAD.size:
            size, _, count, _, _ = _HEAD.unpack_from(head, _CHECKSUM.size)
            rows += count
            file.seek(size, os.SEEK_CUR)
    return rows


def _size(file: Path) -> int:
    """A file's size; 0 if it was removed, for example by another worker that wrote its rows, or if
    it is in another user's directory."""
    try:
        return file.stat().st_size
    except (FileNotFoundError, PermissionError):
        return 0


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
