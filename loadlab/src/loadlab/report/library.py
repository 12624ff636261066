"""All stored load runs: a folder each, and an index in SQLite that can always be made again from
the folders."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from loadlab.record.read import read, read_run
from loadlab.record.schema import Run
from loadlab.record.store import RUN_FILE, VERDICT_FILE, StoreError
from loadlab.verdict.judge import Verdict, judge
from loadlab.verdict.repeats import Judged, combine

INDEX_FILE = "index.sqlite"
_VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history. Field by field a column of the index."""

    id: str
    changed_ns: int
    """When the folder's run.json was written: a later one is read again."""
    started_at: str
    tier: str
    scenario: str
    users: int
    backend: str
    engine: str
    set_id: str
    outcome: str
    sentence: str
    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    cpu_cores: float | None
    cpu_us: float | None
    memory_peak_mib: float | None
    commit_id: str
    dirty: bool


_COLUMNS = Entry.__struct_fields__
_FIGURES = _COLUMNS[_COLUMNS.index("requests") : _COLUMNS.index("commit_id")]
"""They have the names of the verdict's figures."""


class NoSuchRun(LookupError):
    """No run matches; the message quotes the given name and says how to name a run."""


def history(folder: Path) -> list[Entry]:
    """All runs, oldest first; the index is updated before, or rebuilt if it is lost or broken."""
    if not folder.is_dir():
        return []
    try:
        return _up_to_date(folder)
    except sqlite3.DatabaseError:
        (folder / INDEX_FILE).unlink(missing_ok=True)
        return _up_to_date(folder)


def find(folder: Path, name: str) -> Path:
    """The folder of a run: by path, by id, by the beginning of one id, or `latest`; raises
    `NoSuchRun`."""
    if (Path(name) / RUN_FILE).is_file():
        return Path(name)
    known = sorted(file.parent.name for file in folder.glob(f"*/{RUN_FILE}"))
    if name == "latest":
        matching = known[-1:]
    else:
        begin_so = [each for each in known if each.startswith(name)]
        matching = [name] if name in known else begin_so
    if len(matching) != 1:
        what = f"{len(matching)} runs begin with {name!r}"
        what = what if matching else f"no run {name!r} in {folder}"
        raise NoSuchRun(f"{what}: give an id of `loadlab history`, a folder, or latest")
    return folder / matching[0]


def verdict_of(run: Path) -> Verdict:
    """The verdict as it was stored, or, of a run that was killed before, as its record says; raises
    `StoreError`."""
    try:
        return msgspec.json.decode((run / VERDICT_FILE).read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        return judge(read(run))


def claim_for(folder: Path, run: Run) -> tuple[str, list[Path]]:
    """What the repeats that a run belongs to allow to be claimed, and the folders of all of them.

    Both are empty if they are not all there, or do not hold.
    """
    if not run.set_id:
        return "", []
    mates = [folder / entry.id for entry in history(folder) if entry.set_id == run.set_id]
    judged = [Judged(read_run(mate), verdict_of(mate)) for mate in mates]
    claim = combine(judged).claim if judged else ""
    return claim, mates if claim else []


def _up_to_date(folder: Path) -> list[Entry]:
    stored = {file.parent.name: file.stat().st_mtime_ns for file in folder.glob(f"*/{RUN_FILE}")}
    with _index(folder) as index:
        known = dict(index.execute("SELECT id, changed_ns FROM runs").fetchall())
        index.executemany(
            "DELETE FROM runs WHERE id = ?",
            [(gone,) for gone in known if known[gone] != stored.get(gone)],
        )
        fresh = [name for name in sorted(stored) if known.get(name) != stored[name]]
        entries = [entry for name in fresh if (entry := _entry(folder / name, stored[name]))]
        index.executemany(
            f"INSERT INTO runs VALUES ({', '.join('?' * len(_COLUMNS))})",  # noqa: S608
            map(msgspec.structs.astuple, entries),
        )
        rows = index.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM runs ORDER BY started_at, id"  # noqa: S608
        ).fetchall()
    return [
        msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Entry, strict=False) for row in rows
    ]


@contextmanager
def _index(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index, in one transaction."""
    with closing(sqlite3.connect(folder / INDEX_FILE)) as index, index:
        if index.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            index.execute("DROP TABLE IF EXISTS runs")
            index.execute(f"CREATE TABLE runs ({', '.join(_COLUMNS)}, PRIMARY KEY (id))")
            index.execute(f"PRAGMA user_version = {_VERSION}")
        yield index


def _entry(run: Path, changed_ns: int) -> Entry | None:
    """What the history says of a run; None if the folder holds no run of this form."""
    try:
        stored, verdict = read_run(run), verdict_of(run)
    except StoreError:
        return None
    figures = {name: getattr(verdict.figures, name) for name in _FIGURES}
    return Entry(
        id=run.name,
        changed_ns=changed_ns,
        started_at=stored.started_at,
        tier=stored.tier.name,
        scenario=stored.scenario.name,
        users=stored.scenario.users,
        backend=stored.backend,
        engine=stored.engine,
        set_id=stored.set_id,
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        commit_id=stored.fingerprint.commit,
        dirty=stored.fingerprint.dirty,
        **figures,
    )
