"""A folder of Parquet files in, a folder of answers out, which can be started again."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet, table

from halfcore.offline.command import predict
from support.bundles import write_bundle

Run = Callable[..., tuple[int, list[str]]]
DONE = "halfcore: {} files scored by {} processes, {} kept from an earlier run, {} failed"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process; returns its status and its lines."""

    def run(*arguments: object) -> tuple[Any, list[str]]:
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as left:
                predict([*map(str, arguments)])
        finally:
            signal.signal(signal.SIGTERM, before)
        return left.value.code, capfd.readouterr().err.splitlines()

    return run


def write(file: Path, *rows: list[Any]) -> None:
    """Rows of four columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = dict(zip(["x0", "x1", "x2", "x3"], map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(table(columns), file)


def answers(folder: Path) -> dict[str, list[Any]]:
    """File → predictions."""
    return {
        file.relative_to(folder).as_posix(): parquet.read_table(file)["prediction"].to_pylist()
        for file in sorted(folder.rglob("*.parquet"))
    }


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three files, one of them in a folder, and what engines leave next to them."""
    write_bundle(tmp_path, "sum", task="regression")
    folder = tmp_path / "rows"
    write(folder / "b.parquet", [1, 2, 3, 4], [1, 1, 1, 1])
    write(folder / "a.parquet", [2, 2, 2, 2])
    write(folder / "day=1/part-0.parquet", [3, 3, 3, 3])
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    (folder / "_temporary/c.parquet").touch()
    (folder / ".d.parquet").touch()
    return folder


ALL = {"a.parquet": [8.0], "b.parquet": [10.0, 4.0], "day=1/part-0.parquet": [12.0]}


def test_each_file_gets_its_answers(run: Run, rows: Path, tmp_path: Path) -> None:
    """In a file of the same name; a second run has nothing to do."""
    arguments = (tmp_path / "sum", rows, "--out", tmp_path / "answers")
    assert run(*arguments) == (0, [DONE.format(3, 1, 0, 0)])
    assert answers(tmp_path / "answers") == ALL
    before = {file: file.stat().st_ino for file in (tmp_path / "answers").rglob("*.parquet")}
    assert run(*arguments) == (0, [DONE.format(0, 0, 3, 0)])
    assert before == {
        file: file.stat().st_ino for file in (tmp_path / "answers").rglob("*") if file.is_file()
    }


def test_a_pattern(run: Run, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files, with folders or without them."""
    monkeypatch.chdir(tmp_path)
    run("sum", "rows/*.parquet", "--out", "one")
    assert answers(tmp_path / "one") == {name: ALL[name] for name in ("a.parquet", "b.parquet")}
    run("sum", "rows/**/*.parquet", "--out", "two")
    assert answers(tmp_path / "two") == ALL
    run("sum", "rows/day=*/*.parquet", "--out", "three")
    assert answers(tmp_path / "three") == {"day=1/part-0.parquet": [12.0]}


def test_what_has_changed_is_scored_again(run: Run, rows: Path, tmp_path: Path) -> None:
    """A file of rows, a file of answers that is lost, and the model."""
    arguments = (tmp_path / "sum", rows, "--out", tmp_path / "answers")
    run(*arguments)
    write(rows / "a.parquet", [5, 5, 5, 5])
    (tmp_path / "answers/b.parquet").unlink()
    assert run(*arguments) == (0, [DONE.format(2, 1, 1, 0)])
    assert answers(tmp_path / "answers") == ALL | {"a.parquet": [20.0]}
    write_bundle(tmp_path, "sum", version="2", task="regression", created_at="2026-02-01T00:00:00Z")
    assert run(*arguments) == (0, [DONE.format(3, 1, 0, 0)])
    assert run(*arguments, "--keep", "x0") == (0, [DONE.format(3, 1, 0, 0)])


def test_wrong_rows_and_a_file_that_cannot_be_read(run: Run, rows: Path, tmp_path: Path) -> None:
    """The rest goes on; the next run does the rest, and remembers what was wrong."""
    write(rows / "a.parquet", [1.0, 1, 1, 1], [None, 1, 1, 1])
    (rows / "b.parquet").write_bytes(b"PAR1")
    arguments = (tmp_path / "sum", rows, "--out", tmp_path / "answers")
    status, lines = run(*arguments)
    assert status == 2
    assert lines[0].startswith('halfcore: a.parquet, row 2: "x0" is null, expected a number')
    assert "b.parquet is not a Parquet file that can be read" in lines[1]
    assert lines[2:] == [DONE.format(2, 1, 0, 1), "halfcore: 1 of 3 rows have no answer"]
    assert answers(tmp_path / "answers").keys() == {"a.parquet", "day=1/part-0.parquet"}
    write(rows / "b.parquet", [1, 1, 1, 1])
    last = "halfcore: 1 of 4 rows have no answer"
    assert run(*arguments) == (1, [DONE.format(1, 1, 2, 0), last])


def test_folders_that_cannot_be_used(run: Run, rows: Path, tmp_path: Path) -> None:
    """Each is one line; nothing is overwritten that this command did not write."""
    (tmp_path / "empty").mkdir()
    write(tmp_path / "foreign/a.parquet", [1, 1, 1, 1])
    foreign = (tmp_path / "foreign/a.parquet").read_bytes()
    for arguments, message in (
        ((rows,), "expected --out FOLDER"),
        ((rows, "--out", rows), "the answers would replace the rows"),
        ((tmp_path / "empty", "--out", tmp_path / "out"), "no Parquet files"),
        ((rows, "--out", rows / "_SUCCESS"), "cannot be made: File exists"),
        ((rows, "--out", tmp_path / "foreign"), "was not written by `halfcore predict`"),
        ((rows, "--out", tmp_path / "out", "--format", "csv"), "is read and written as Parquet"),
    ):
        status, lines = run(tmp_path / "sum", *arguments)
        assert (status, len(lines)) == (2, 1)
        assert message in lines[0]
    assert (tmp_path / "foreign/a.parquet").read_bytes() == foreign


def test_answers_within_the_folder_of_rows(run: Run, rows: Path, tmp_path: Path) -> None:
    """They are no rows of the next run."""
    for expected in (DONE.format(3, 1, 0, 0), DONE.format(0, 0, 3, 0)):
        assert run(tmp_path / "sum", rows, "--out", rows / "answers") == (0, [expected])


def test_without_ray(run: Run, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))
    status, lines = run(tmp_path / "sum", rows, "--out", tmp_path / "out", "--ray", "local")
    assert (status, lines) == (2, ["halfcore: --ray needs Ray, which halfcore[ray] installs"])
