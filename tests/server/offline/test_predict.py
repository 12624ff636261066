"""`halfcore predict`: a table in, an answer per row out."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.bundles import MIXED, write_bundle
from support.client import app_client

HEADER = ["island", "mass", "count", "sex", "zone", "wet"]
ROWS: list[list[Any]] = [
    ["Dream", None, 3, None, 20, False],
    ["Biscoe", 4000.5, 0, "MALE", 10, True],
    ["Torgersen", 3000.0, 9, "FEMALE", 10, False],
]


def halfcore(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    command = [sys.executable, "-m", "halfcore", "predict", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


def csv_of(rows: list[list[Any]]) -> bytes:
    """With a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue().encode()


@pytest.fixture
async def expected(tmp_path: Path) -> list[dict[str, Any]]:
    """The server's answers to the rows."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    async with app_client(tmp_path) as client:
        return [await _answer(client, row) for row in ROWS]


async def _answer(client: httpx.AsyncClient, row: list[Any]) -> dict[str, Any]:
    record = dict(zip(HEADER, row, strict=True))
    answer: dict[str, Any] = (await client.post("/predict", json=record)).json()
    return answer


def test_csv_from_standard_input(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """The answers are the server's."""
    run = halfcore(str(tmp_path / "mixed"), "-", stdin=csv_of(ROWS))

    assert (run.returncode, run.stderr) == (0, b"")
    found = list(csv.DictReader(io.StringIO(run.stdout.decode())))
    assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
    for row, answer in zip(found, expected, strict=True):
        probabilities = {f"probability_{k}": v for k, v in answer["probabilities"].items()}
        assert {key: float(row[key]) for key in probabilities} == probabilities


def test_json_lines(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """By the file's name; to a file."""
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    lines = [json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS]
    source.write_text("\n".join(lines) + "\n\n")

    run = halfcore(str(tmp_path / "mixed"), str(source), "--out", str(target))

    assert (run.returncode, run.stdout) == (0, b"")
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
    assert not list(tmp_path.glob("*.part"))


def test_parquet(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """In and out."""
    import pyarrow as arrow
    from pyarrow import parquet

    columns = dict(zip(HEADER, map(list, zip(*ROWS, strict=True)), strict=True))
    parquet.write_table(arrow.table(columns), tmp_path / "rows.parquet")
    target = tmp_path / "answers.parquet"

    run = halfcore(str(tmp_path / "mixed"), str(tmp_path / "rows.parquet"), "--out", str(target))

    assert run.returncode == 0, run.stderr
    found = parquet.read_table(target).to_pydict()
    assert found["prediction"] == [row["prediction"] for row in expected]


def test_wrong_rows_are_reported_and_the_rest_goes_on(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    """With line, column, value and what was expected."""
    rows = [ROWS[0], ["Mars", *ROWS[0][1:]], ROWS[1], [*ROWS[1][:2], "many", *ROWS[1][3:]], ROWS[2]]
    run = halfcore(str(tmp_path / "mixed"), "-", stdin=csv_of(rows))

    assert run.returncode == 1
    found = [row["prediction"] for row in csv.DictReader(io.StringIO(run.stdout.decode()))]
    labels = [row["prediction"] for row in expected]
    assert found == [labels[0], "", labels[1], "", labels[2]]
    first, second, last = run.stderr.decode().splitlines()
    assert first.startswith('halfcore: line 3: "island" is "Mars", expected one of Biscoe')
    assert second.startswith('halfcore: line 5: "count" is "many", expected an integer')
    assert last == "halfcore: 2 of 5 rows have no answer"


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty, expected a header"),
    "a column is missing": (b"island,mass\nDream,1\n", "count, sex, zone, wet are missing"),
    "a short row": (csv_of(ROWS) + b"Dream,1\n", "line 5 has 2 cells, expected 6"),
    "not UTF-8": (b"island\n\xff\n", "is not UTF-8"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used(tmp_path: Path, fault: str) -> None:
    """One line, exit status 2, and no file of answers."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    content, message = FAULTS[fault]
    (tmp_path / "rows.csv").write_bytes(content)
    target = tmp_path / "answers.csv"

    run = halfcore(str(tmp_path / "mixed"), str(tmp_path / "rows.csv"), "--out", str(target))

    assert run.returncode == 2
    (line,) = run.stderr.decode().splitlines()
    assert line.startswith("halfcore: ")
    assert message in line
    assert not target.exists()


def test_no_bundle_no_file_and_no_format(tmp_path: Path) -> None:
    """Each is one line that says what to do."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    for arguments, message in (
        ((str(tmp_path), "rows.csv"), "no bundle"),
        ((str(tmp_path / "mixed"), str(tmp_path / "none.csv")), "No such file"),
        ((str(tmp_path / "mixed"), "rows.xlsx"), "expected .csv, .jsonl, .ndjson, .parquet"),
    ):
        run = halfcore(*arguments)
        assert run.returncode == 2
        assert message in run.stderr.decode()


def test_an_answer_that_is_not_finite(tmp_path: Path) -> None:
    """That row has no answer; its neighbours have theirs."""
    write_bundle(tmp_path, "sum", task="regression")
    text = b"x0,x1,x2,x3\n1,2,3,4\n3e38,3e38,3e38,3e38\n2,2,2,2\n"
    run = halfcore(str(tmp_path / "sum"), "-", stdin=text)
    assert run.returncode == 1
    assert run.stdout.decode().splitlines() == ["prediction", "10.0", '""', "8.0"]
    assert b"line 3: the model has no finite answer" in run.stderr


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Forty times the rows take as much memory, but for the allocator's changes."""
    write_bundle(tmp_path)
    peaks = []
    for chunks in (1, 40):
        source = tmp_path / f"{chunks}.csv"
        source.write_bytes(b"x0,x1,x2,x3\n" + b"1,2,3,4\n" * (8192 * chunks))
        command = [sys.executable, "-m", "halfcore", "predict", str(tmp_path / "numbers")]
        process = subprocess.Popen(
            [*command, str(source), "--out", os.devnull, "--out-format", "csv"]
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < peaks[0] + 16 * 1024  # KiB
