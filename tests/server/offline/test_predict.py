"""`halfcore predict`: a table in, an answer per row out."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper

from halfcore.offline.command import predict
from support.bundles import MIXED, classifier, graph, write_bundle
from support.client import app_client
from support.measured import measured

HEADER = ["island", "mass", "count", "sex", "zone", "wet"]
ROWS: list[list[Any]] = [
    ["Dream", None, 3, None, 20, False],
    ["Biscoe", 4000.5, 0, "MALE", 10, True],
    ["Torgersen", 3000.0, 9, "FEMALE", 10, False],
]
Run = Callable[..., "Done"]


class Done:
    """What a run left."""

    def __init__(self, status: Any, out: bytes, err: str) -> None:
        self.status, self.out = status, out
        self.lines = err.splitlines()


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Done:
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as left:
                predict([*map(str, arguments)])
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capfdbinary.readouterr()
        return Done(left.value.code, out, err.decode())

    return run


def process(*arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
    """Starts the command line."""
    command = [sys.executable, "-m", "halfcore", "predict", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.PIPE, **options)


def csv_of(rows: list[list[Any]]) -> bytes:
    """With a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue().encode()


def records() -> list[dict[str, Any]]:
    """The rows with their names."""
    return [dict(zip(HEADER, row, strict=True)) for row in ROWS]


@pytest.fixture
async def expected(tmp_path: Path) -> list[dict[str, Any]]:
    """The server's answers to the rows."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    async with app_client(tmp_path) as client:
        return [await _answer(client, record) for record in records()]


async def _answer(client: httpx.AsyncClient, record: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post("/predict", json=record)).json()
    return answer


def test_csv_from_standard_input(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """The answers are the server's."""
    started = process(tmp_path / "mixed", "-", stdout=subprocess.PIPE)
    out, err = started.communicate(csv_of(ROWS), timeout=120)

    assert (started.returncode, err) == (0, b"")
    found = list(csv.DictReader(io.StringIO(out.decode())))
    assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
    for row, answer in zip(found, expected, strict=True):
        probabilities = {f"probability_{k}": v for k, v in answer["probabilities"].items()}
        assert {key: float(row[key]) for key in probabilities} == probabilities


@pytest.mark.parametrize("rows", [None, b"colour\nred\n"], ids=["no file", "no column"])
def test_nothing_is_on_standard_output_if_the_rows_cannot_be_read(
    tmp_path: Path, rows: bytes | None
) -> None:
    """No header, which a shell's `>` would keep as a file of answers."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    if rows is not None:
        (tmp_path / "rows.csv").write_bytes(rows)
    started = process(tmp_path / "mixed", tmp_path / "rows.csv", stdout=subprocess.PIPE)
    out, err = started.communicate(timeout=120)
    assert (started.returncode, out) == (2, b"")
    assert err


def test_a_summary_as_json(run: Run, tmp_path: Path) -> None:
    """On standard output, next to answers in a file; not together with answers there."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text("\n".join([*map(json.dumps, records()), "{}"]))

    done = run(tmp_path / "mixed", source, "--out", target, "--json")
    rows = len(records()) + 1
    assert json.loads(done.out) == {"rows": rows, "without_answer": 1, "out": str(target)}
    assert done.status == 1

    done = run(tmp_path / "mixed", source, "--out-format", "jsonl", "--json")
    assert (done.status, done.out) == (2, b"")
    assert done.lines == [
        "halfcore: --json: the answers take standard output; name a file with --out"
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_json_lines(run: Run, tmp_path: Path, expected: list[dict[str, Any]], suffix: str) -> None:
    """By the file's name; to a file; also if both are compressed."""
    source, target = tmp_path / f"rows.jsonl{suffix}", tmp_path / f"answers.jsonl{suffix}"
    lines = [*map(json.dumps, records()), "", ""]
    content = "\n".join(lines).encode()
    source.write_bytes(gzip.compress(content) if suffix else content)

    done = run(tmp_path / "mixed", source, "--out", target)

    assert (done.status, done.out, done.lines) == (0, b"", [])
    content = target.read_bytes()
    content = gzip.decompress(content) if suffix else content
    found = [json.loads(line) for line in content.splitlines()]
    assert found == [
        {"prediction": row["prediction"]}
        | {f"probability_{k}": v for k, v in row["probabilities"].items()}
        for row in expected
    ]
    assert not [*tmp_path.glob("*.part"), *tmp_path.glob(".*.part")]


def test_parquet(run: Run, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """In and out, with the model's own numbers."""
    import pyarrow as arrow
    from pyarrow import parquet

    columns = dict(zip(HEADER, map(list, zip(*ROWS, strict=True)), strict=True))
    columns["island"] = arrow.array(columns["island"]).dictionary_encode()
    parquet.write_table(arrow.table(columns | {"more": [[1], [2], []]}), tmp_path / "rows.parquet")
    target = tmp_path / "answers.parquet"

    assert run(tmp_path / "mixed", tmp_path / "rows.parquet", "--out", target).status == 0
    table = parquet.read_table(target)
    assert table["prediction"].to_pylist() == [row["prediction"] for row in expected]
    for label in expected[0]["probabilities"]:
        found = table[f"probability_{label}"]
        assert str(found.type) == "float"
        assert found.to_pylist() == pytest.approx(
            [row["probabilities"][label] for row in expected], rel=1e-6
        )


def test_wrong_rows_are_reported_and_the_rest_goes_on(
    run: Run, tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    """With line, column, value and what was expected."""
    good = csv_of(ROWS).splitlines(keepends=True)
    header, *rows = good
    wrong = [b"Mars,1,1,MALE,10,True\n", b"Dream,1\n", b"Dream,1,many,MALE,10,True\n"]
    wrong += [b"Dream,1,1,M\xc4,10,True\n", b'Dream,1,1,"MALE"x,10,True\n', b'"Dream,1\n']
    source = tmp_path / "rows.csv"
    source.write_bytes(
        b"".join([header, rows[0], *wrong[:2], b"\n", rows[1], *wrong[2:5], rows[2], wrong[5]])
    )

    done = run(tmp_path / "mixed", source)

    assert done.status == 1
    found = [row["prediction"] for row in csv.DictReader(io.StringIO(done.out.decode()))]
    one, two, three = [row["prediction"] for row in expected]
    assert found == [one, "", "", two, "", "", "", three, ""]
    for line, text in zip(
        done.lines,
        [
            'line 3: "island" is "Mars", expected one of Biscoe',
            "line 4: 2 cells, expected 6",
            'line 7: "count" is "many", expected an integer',
            "line 8: it is not UTF-8",
            "line 9: not CSV: ",
            "line 11: not CSV: unexpected end of data",
            "6 of 9 rows have no answer",
        ],
        strict=True,
    ):
        assert line.startswith(f"halfcore: {text}")


def test_wrong_json_lines(run: Run, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """A line that is no object gets null; a bare NaN is null, as for the server."""
    good = [json.dumps(record) for record in records()]
    lines = [good[0].replace("null", "NaN"), "{", "[1]", '{"mass": 1}', good[1]]
    (tmp_path / "rows.ndjson").write_text("\n".join(lines))

    done = run(tmp_path / "mixed", tmp_path / "rows.ndjson", "--out-format", "jsonl")

    assert done.status == 1
    found = [json.loads(line) for line in done.out.splitlines()]
    labels = [expected[0]["prediction"], None, None, None, expected[1]["prediction"]]
    assert [row["prediction"] for row in found] == labels
    assert {len(row) for row in found} == {4}
    assert [line.split(": ")[1] for line in done.lines[:3]] == ["line 2", "line 3", "line 4"]


def test_wrong_rows_of_parquet(run: Run, tmp_path: Path) -> None:
    """Null where there is no answer, also in a column of numbers, and by the row's number."""
    from pyarrow import parquet, table

    write_bundle(tmp_path, classes=[10, 20, 30])
    rows = {"x0": [1.0, None, 3.0], "x1": ["1", "2", "x"], "x2": [1, 2, 3], "x3": [1, 2, 3]}
    parquet.write_table(table(rows), tmp_path / "rows.parquet")
    target = tmp_path / "answers.parquet"
    done = run(tmp_path / "numbers", tmp_path / "rows.parquet", "--out", target)
    assert done.status == 1
    assert done.lines[0].startswith('halfcore: row 2: "x0" is null, expected a number')
    assert done.lines[1].startswith('halfcore: row 3: "x1" is "x", expected a number')
    found = parquet.read_table(target).to_pydict()
    assert [value is None for value in found["prediction"]] == [False, True, True]
    assert str(parquet.read_table(target)["prediction"].type) == "int64"
    assert [value is None for value in found["probability_10"]] == [False, True, True]


def test_only_the_first_wrong_rows_are_printed(run: Run, tmp_path: Path) -> None:
    """All are counted."""
    write_bundle(tmp_path)
    (tmp_path / "rows.csv").write_text("x0,x1,x2,x3\n" + "a,1,1,1\n" * 30)
    done = run(tmp_path / "numbers", tmp_path / "rows.csv")
    assert len(done.lines) == 21
    assert done.lines[-1] == "halfcore: 30 of 30 rows have no answer"
    assert done.out.splitlines()[1:] == [b",,,"] * 30


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty, expected a header"),
    "a column is missing": (b"island,mass\nDream,1\n", "count, sex, zone, wet are missing"),
    "a column twice": (b"mass," + csv_of(ROWS), "the columns mass occur twice"),
    "gzip that is cut off": (gzip.compress(csv_of(ROWS * 9000))[:-9], "is not complete gzip"),
    "no gzip": (b"\x1f\x8bxxxxxxxxxxxxxxxx", "is not complete gzip"),
    "not Parquet": (b"PAR1" * 9, "is not a Parquet file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used(run: Run, tmp_path: Path, fault: str) -> None:
    """One line, exit status 2, and the file of answers is what it was."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    content, message = FAULTS[fault]
    kind = "parquet" if fault == "not Parquet" else "csv"
    source, target = tmp_path / "rows", tmp_path / "answers"
    source.write_bytes(content)
    target.write_text("as before")

    formats = ("--format", kind, "--out-format", kind)
    done = run(tmp_path / "mixed", source, "--out", target, *formats)

    assert done.status == 2
    (line,) = done.lines
    assert line.startswith("halfcore: ")
    assert message in line
    assert target.read_text() == "as before"
    assert len(list(tmp_path.iterdir())) == 3


def test_no_bundle_no_file_and_no_format(run: Run, tmp_path: Path) -> None:
    """Each is one line that says what to do."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    mixed, rows = tmp_path / "mixed", tmp_path / "rows.csv"
    rows.write_bytes(csv_of(ROWS))
    for arguments, message in (
        ((tmp_path, rows), "no bundle"),
        ((mixed, tmp_path / "none.csv"), "No such file"),
        ((mixed, "rows.xlsx"), "expected .csv, .jsonl, .ndjson, .parquet"),
        ((mixed, rows, "--out", tmp_path / "none/answers.csv"), "No such file or directory"),
        ((mixed, rows, "--out", rows), "the answers would replace the rows"),
        ((mixed, rows, "--out", "/dev/full", "--out-format", "csv"), "No space left on device"),
        ((mixed, rows, "--ray", "local"), "are for a folder of Parquet files"),
    ):
        done = run(*arguments)
        assert (done.status, len(done.lines)) == (2, 1)
        assert message in done.lines[0]
    assert rows.read_bytes() == csv_of(ROWS)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_no_rows(run: Run, tmp_path: Path, kind: str) -> None:
    """The answers have their columns all the same."""
    from pyarrow import parquet, table

    write_bundle(tmp_path)
    source, target = tmp_path / f"rows.{kind}", tmp_path / f"answers.{kind}"
    source.write_bytes(b"x0,x1,x2,x3\n" if kind == "csv" else b"")
    if kind == "parquet":
        empty: list[float] = []
        parquet.write_table(table({f"x{i}": empty for i in range(4)}), source)
    assert run(tmp_path / "numbers", source, "--out", target).status == 0
    names = ["prediction", "probability_a", "probability_b", "probability_c"]
    if kind == "parquet":
        assert parquet.read_table(target).column_names == names
    else:
        assert target.read_text() == (",".join(names) + "\n" if kind == "csv" else "")


def test_columns_of_a_model_without_names_are_taken_in_order(run: Run, tmp_path: Path) -> None:
    """If none of them has one of its names, and they are as many."""
    write_bundle(tmp_path, "sum", task="regression")
    rows = tmp_path / "rows.csv"
    rows.write_text("length,width,height,weight\n1,2,3,4\n")
    assert run(tmp_path / "sum", rows).out == b"prediction\n10.0\n"
    rows.write_text("length,width\n1,2\n")
    assert "x0, x1, x2, x3 are missing" in run(tmp_path / "sum", rows).lines[0]


def test_an_answer_that_is_not_finite(run: Run, tmp_path: Path) -> None:
    """That row has no answer; its neighbours have theirs."""
    write_bundle(tmp_path, "sum", task="regression")
    rows = tmp_path / "rows.csv"
    rows.write_text("x0,x1,x2,x3\n1,2,3,4\n3e38,3e38,3e38,3e38\n2,2,2,2\na,1,1,1\n")
    done = run(tmp_path / "sum", rows)
    assert done.status == 1
    assert done.out.splitlines() == [b"prediction", b"10.0", b'""', b"8.0", b'""']
    assert done.lines[0] == "halfcore: line 3: the model has no finite answer to these values"
    assert done.lines[1].startswith('halfcore: line 5: "x0" is "a"')


@pytest.mark.parametrize("dtype", ["float32", "float64"])
async def test_values_have_the_server_s_digits(run: Run, tmp_path: Path, dtype: str) -> None:
    """As many as the type holds."""
    write_bundle(tmp_path, "sum", task="regression", dtype=dtype)
    row = [0.1, 0.2, 1e-9, 12345.678]
    async with app_client(tmp_path) as client:
        answer = await client.post("/predict", json={"features": row})
    (tmp_path / "rows.csv").write_text(f"x0,x1,x2,x3\n{','.join(map(str, row))}\n")
    text = answer.text.partition('"prediction":')[2].partition(",")[0]
    assert run(tmp_path / "sum", tmp_path / "rows.csv").out.decode().split() == ["prediction", text]


def test_labels_that_csv_and_formats_could_break(run: Run, tmp_path: Path) -> None:
    """Commas, quotes, percent signs and line breaks."""
    classes = ['a,"b"', "50 %d", "x\ny"]
    write_bundle(tmp_path, classes=classes)
    (tmp_path / "rows.csv").write_text("x0,x1,x2,x3\n1,2,3,4\n4,3,2,1\n")
    as_csv = run(tmp_path / "numbers", tmp_path / "rows.csv").out.decode()
    found = list(csv.DictReader(io.StringIO(as_csv, newline="")))
    assert list(found[0]) == ["prediction", *[f"probability_{label}" for label in classes]]
    as_json = run(tmp_path / "numbers", tmp_path / "rows.csv", "--out-format", "jsonl").out
    for row, line in zip(found, as_json.splitlines(), strict=True):
        record = json.loads(line)
        assert row["prediction"] == record["prediction"]
        assert {key: str(value) for key, value in record.items()} == row


def test_a_list_of_values(run: Run, tmp_path: Path) -> None:
    """A model with several outputs: a list in one cell, a list in JSON and in Parquet."""
    from pyarrow import parquet

    model = graph(
        [helper.make_node("Mul", ["rows", "two"], ["value"])],
        {"two": np.array(2, np.float32)},
        4,
        "float32",
        [("value", 1, ["N", 4])],
    )
    row = {f"x{i}": float(i) for i in range(4)}
    golden = [{"row": row, "prediction": [0.0, 2.0, 4.0, 6.0]}]
    write_bundle(tmp_path, "twice", task="regression", model=model, changes={"golden": golden})
    rows, target = tmp_path / "rows.csv", tmp_path / "answers.parquet"
    rows.write_text("x0,x1,x2,x3\n1,2,3,4\n1,1,1,a\n")
    expected = [2.0, 4.0, 6.0, 8.0]
    found = csv.DictReader(io.StringIO(run(tmp_path / "twice", rows).out.decode()))
    assert [row["prediction"] for row in found] == ["[2.0,4.0,6.0,8.0]", ""]
    lines = run(tmp_path / "twice", rows, "--out-format", "jsonl").out.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [expected, None]
    run(tmp_path / "twice", rows, "--out", target)
    assert parquet.read_table(target)["prediction"].to_pylist() == [expected, None]


def test_columns_are_copied_to_the_answers(run: Run, tmp_path: Path) -> None:
    """Before the others, also of rows without an answer; quoted where it is needed."""
    from pyarrow import parquet

    write_bundle(tmp_path, "sum", task="regression")
    rows, target = tmp_path / "rows.csv", tmp_path / "answers.parquet"
    keys = [b'"a,b"', b"caf\xe9", b'"x\ny"', b"1", b""]
    lines = [key + b",1,2,3,4,5" for key in keys]
    rows.write_bytes(b"\n".join([b"key,x0,x1,x2,x3,more", *lines, b"z,a,1,1,1,1"]) + b"\n")
    flags = ("--keep", "key", "--keep", "x3")
    done = run(tmp_path / "sum", rows, *flags)
    expected = b"\n".join([key + b",4,10.0" for key in keys])
    assert done.out == b"key,x3,prediction\n" + expected + b'\nz,1,""\n'
    as_json = run(tmp_path / "sum", rows, *flags, "--out-format", "jsonl").out
    first, second, *_, last = [json.loads(line) for line in as_json.splitlines()]
    assert first == {"key": "a,b", "x3": "4", "prediction": 10.0}
    assert second["key"] == "caf?"
    assert last == {"key": "z", "x3": "1", "prediction": None}
    run(tmp_path / "sum", rows, *flags, "--out", target)
    table = parquet.read_table(target)
    assert table.column_names == ["key", "x3", "prediction"]
    assert table["key"].to_pylist() == ["a,b", "caf?", "x\ny", "1", "", "z"]


def test_columns_that_are_copied_keep_their_type(run: Run, tmp_path: Path) -> None:
    """From Parquet to Parquet, also if there are no rows."""
    import datetime

    from pyarrow import parquet, table

    write_bundle(tmp_path, "sum", task="regression")
    days = [datetime.date(2026, 1, 1), None]
    rows = table({"day": days, "id": [1, 2]} | {f"x{i}": [1.0, 2.0] for i in range(4)})
    source, target = tmp_path / "rows.parquet", tmp_path / "answers.parquet"
    for some in (rows, rows.slice(0, 0)):
        parquet.write_table(some, source)
        flags = ("--keep", "day", "--keep", "id", "--out", target)
        assert run(tmp_path / "sum", source, *flags).status == 0
        found = parquet.read_table(target)
        assert found.select(["day", "id"]).equals(some.select(["day", "id"]))
        assert found.column_names == ["day", "id", "prediction"]
    parquet.write_table(rows, source)
    lines = run(tmp_path / "sum", source, "--keep", "day", "--out-format", "jsonl").out
    assert json.loads(lines.splitlines()[0]) == {"day": "2026-01-01", "prediction": 4.0}
    for flag, message in (
        ("prediction", "--keep prediction: the answers have such a column"),
        ("none", "the columns none are missing"),
    ):
        done = run(tmp_path / "sum", source, "--keep", flag, "--out-format", "csv")
        assert (done.status, len(done.lines)) == (2, 1)
        assert message in done.lines[0]


def test_threads_change_no_answer(run: Run, tmp_path: Path) -> None:
    """Several chunks, whose answers stay in order."""
    write_bundle(tmp_path, model=classifier(4, 3, "float32"))
    lines = [f"{i % 97},{i % 13},{i},1" for i in range(20_000)]
    (tmp_path / "rows.csv").write_text("\n".join(["x0,x1,x2,x3", *lines]))
    one, three = (
        run(tmp_path / "numbers", tmp_path / "rows.csv", "--threads", threads).out
        for threads in (1, 3)
    )
    assert one == three
    assert len(one.splitlines()) == 20_001


def test_a_file_that_is_replaced_keeps_its_mode(run: Run, tmp_path: Path) -> None:
    """So does a link: what it leads to is replaced."""
    write_bundle(tmp_path)
    (tmp_path / "rows.csv").write_text("x0,x1,x2,x3\n1,2,3,4\n")
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    assert run(tmp_path / "numbers", tmp_path / "rows.csv", "--out", link).status == 0
    assert link.is_symlink()
    assert real.read_text().startswith("prediction,")
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_what_was_there(tmp_path: Path, number: signal.Signals) -> None:
    """The old answers, and no temporary file."""
    write_bundle(tmp_path)
    target = tmp_path / "answers.csv"
    target.write_text("before")
    started = process(tmp_path / "numbers", "-", "--out", target)
    assert started.stdin
    assert started.stderr
    started.stdin.write(b"x0,x1,x2,x3\n" + b"1,2,3,4\n" * 20_000)
    started.stdin.flush()
    while not list(tmp_path.glob(".halfcore-*")):  # it has begun to write
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "numbers"]
    assert b"Traceback" not in err


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """As a limit on the size of files, which the kernel reports in the same way."""
    write_bundle(tmp_path)
    target = tmp_path / "answers.csv"
    target.write_text("before")
    command = [sys.executable, "-m", "halfcore", "predict", str(tmp_path / "numbers"), "-"]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 16; exec "$@"', "-", *command, "--out", target],
        input=b"x0,x1,x2,x3\n" + b"1,2,3,4\n" * 20_000,
        capture_output=True,
        timeout=120,
    )
    assert limited.returncode == 2
    assert b"cannot be written: File too large" in limited.stderr
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "numbers"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """Sixteen times the rows take as much memory, but for the allocator's changes."""
    import pyarrow as arrow
    from pyarrow import parquet

    write_bundle(tmp_path)
    peaks = []
    for chunks in (2, 32):
        source = tmp_path / f"{chunks}.{kind}"
        if kind == "csv":
            source.write_bytes(b"x0,x1,x2,x3\n" + b"1,2,3,4\n" * (8192 * chunks))
        else:
            values = np.arange(8192 * chunks, dtype=float)
            parquet.write_table(arrow.table({f"x{i}": values for i in range(4)}), source)
        command = [sys.executable, "-m", "halfcore", "predict", str(tmp_path / "numbers")]
        where = ("--out", os.devnull, "--out-format", kind)
        found = measured([*command, str(source), *where])
        assert found.status == 0
        peaks.append(found.peak_bytes)
    assert peaks[1] < peaks[0] + (16 << 20)
