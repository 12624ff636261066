"""`loadlab load` as a whole: real Locust, a real server in its limits, and every way a run can end early."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from loadlab import cgroup
from loadlab.cgroup.hierarchy import PARENT, ROOT
from loadlab.record.form import Run
from loadlab.record.read import Log, read

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
CHECKOUT = Path(__file__).parents[2]
_started: list[subprocess.Popen[str]] = []


@pytest.fixture
def place(tmp_path):
    """A checkout of its own: compose file, locustfile, a bundle; its runs are stored there. Skipped where there are no control groups."""
    try:
        with cgroup.group("probe"):
            pass
    except cgroup.Unavailable as reason:
        pytest.skip(str(reason))
    from support.bundles import write_bundle

    write_bundle(tmp_path / ".halfcore/bundles", "iris", model=None)
    for name in ("compose", "loadlab"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    yield tmp_path
    for process in _started:  # of a test that failed
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
    _started.clear()


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    """`loadlab load` in the place."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadlab", "load", "tier=half-core", "backend=cgroup", *words],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _started.append(process)
    return process


def finish(process: subprocess.Popen[str], code: int, says: str = "") -> str:
    """Wait for its end; what it said."""
    said, _ = process.communicate(timeout=100)
    assert process.returncode == code, said
    assert says in " ".join(said.replace("│", " ").split()), said
    return said


def stored(place: Path) -> Log:
    """The only run."""
    (folder,) = [file.parent for file in place.glob(".halfcore/loads/*/run.json")]
    return read(folder)


def await_phase(place: Path, name: str, process: subprocess.Popen[str]) -> Run:
    """Wait until a run is in a phase."""
    while True:
        assert process.poll() is None, process.communicate()[0]
        for file in place.glob(".halfcore/loads/*/run.json"):
            run = msgspec.json.decode(file.read_bytes(), type=Run)
            if run.phases and run.phases[-1].name == name:
                return run
        time.sleep(0.05)


def nothing_is_left(run: Run) -> None:
    """No process of the run lives, and no control group of ours is there."""
    for process in run.processes:
        assert not Path(f"/proc/{process.pid}").exists() or process.role == "server", process
    groups = [folder for folder in ROOT.glob(f"**/{PARENT}/*") if folder.is_dir() and folder.name.endswith("half-core-0")]
    assert not groups


def test_fifty_users_of_locust_against_a_real_server(place):
    """A whole run: every phase, every counter, nothing lost; on a busy machine the verdict may be anything but an error."""
    process = start(place, "users=50", "rate=50", "duration=5s")
    said, _ = process.communicate(timeout=240)
    assert process.returncode in (0, 1, 2), said
    log = stored(place)
    assert [phase.name for phase in log.run.phases] == [
        "floor", "start", "warmup", "ramp", "settle", "steady", "repeated", "drain", "cooldown",
    ]  # fmt: skip
    assert log.run.ended is not None
    assert log.run.ended.kind == "complete"
    users = log.of("users")
    assert sum(line.answered for line in users) == sum(line.intended for line in users) > 50
    assert not [line.failures for line in users if line.failures]
    assert max(line.users or 0 for line in users) == 50
    assert sum(line.opens for line in users) == 50
    assert sum(line.deep_checked for line in users) == sum(line.answered for line in users)
    assert log.of("witness", "steady")
    assert log.of("floor")
    assert log.run.replicas[0].limits == log.run.tier.limits
    assert log.run.replicas[0].processes_outside == 0
    assert log.run.workers is not None
    assert log.run.workers.reported == log.run.workers.expected == 1
    steady = log.sampled("steady")
    assert {sample.net.established for sample in steady if sample.net} == {50}
    assert all(sample.server and sample.host and sample.processes["worker-1"].files > 50 for sample in steady)
    (folder,) = [file.parent for file in place.glob(".halfcore/loads/*/run.json")]
    assert json.loads((folder / "verdict.json").read_bytes())["outcome"] in ("PASS", "FAIL", "INVALID")
    assert (folder / "report.html").stat().st_size > 10_000
    nothing_is_left(log.run)


def test_a_server_that_dies_ends_the_run_with_what_was_seen(place):
    """Its end is told, the record is whole so far, and nothing is left."""
    process = start(place, "engine=raw", "users=100", "rate=10", "duration=2s")
    run = await_phase(place, "ramp", process)
    (server,) = [each.pid for each in run.processes if each.role == "server"]
    os.kill(server, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    log = stored(place)
    assert log.run.ended is not None
    assert (log.run.ended.kind, "the server ended with -9" in log.run.ended.sentence) == ("server_died", True)
    assert log.of("users", "ramp")
    nothing_is_left(log.run)


def test_ctrl_c_leaves_nothing_running_and_a_second_lab_is_refused(place):
    """Two labs would measure each other; an interrupted run stays readable."""
    process = start(place, "engine=raw", "users=100", "rate=10", "duration=2s")
    run = await_phase(place, "ramp", process)
    finish(start(place), 4, f"another load run is going on (process {process.pid})")
    process.send_signal(signal.SIGINT)
    finish(process, 130, "interrupted by the user")
    log = stored(place)
    assert log.run.ended is not None
    assert log.run.ended.kind == "interrupted"
    nothing_is_left(run)


def test_a_server_that_cannot_start_is_no_verdict(place):
    """Exit code 4, with how it ended: the tier's memory holds no Python."""
    (place / "compose").unlink()
    (place / "compose").mkdir()
    limits = "{labels: [io.halfcore.tier=half-core], deploy: {resources: {limits: {cpus: '0.5', memory: 8M}}}}"
    (place / "compose/compose.yaml").write_text(f"services: {{half-core: {limits}}}")
    finish(start(place, "engine=raw", "users=20", "duration=2s"), 4, "out of memory")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["scenario=calm"], 3, "scenario=calm is unknown; there are steady"),
        (["model=unicorn", "engine=raw", "users=5", "duration=1s"], 4, "no bundle of unicorn"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(place, words, code, says):
    """Usage is 3, infrastructure 4."""
    finish(start(place, *words), code, says)


@pytest.mark.skipif((os.cpu_count() or 1) > 8, reason="a machine that is large enough")
def test_a_tier_that_needs_more_cores_is_invalid(place):
    """The server would compete with its generator, and fail for that."""
    process = subprocess.run(
        [sys.executable, "-m", "loadlab", "load", "tier=four-by-two", "backend=cgroup"], cwd=place, capture_output=True, text=True
    )
    assert process.returncode == 2
    assert "needs 9 cores" in " ".join(process.stdout.replace("│", " ").split())
