"""A folder of Parquet files to a folder of answers, file by file: each is scored whole or not at
all, and says of which model and which rows it is, so that a run can be started again."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from halfcore import bundle
from halfcore.offline.files import pyarrow
from halfcore.offline.score import Scored, Scorer, Table
from halfcore.offline.sources import FileError

NOTE = "halfcore"
"""The name of our entry in the metadata of a Parquet file."""
_SUFFIX = ".parquet"


class Partition(NamedTuple):
    """One file of rows, and the file of its answers."""

    name: str
    """Its path below the folder."""
    source: str
    target: str


class Plan(NamedTuple):
    """What is to be done."""

    bundle: Path
    model: dict[str, str]
    """Name, version and hash, and the columns that are copied: every file of answers notes it."""
    todo: list[Partition]
    finished: list[Scored]
    """Of an earlier run."""
    keep: list[str]
    """Columns that are copied to the answers."""


class Outcome(NamedTuple):
    """What became of one file."""

    name: str
    rows: int = 0
    wrong: int = 0
    reports: tuple[tuple[int, str], ...] = ()
    """The first wrong rows: number and reason."""
    error: str = ""
    """Why there are no answers; empty if there are."""
    worker: str = ""
    """The process that scored it."""


def are_meant(path: str) -> bool:
    """Whether a path means many files: a folder, or a pattern."""
    return path != "-" and (Path(path).is_dir() or _is_pattern(path))


def plan(bundle_path: Path, source: str, out: str, *, keep: Sequence[str] = ()) -> Plan:
    """Find the files, and which of them have their answers already.

    Args:
        bundle_path: the bundle.
        source: a folder, with the folders in it, or a pattern such as `rows/*.parquet`.
        out: the folder of the answers; made if it is missing.
        keep: names of columns that are copied to the answers.

    Raises:
        BundleError: the manifest cannot be read.
        FileError: there are no files, or the folder of the answers cannot be used.
    """
    found = _partitions(source, out)
    manifest = bundle.read_manifest(bundle_path, any_name=True)
    model = {
        "model": manifest.name,
        "version": manifest.version,
        "sha256": manifest.onnx.sha256,
        "keep": json.dumps(list(keep)),
    }
    todo, finished = [], []
    for partition in found:
        scored = _finished(partition, model)
        if scored is None:
            todo.append(partition)
        else:
            finished.append(scored)
    return Plan(bundle_path, model, todo, finished, list(keep))


def score_here(plan: Plan, *, threads: int) -> Iterator[Outcome]:
    """Score the files that have no answers yet, one after the other, in this process."""
    if plan.todo:
        scorer = Scorer(plan.bundle, threads=threads, keep=plan.keep)
        for partition in plan.todo:
            yield score_partition(scorer, partition, plan.model)


def score_partition(scorer: Scorer, partition: Partition, model: dict[str, str]) -> Outcome:
    """Score one file; an error is part of the outcome, and leaves no file of answers behind.

    Args:
        scorer: of the model; a process needs one for all its files.
        partition: the file; the folder of its answers is made if it is missing.
        model: is noted in the answers, see `Plan`.
    """
    reports: list[tuple[int, str]] = []
    worker = f"{os.uname().nodename}:{os.getpid()}"
    try:
        state = _state(partition.source)
        _make_folder(Path(partition.target).parent)
        rows, wrong = scorer.score(
            Table(partition.source, "parquet"),
            Table(partition.target, "parquet"),
            lambda row, reason: reports.append((row, reason)),
            note=lambda scored: {NOTE: json.dumps(model | state | scored._asdict())},
        )
    except FileError as error:
        return Outcome(partition.name, error=str(error), worker=worker)
    return Outcome(partition.name, rows, wrong, tuple(reports), worker=worker)


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).exists()


def _partitions(source: str, out: str) -> list[Partition]:
    if out == "-":
        raise FileError(f"{source}: a folder of answers is needed, expected --out FOLDER")
    root, found = _find(source)
    if not found:
        raise FileError(f"{source}: no Parquet files, expected some that end in {_SUFFIX}")
    folder = Path(out).resolve()
    if folder == root.resolve():
        raise FileError(f"{out}: the answers would replace the rows; name another folder")
    _make_folder(folder)
    names = [file.relative_to(root).as_posix() for file in found]
    # A folder of answers within that of the rows holds no rows.
    return [
        Partition(name, str(file.resolve()), str(folder / name))
        for name, file in zip(names, found, strict=True)
        if not file.resolve().is_relative_to(folder)
    ]


def _find(source: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files in it, in order."""
    if not _is_pattern(source):
        root = Path(source)
        found = root.rglob(f"*{_SUFFIX}")
    else:
        parts = Path(source).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])
        found = (Path(name) for name in glob.iglob(source, recursive=True))  # noqa: PTH207  as typed
    # Engines hide their own files: _metadata, .part-0.crc
    usable = (
        file
        for file in found
        if file.is_file()
        and not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)
    )
    return root, sorted(usable)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made: {error.strerror}; name another") from None


def _state(path: str) -> dict[str, int]:
    """What changes if a file does."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    return {"source_bytes": status.st_size, "source_modified_ns": status.st_mtime_ns}


def _finished(partition: Partition, model: dict[str, str]) -> Scored | None:
    """The counts of a file that has answers of this model to these rows; None if it has none.

    Raises:
        FileError: another file is in its place.
    """
    target = Path(partition.target)
    if not target.exists():
        return None
    note = _note(target)
    if note is None:
        raise FileError(
            f"{target} was not written by `halfcore predict`; name another folder with --out"
        )
    same = note.items() >= (model | _state(partition.source)).items()
    return Scored(note["rows"], note["wrong"]) if same else None


def _note(file: Path) -> dict[str, Any] | None:
    arrow = pyarrow(str(file))
    try:
        metadata = arrow.parquet.read_metadata(file).metadata or {}
        note: dict[str, Any] = json.loads(metadata[NOTE.encode()])
    except (arrow.ArrowException, OSError, KeyError, ValueError):
        return None
    return note
