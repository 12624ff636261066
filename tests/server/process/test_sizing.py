"""The server fits itself to its limits, says why, and gives way to settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halfcore import host
from halfcore.__main__ import _model_bytes
from halfcore.process import sizing
from halfcore.process.sizing import Plan
from halfcore.settings.groups import Settings

MB = 1_000_000


def planned(**given: Any) -> Plan:
    """A plan with no limits but those given."""
    unlimited: dict[str, Any] = {
        "workers": 0,
        "max_connections": 0,
        "pin": "auto",
        "batch_scheduling": "auto",
        "max_in_flight": 0,
        "bytes_in_flight": 0,
        "max_body_bytes": 4 * MB,
        "coalesce": "auto",
        "coalesce_delay_s": 0.0,
        "quota": None,
        "cpus": 8,
        "memory_limit": None,
        "model_bytes": 0,
        "raise_open_files": lambda wanted: wanted,
    }
    return sizing.plan(**(unlimited | given))


def at_most(files: int) -> Callable[[int], int]:
    """A limit on open files that cannot be raised beyond a number."""
    return lambda wanted: min(wanted, files)


@pytest.mark.parametrize(
    ("quota", "workers"), [(None, 1), (0.1, 1), (0.99, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.5, 3)]
)
def test_there_is_a_worker_per_whole_core_of_quota(quota: float | None, workers: int) -> None:
    """Below two cores, and without a quota, there is one."""
    assert planned(quota=quota).workers == workers


@pytest.mark.parametrize(
    ("quota", "cpus", "on"),
    [(None, 8, False), (0.5, 8, True), (1.0, 8, True), (1.5, 8, False), (None, 1, True)],
)
def test_on_one_core_the_worker_is_pinned_and_scheduled_as_batch(
    quota: float | None, cpus: int, on: bool
) -> None:
    """Both are off where more than one core may be used."""
    plan = planned(quota=quota, cpus=cpus)
    assert (plan.pin, plan.batch_scheduling) == (on, on)


def test_a_pinned_worker_is_scheduled_as_batch() -> None:
    """Pinned alone, its threads would preempt one another for every request."""
    assert planned(pin="on").batch_scheduling
    assert not planned(pin="on", batch_scheduling="off").batch_scheduling


def test_settings_win_over_every_choice() -> None:
    """What is set is taken, and the reason says so."""
    plan = planned(
        quota=0.5,
        workers=1,
        max_connections=7,
        max_in_flight=5,
        bytes_in_flight=6,
        pin="off",
        batch_scheduling="off",
        coalesce="off",
    )
    assert (plan.workers, plan.max_connections, plan.max_in_flight) == (1, 7, 5)
    assert (plan.pin, plan.batch_scheduling, plan.coalesce_quota) == (False, False, 0.0)
    assert [
        reason.endswith("as set") for reason in plan.reasons if not reason.startswith("nofile")
    ] == [True] * 7
    assert plan.bytes_in_flight == 6


@pytest.mark.parametrize(
    ("quota", "workers", "near"),
    [(0.5, 0, 0.5), (0.1, 1, 0.1), (1.0, 0, 1.0), (1.5, 0, 0.0), (None, 0, 0.0), (0.5, 2, 0.0)],
)
def test_requests_gather_on_one_core_with_one_worker(
    quota: float | None, workers: int, near: float
) -> None:
    """Several workers would each judge by a quota that the others use too."""
    assert planned(quota=quota, workers=workers).coalesce_quota == near


def test_a_single_cpu_counts_as_a_quota_of_one_core() -> None:
    """Whether a machine has one CPU or a group allows one."""
    assert planned(cpus=1).coalesce_quota == 1.0


def test_requests_in_progress_are_bounded_by_the_memory_beside_the_connections() -> None:
    """Without a limit there is one per connection; with one there is room for a quarter of the
    connections at least."""
    assert planned().max_in_flight == planned().max_connections
    small = planned(memory_limit=256 * MB)
    assert small.max_connections // 4 <= small.max_in_flight < small.max_connections
    at_rest = sizing.MEMORY_AT_REST
    used = (
        small.max_connections * sizing.MEMORY_PER_CONNECTION
        + small.max_in_flight * sizing.MEMORY_PER_REQUEST
    )
    assert at_rest + used <= 256 * MB


def test_a_small_memory_limit_lowers_the_connections_and_says_so() -> None:
    """128 MB do not hold 10,000 connections: fewer are accepted, with a warning, and nobody is
    killed."""
    plan = planned(memory_limit=128 * MB)
    assert 0 < plan.max_connections < 10_000
    assert "10000 users do not fit" in plan.warnings[0]
    assert "128 MB" in plan.reasons[1]


def test_a_large_model_leaves_less_memory_for_connections() -> None:
    """Its file counts several times, once per worker."""
    assert (
        planned(memory_limit=256 * MB, model_bytes=10 * MB).max_connections
        < planned(memory_limit=256 * MB).max_connections
    )


@pytest.mark.parametrize(("challengers", "expected"), [("", 800), ("a=version:1", 1_400)])
def test_only_what_is_loaded_counts(tmp_path: Path, challengers: str, expected: int) -> None:
    """Of a model that is one of its versions, and one more if that challenges it."""
    for name, size in (("a/1-x", 500), ("a/2-x", 700), ("a/3-x", 600), ("b/1-x", 100)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.onnx").write_bytes(bytes(size))
    settings = Settings(bundles=tmp_path, challengers=challengers)
    assert _model_bytes(settings) == expected


@pytest.mark.parametrize("given", [0, 500])
def test_models_that_do_not_fit_are_the_warning(given: int) -> None:
    """Not how many users do: the kernel may end the process before it is ready, without a word."""
    plan = planned(memory_limit=256 * MB, model_bytes=200 * MB, max_connections=given)
    assert plan.max_connections == (given or 1)
    assert plan.warnings[0].startswith(
        "the models' files of 200 MB take some 870 MB in memory, and the memory limit is 256 MB"
    )


def test_connections_that_are_set_but_do_not_fit_are_warned_of() -> None:
    """The setting is taken, for the estimate may be wrong; the danger is said."""
    plan = planned(memory_limit=128 * MB, max_connections=10_000)
    assert plan.max_connections == 10_000
    assert "may be killed" in plan.warnings[0]


def test_connections_beyond_nofile_are_refused_with_a_warning() -> None:
    """A connection without a file descriptor cannot be served, whatever was set."""
    plan = planned(max_connections=10_000, raise_open_files=at_most(1024))
    assert plan.max_connections == 1024 - sizing.SPARE_FILES
    assert "nofile" in plan.warnings[0]
    assert plan.reasons[2].startswith("nofile 1024: the hard limit")


def test_the_limit_on_open_files_is_told() -> None:
    """Containers get whatever the engine allows, so the log says what that was."""
    assert (
        planned(max_connections=100).reasons[2]
        == f"nofile {100 + sizing.SPARE_FILES}: enough for max_connections"
    )


def write(path: Path, text: str) -> None:
    """A file of the kernel's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_limits_are_read_from_control_groups_version_2(tmp_path: Path) -> None:
    """The tightest limit of the group and all groups above it counts."""
    write(tmp_path / "self", "0::/a/b")
    write(tmp_path / "fs/cgroup.controllers", "cpu memory")
    write(tmp_path / "fs/a/b/cpu.max", "max 100000")
    write(tmp_path / "fs/a/cpu.max", "50000 100000")
    write(tmp_path / "fs/a/b/cpu.stat", "nr_periods 9\nnr_throttled 9\nthrottled_usec 9")
    write(
        tmp_path / "fs/a/cpu.stat",
        "usage_usec 7\nnr_periods 40\nnr_throttled 3\nthrottled_usec 1500000",
    )
    write(tmp_path / "fs/a/b/memory.max", "268435456")
    write(tmp_path / "fs/a/memory.max", "max")
    write(tmp_path / "fs/a/b/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2")
    assert host.cpu_quota(tmp_path / "fs", tmp_path / "self") == 0.5
    assert host.throttling(tmp_path / "fs", tmp_path / "self") == (40, 3, 1.5)
    assert host.memory_limit(tmp_path / "fs", tmp_path / "self") == 268435456
    assert host.memory_kills(tmp_path / "fs", tmp_path / "self") == 2


def test_limits_are_read_from_control_groups_version_1(tmp_path: Path) -> None:
    """In a container the group's path is the host's and not visible: its limits stand at the
    root."""
    write(tmp_path / "self", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "10000")
    write(tmp_path / "fs/cpu/cpu.cfs_period_us", "100000")
    write(tmp_path / "fs/cpu/cpu.stat", "nr_periods 40\nnr_throttled 3\nthrottled_time 1500000000")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "134217728")
    write(tmp_path / "fs/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5")
    assert host.cpu_quota(tmp_path / "fs", tmp_path / "self") == 0.1
    assert host.throttling(tmp_path / "fs", tmp_path / "self") == (40, 3, 1.5)
    assert host.memory_limit(tmp_path / "fs", tmp_path / "self") == 134217728
    assert host.memory_kills(tmp_path / "fs", tmp_path / "self") == 5


def test_no_limit_is_none(tmp_path: Path) -> None:
    """Version 1 writes no limit as a huge number or -1; a missing file is no limit either."""
    write(tmp_path / "self", "4:memory:/\n1:cpu:/")
    write(tmp_path / "fs/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "9223372036854771712")
    assert host.cpu_quota(tmp_path / "fs", tmp_path / "self") is None
    assert host.throttling(tmp_path / "fs", tmp_path / "self") is None
    assert host.memory_limit(tmp_path / "fs", tmp_path / "self") is None
    assert host.memory_kills(tmp_path / "fs", tmp_path / "self") == 0
    assert host.cpu_quota(tmp_path / "nothing", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("quota", "set_s", "delay_s"),
    [(0.5, 0.0, 0.004), (0.2, 0.0, 0.01), (0.01, 0.0, 0.02), (0.1, 0.003, 0.003)],
)
def test_the_less_cpu_time_the_longer_requests_gather(
    quota: float, set_s: float, delay_s: float
) -> None:
    """In proportion, up to a bound, unless it is set."""
    assert planned(quota=quota, coalesce_delay_s=set_s).coalesce_delay_s == pytest.approx(delay_s)


def loaded(plan: Plan, left_mb: float | None, given: int = 0) -> Plan:
    """The plan after the models took what they take."""
    left = None if left_mb is None else int(left_mb * MB)
    return sizing.after_loading(
        plan, memory_left=left, given=given, bytes_given=0, max_body_bytes=4 * MB
    )


def test_models_that_take_more_than_expected_leave_fewer_connections() -> None:
    """The log says so, with a warning where the promised users do not fit any more."""
    plan = planned(memory_limit=256 * MB)
    fitted = loaded(plan, 95)

    assert (fitted.max_connections, fitted.max_in_flight) == (5000, 1250)
    assert fitted.reasons == [
        "max_connections 5000: the loaded models leave 95 MB, some 5000 connections",
        "max_bytes_in_flight 7500000: half of the memory that is left next to the connections",
    ]
    assert len(fitted.warnings) == 1


@pytest.mark.parametrize("left_mb", [None, 500])
def test_models_that_take_less_change_nothing(left_mb: float | None) -> None:
    """Nor a server without a limit."""
    plan = planned(memory_limit=256 * MB)
    fitted = loaded(plan, left_mb)

    assert fitted.max_connections == plan.max_connections
    assert not fitted.warnings
    assert all(reason.startswith("max_bytes_in_flight") for reason in fitted.reasons)


@pytest.mark.parametrize(
    ("left_mb", "most_mb"), [(500, (500 - 10 - 12_000 * 0.014) / 2), (180, 15), (20, 4)]
)
def test_large_requests_get_half_of_what_the_connections_leave(
    left_mb: float, most_mb: float
) -> None:
    """And room for one body at least."""
    fitted = loaded(planned(memory_limit=1000 * MB), left_mb)
    assert fitted.bytes_in_flight == pytest.approx(most_mb * MB, rel=0.01)


def test_connections_that_are_set_stay_and_are_warned_of() -> None:
    """Whoever sets them decides."""
    fitted = loaded(planned(memory_limit=256 * MB, max_connections=9000), 95, given=9000)

    assert fitted.max_connections == 9000
    assert "may be killed" in fitted.warnings[0]
