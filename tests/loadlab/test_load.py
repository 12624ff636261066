"""`loadlab load` as a whole: real Locust, a real server in its limits, and every way a run can end
early."""

import os
import signal
import subprocess
from collections import Counter

import pytest

from loadlab.record import cgroup
from loadlab.record.store import read
from loadlab.target.process import control_group
from loadlab.verdict.judge import judge
from loadlab.verdict.stats import PAIRS
from support.bundles import MIXED, write_bundle
from support.labs import Lab, finish, left_over, plain, process_of
from support.misbehaving import Faults, misbehaving
from support.serving import serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
SHORT = ("engine=raw", "users=100", "rate=50", "duration=2s")
READ_ONLY = """
grep -o ' /sys/fs/cgroup[^ ]* ' /proc/self/mounts | while read -r mounted; do
    mount -o remount,bind,ro "$mounted" || exit 77
done
exec "$@"
"""


@pytest.fixture
def lab(tmp_path):
    """A place of its own with a small model. Skipped where there are no control groups."""
    try:
        with control_group("probe"):
            pass
    except cgroup.Unavailable as reason:
        pytest.skip(str(reason))
    made = Lab(tmp_path / "place")
    write_bundle(made.bundles, "iris", model=None)
    yield made
    made.end()


def test_fifty_users_of_locust_against_a_real_server(lab):
    """A whole run: every phase, every counter, nothing lost; on a busy machine the verdict may be
    anything but an error."""
    process = lab.start("users=50", "rate=50", "duration=5s")
    said, _ = process.communicate(timeout=240)
    assert process.returncode in (0, 1, 2), said
    log = lab.stored()
    turns = [phase.name for phase in log.run.phases if phase.name in ("pool", "fresh")]
    assert Counter(turns) == {"pool": PAIRS, "fresh": PAIRS}
    assert [phase.name for phase in log.run.phases if phase.name not in turns] == [
        "floor",
        "start",
        "warmup",
        "ramp",
        "settle",
        "steady",
        "drain",
        "cooldown",
    ]
    assert log.run.ended is not None
    assert log.run.ended.kind == "complete"
    users = log.of("users")
    assert sum(line.answered for line in users) == sum(line.intended for line in users) > 50
    assert not [line.failures for line in users if line.failures]
    assert max(line.users or 0 for line in users) == 50
    assert sum(line.opens for line in users) == 50
    assert all(line.answered == line.deep_checked for line in users), "all are computed"
    assert int(log.run.details["fresh_bodies"].partition(" ")[0]) > 50
    assert float(log.run.details["inference_us"]) > 0
    assert log.of("witness", "steady")
    assert log.of("floor")
    assert log.run.replicas[0].limits == log.run.tier.limits
    assert log.run.replicas[0].processes_outside == 0
    assert log.run.workers is not None
    assert log.run.workers.reported == log.run.workers.expected == 1
    steady = log.sampled("steady")
    assert {sample.net.established for sample in steady if sample.net} == {50}
    assert all(
        sample.server and sample.host and sample.processes["worker-1"].files > 50
        for sample in steady
    )
    assert lab.verdict().outcome in ("PASS", "FAIL", "INVALID")
    (folder,) = lab.runs()
    assert (folder / "report.html").stat().st_size > 10_000
    assert "Aggregated" in (folder / "master.log").read_text(), "what the generator said is kept"
    assert not left_over(process, log.run)


def test_a_server_that_dies_ends_the_run_with_what_was_seen(lab):
    """Its end is reported, the record is whole so far, and nothing is left."""
    process = lab.start(*SHORT)
    run = lab.await_phase("ramp", process)
    os.kill(process_of(run, "server"), signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode in (1, 2)
    log = lab.stored()
    assert log.run.ended is not None
    assert (log.run.ended.kind, "the server ended with -9" in log.run.ended.sentence) == (
        "server_died",
        True,
    )
    assert log.of("users", "ramp")
    assert not left_over(process, log.run)


def test_a_server_killed_for_want_of_memory_differs_from_one_that_crashed(lab):
    """FAIL, for the limits were in force: the sentence and the objective's own line say that it was
    memory."""
    trigger = lab.plant("hoard", memory="256M")
    process = lab.start(*SHORT)
    lab.await_phase("ramp", process)
    trigger.touch()
    finish(process, 1, "out of memory: 1 kill")
    verdict = lab.verdict()
    assert {"ends, hangs or restarts of the server", "kills for want of memory"} <= {
        check.what for check in verdict.objective if check.measured and not check.holds
    }
    assert not left_over(process, lab.stored().run)


def test_a_worker_that_is_killed_makes_the_run_invalid(lab):
    """The server is not blamed for what happens to the generator; what was seen before is kept."""
    process = lab.start("users=100", "rate=50", "duration=2s")
    run = lab.await_phase("ramp", process)
    os.kill(process_of(run, "generator"), signal.SIGKILL)
    finish(process, 2, "The run broke off: worker-1 ended with -9")
    assert lab.stored().of("users", "ramp")
    assert not left_over(process, lab.stored().run)


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(lab):
    """A real one: the runs' folder is a file system of 32 kB."""
    lab.store.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(lab.store)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        process = lab.start(*SHORT)
        finish(process, 4, "No space left on device; what was seen before is in")
        log = lab.stored()
        assert log.samples or log.seconds
        assert not left_over(process, log.run)
    finally:
        subprocess.run(["umount", str(lab.store)], check=True)


def test_ctrl_c_leaves_nothing_running_and_a_second_lab_is_refused(lab):
    """Two labs would measure each other; an interrupted run stays readable."""
    process = lab.start(*SHORT)
    run = lab.await_phase("ramp", process)
    holder = f"on this machine: process {process.pid}, `loadlab load "
    finish(lab.start(), 4, f"another run of the load lab is active {holder}")
    process.send_signal(signal.SIGINT)
    finish(process, 130, "interrupted by the user")
    log = lab.stored()
    assert log.run.ended is not None
    assert log.run.ended.kind == "interrupted"
    assert not left_over(process, run)


def test_a_server_that_cannot_start_is_no_verdict(lab):
    """Exit code 4, with how it ended: the tier's memory holds no Python."""
    lab.limit(memory="8M")
    finish(lab.start("engine=raw", "users=20", "duration=2s"), 4, "out of memory")


def test_rows_of_another_model_are_found_before_anything_is_measured(lab):
    """The given server refuses the first of them: exit code 4, and its own words are quoted."""
    with serving(lab.bundles) as server:
        process = lab.start(
            "engine=raw",
            "users=20",
            "duration=2s",
            "model=penguins-svm",
            f"target=127.0.0.1:{server.port}",
            backend="",
        )
        said = plain(finish(process, 4, "the server refuses a row of this model:"))
        assert f"sends rows of model=penguins-svm to http://127.0.0.1:{server.port}/predict" in said
        assert "Name the model that answers there with model=" in said
        assert "null server" not in said
        assert not lab.runs()
        assert not left_over(process)
        assert server.process.poll() is None


def test_a_server_that_fails_at_the_first_row_is_found_before_anything_is_measured(lab):
    """As a service of another model does, whose code finds no such column: its words are quoted,
    with what to do."""
    with misbehaving(Faults(error_every=1)) as port:
        process = lab.start("users=20", f"target=127.0.0.1:{port}", backend="", tier="")
        said = plain(finish(process, 4, "got 500"))
    assert "name the model that answers there with model=" in said
    assert "null server" not in said
    assert not lab.runs()


def test_a_given_server_gets_the_rows_of_its_models_bundle(lab):
    """Of a model of one's own, of which the lab has no data: its first row is the bundle's."""
    write_bundle(lab.bundles, "mine", inputs=MIXED)
    with misbehaving(Faults(error_every=1)) as port:
        process = lab.start("model=mine", f"target=127.0.0.1:{port}", backend="", tier="")
        said = plain(finish(process, 4, "refuses a row of this model:"))
    assert all(f'"{column["name"]}":' in said for column in MIXED)


@pytest.mark.parametrize(
    "fault",
    [{}, {"error_every": 50}, {"cheats": True}],
    ids=["right", "1 in 50 is a 500", "only looks right"],
)
def test_a_given_server_is_judged_without_a_tier(lab, fault):
    """Its limits and counters cannot be seen, and no rule is broken by that; what users see of it
    fails it. (Whether a right one passes depends on how quiet the machine is.)"""
    words = ("engine=raw", "users=200", "rate=100", "duration=5s")
    with misbehaving(Faults(calm_s=12.0 if fault else 0.0, **fault)) as port:
        process = lab.start(*words, f"target=127.0.0.1:{port}", backend="", tier="")
        said, _ = process.communicate(timeout=250)
    log = lab.stored()
    assert not log.run.observed
    verdict = judge(log)
    hidden = {f.rule for f in verdict.findings if any(not c.observable for c in f.checks)}
    assert hidden == {"V5", "V6", "V8", "V11", "V15"}
    assert all(finding.holds for finding in verdict.findings if finding.rule in ("V6", "V11"))
    if fault:
        assert (process.returncode, verdict.outcome) == (1, "FAIL"), said
        assert verdict.sentence.startswith("The server ")
    else:
        assert process.returncode in (0, 2), said
        checks = [check for finding in verdict.findings for check in finding.checks]
        unknown = [check.what for check in checks if check.measured is None and check.observable]
        assert not unknown, "a rule that needs what cannot be seen keeps every run from a PASS"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["scenario=calm"], 3, "scenario=calm is unknown; there are steady"),
        (["user=many"], 3, "user=many is unknown; there are raw, fast, stock, fast-unmended"),
        (["speed=9"], 3, "speed=9: unknown; expected key=value with one of tier, scenario"),
        (["target=192.0.2.1:80"], 3, "load goes to this machine only"),
        (["target=127.0.0.1:9"], 4, "no connection: Connection refused: start the server"),
        (["model=unicorn", "engine=raw", "users=5", "duration=1s"], 4, "no bundle of unicorn"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(lab, words, code, says):
    """Usage is 3, infrastructure 4."""
    backend = "" if words[0].startswith("target") else "cgroup"
    finish(lab.start(*words, backend=backend), code, says)


def test_too_few_open_files_are_reported_before_anything_is_started(lab):
    """With the number that is needed, and where it is set."""
    process = lab.start(
        "engine=raw", "users=500", "duration=1s", before=("prlimit", "--nofile=300:300")
    )
    finish(process, 4, "500 connections need")
    assert not left_over(process)


def test_without_docker_containers_are_refused_and_never_waited_for(lab):
    """Exit code 4."""
    finish(
        lab.start(*SHORT, backend="compose", PATH="/nowhere"),
        4,
        "backend=compose: docker is not installed",
    )


def test_without_the_right_to_make_control_groups_there_is_no_run(lab):
    """Where they may only be read, as in most containers: exit code 4, and which one could not be
    made."""
    process = lab.start(*SHORT, before=("unshare", "--mount", "sh", "-c", READ_ONLY, "sh"))
    finish(process, 4, "cannot make the control group /sys/fs/cgroup")
    assert not left_over(process)


def test_a_given_server_needs_no_right_to_make_control_groups(lab):
    """Nor do containers: only the null server was in one."""
    with misbehaving(Faults()) as port:
        process = lab.start(
            *SHORT,
            f"target=127.0.0.1:{port}",
            backend="",
            tier="",
            before=("unshare", "--mount", "sh", "-c", READ_ONLY, "sh"),
        )
        said, _ = process.communicate(timeout=250)
    assert process.returncode in (0, 2), said
    found = lab.stored()
    assert found.of("floor")
    assert found.run.null_server is not None
    assert found.of("users", "ramp")
    assert not left_over(process, found.run)


def test_a_closed_terminal_leaves_nothing_running(lab):
    """It ends the run as Ctrl-C does; the server is in a session of its own, and would stay."""
    process = lab.start(*SHORT)
    run = lab.await_phase("ramp", process)
    process.send_signal(signal.SIGHUP)
    finish(process, 130, "interrupted by the user")
    assert not left_over(process, run)


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(lab):
    """Those that cannot be made on this machine end at once."""
    finish(lab.start("repeats=3", before=("taskset", "--cpu-list", "0")), 2)
    assert len(lab.runs()) == 3
    said = {judge(read(folder)).sentence.partition(". ")[0] for folder in lab.runs()}
    assert len(said) == 1
    assert "this process may use 1" in said.pop() or os.cpu_count() == 1


@pytest.mark.skipif((os.cpu_count() or 1) > 8, reason="a machine that is large enough")
def test_a_tier_that_needs_more_cores_is_invalid(lab):
    """The server would compete with its generator, and fail for that."""
    assert "needs 9 cores" in plain(finish(lab.start(tier="four-by-two"), 2))
