"""`just prove`: each proof ends with one line, the report has all of them, and one that fails stops
no other."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from e2e import prove_all
from support import proven
from support.proof import ROOT
from support.proven import Line, run

SCRIPT = """
import os, pathlib, sys
print("10 cases, seed 7")
if sys.argv[1] == "stored":
    pathlib.Path(os.environ["PROOF_MEASURED"]).write_text("failed: 0 of 10 (0)")
print("the end")
sys.exit(int(sys.argv[2]))
"""

STARTS_ONE = """
import subprocess, sys, time
sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleeps, start_new_session=True).pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
    sys.exit(1)
"""
"""A proof that leaves a process."""


@pytest.mark.parametrize(
    ("how", "code", "measured"),
    [("stored", 0, "failed: 0 of 10 (0)"), ("printed", 1, "the end")],
)
def test_a_proof_ends_with_one_line(
    capsys: pytest.CaptureFixture[str], how: str, code: int, measured: str
) -> None:
    """It has what was asked, what was measured, the seed and the outcome; the output is passed
    on."""
    line, found = run("drain", "0 failed", [sys.executable, "-c", SCRIPT, how, str(code)])

    assert found == code
    assert (line.measured, line.seed, line.passed) == (measured, "7", code == 0)
    assert "the end" in capsys.readouterr().out
    assert "bar: 0 failed" in line.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", ["proven", "prove_all"])
def test_a_signal_reaches_a_proof_and_no_process_stays(program: str, number: int) -> None:
    """It may clean up; what it started in a session of its own, and left, is ended."""
    proof = [sys.executable, "-c", STARTS_ONE]
    run_all = f"prove_all.prove([''], {proof!r})"
    words = {
        "proven": [str(ROOT / "tests/support/proven.py"), "drain", "0 failed", "--", *proof],
        "prove_all": ["-c", f"from e2e import prove_all; prove_all.interruptible(); {run_all}"],
    }[program]
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
    ) as process:
        assert process.stdout
        left = int(process.stdout.readline())
        process.send_signal(number)
        said = process.stdout.read()
    assert "cleaned up" in said
    while runs(left):  # until the kernel has carried that out
        time.sleep(0.01)
    if program == "proven":
        assert process.returncode == proven.INTERRUPTED
        assert said.endswith("drain: interrupted, so nothing is proven\n")


def runs(pid: int) -> bool:
    """Whether a process has not ended; of one that nobody has awaited yet only the id is left."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_help_is_no_proof(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`just prove-drain --help` prints how the proof is run, and no line that it passed."""
    command = [sys.executable, "-c", "print('usage')", "--help"]
    monkeypatch.setattr(sys, "argv", ["proven.py", "drain", "0 failed", "--", *command])
    assert proven.main() == 0
    assert capfd.readouterr().out == "usage\n"


def test_an_unknown_proof_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the others are run, with the one that is meant."""
    monkeypatch.setattr(prove_all, "recipes", lambda: ["prove-swaps", "prove-drain"])
    monkeypatch.setattr(sys, "argv", ["prove_all.py", "prove-swaps", "drain"])
    with pytest.raises(SystemExit) as ended:
        prove_all.main()
    assert ended.value.code == 2
    assert (
        "drain: no such proof; there are prove-swaps, prove-drain; did you mean prove-drain?"
        in (capsys.readouterr().err)
    )


def test_help_of_a_measurement_writes_no_page() -> None:
    """`just ladder --help` prints the options and renders nothing."""
    text = (ROOT / "justfile").read_text()
    recipes = re.findall(r"^([a-z][\w-]*) (?:\*flags|\*words).*:\n((?:    .*\n)+)", text, re.M)
    rendering = {name: body for name, body in recipes if "loadlab render" in body}
    rendering |= {name: body for name, body in recipes if "{{ render }}" in body}
    expected = {
        "bench",
        "ablate",
        "ladder",
        "peers",
        "memory",
        "seeds",
        "search",
        "bench-protocols",
    }
    assert expected <= set(rendering)
    for name, body in rendering.items():
        command = name.removeprefix("bench-")
        assert "{{ render }}" in body or f"exec uv run loadlab {command} --help" in body


def test_a_failed_proof_stops_no_other(tmp_path: Path) -> None:
    """Both are in the report, which fails; it is stored as JSON and as text."""
    lines = prove_all.prove(
        ["prove-one", "prove-two"], [sys.executable, "-c", "raise SystemExit(3)"]
    )
    lines.append(Line(scenario="three", bar="0", measured="0", seed="1", seconds=1.0, passed=True))

    assert prove_all.conclude(lines, tmp_path, Console(file=io.StringIO())) == 1

    (stored,) = tmp_path.glob("*.json")
    report = msgspec.json.decode(stored.read_bytes(), type=prove_all.Report)
    assert [line.passed for line in report.lines] == [False, False, True]
    assert not report.passed
    assert "FAILED" in stored.with_suffix(".txt").read_text()


def test_every_proof_has_its_line() -> None:
    """Each recipe of a proof runs it by support/proven.py, under its own name."""
    text = (ROOT / "justfile").read_text()
    found = re.findall(r"^prove-([\w-]+).*:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert len(found) >= 13
    for name, body in found:
        assert f"support/proven.py {name} " in body
