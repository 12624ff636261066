"""Load from several machines: the lab, and Locust workers on two other hosts with their own
addresses, joined by links that may be slow and lose packets."""

import os
import shutil
import signal

import pytest

from support import namespaces
from support.bundles import write_bundle
from support.labs import CHECKOUT, Lab
from support.namespaces import LAB_ADDRESS, hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing() or "-"),
]


@pytest.mark.parametrize(
    ("delay_ms", "loss"), [(0.0, 0.0), (5.0, 0.002)], ids=["direct", "slow-and-lossy"]
)
def test_workers_on_two_other_hosts_drive_a_run(tmp_path, delay_ms, loss):
    """All users are there, no answer is wrong, and each host says how busy it was and how well its
    clock is known; the way to the server is in the latencies."""
    lab = Lab(tmp_path / "place")
    write_bundle(lab.bundles, "iris", model=None)
    just = shutil.which("just") or "just"
    with hosts(2, delay_ms=delay_ms, loss=loss) as (here, *others):
        for host in others:
            host.start(
                just, "-f", str(CHECKOUT / "justfile"), "load-worker", f"master={LAB_ADDRESS}"
            )
        process = lab.start(
            "users=200",
            "rate=50",
            "duration=15s",
            "remote=2",
            f"listen={LAB_ADDRESS}",
            before=tuple(here.inside()),
        )
        try:
            said, _ = process.communicate(timeout=400)
        finally:
            lab.end()
    assert process.returncode in (0, 1, 2), said
    assert (
        f"waiting for 2 workers of other machines: `just load-worker master={LAB_ADDRESS}`" in said
    )
    log, verdict = lab.stored(), lab.verdict()
    run = log.run
    assert run.ended is not None
    assert run.ended.kind == "complete", said
    assert run.workers is not None
    assert (run.workers.expected, run.workers.reported, run.workers.missing) == (2, 2, 0)
    steady = log.of("users", "steady")
    assert max(line.users or 0 for line in steady) == 100  # each worker has half of them
    assert verdict.figures.errors == 0, said
    generators = [each for each in run.processes if each.role == "generator"]
    assert len(generators) == 2
    assert all("Locust worker on" in each.command for each in generators)
    clocks = [key for key in run.details if key.startswith("clock of ")]
    assert len(clocks) == 2
    last = [sample for sample in log.samples if sample.hosts][-1]
    assert last.hosts.keys() == {os.uname().nodename}  # two hosts of one machine
    assert all(last.processes[each.name].cpu_s > 0 for each in generators)
    assert verdict.figures.p50_ms is not None
    assert verdict.figures.p50_ms > 2 * delay_ms


def test_a_run_ends_where_a_worker_of_another_machine_is_lost(tmp_path):
    """Early, with the reason; what was measured until then is kept."""
    lab = Lab(tmp_path / "place")
    write_bundle(lab.bundles, "iris", model=None)
    with hosts(1) as (here, other):
        words = ("load-worker", f"master={LAB_ADDRESS}")
        worker = other.start("just", "-f", str(CHECKOUT / "justfile"), *words)
        process = lab.start(
            "users=50",
            "rate=50",
            "duration=300s",
            "remote=1",
            f"listen={LAB_ADDRESS}",
            before=tuple(here.inside()),
        )
        try:
            lab.await_phase("steady", process)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.communicate()
            said, _ = process.communicate(timeout=200)
        finally:
            lab.end()
    assert process.returncode == 2, said
    ended = lab.stored().run.ended
    assert ended is not None
    assert ended.kind == "generator_broke"
    assert "1 of 1 Locust workers ended or cannot be reached" in ended.sentence


def test_a_run_without_its_workers_ends(tmp_path):
    """With what to do."""
    lab = Lab(tmp_path / "place")
    write_bundle(lab.bundles, "iris", model=None)
    with hosts(0) as (here,):
        process = lab.start(
            "users=50",
            "rate=50",
            "duration=15s",
            "remote=1",
            f"listen={LAB_ADDRESS}",
            before=tuple(here.inside()),
        )
        try:
            said, _ = process.communicate(timeout=300)
        finally:
            lab.end()
    assert process.returncode == 2, said
    ended = lab.stored().run.ended
    assert ended is not None
    assert f"`just load-worker master={LAB_ADDRESS}`" in ended.sentence
