"""Control groups, real ones where this process may make them, and a copy of version 2's files
everywhere."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadlab.record import cgroup
from loadlab.record.cgroup import PARENT, ROOT, Group, Limits, Unavailable
from loadlab.target.process import control_group, create_group

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


@pytest.fixture
def real():
    """Skips with the reason where no group can be made."""
    try:
        with control_group("probe"):
            pass
    except Unavailable as reason:
        pytest.skip(str(reason))


def burn(group, seconds):
    """Use CPU time inside a group; returns the wall time."""
    begin = time.monotonic()
    subprocess.run(group.wrap([sys.executable, "-c", BURN.format(seconds=seconds)]), check=True)
    return time.monotonic() - begin


def test_a_group_counts_the_cpu_time_of_its_processes(real):
    """At least what the process itself saw."""
    with control_group("count") as group:
        before = group.usage()
        burn(group, 0.1)
        used = group.usage().since(before)

    assert 0.1 <= used.cpu_s < 20


def test_a_quota_stops_a_process(real):
    """Of a fiftieth of a core, 0.02 s of work cannot be done in less than half a second, and the
    kernel counts the stops. Not a fifth: on a machine that others use, a group that gets little
    more than its quota was seen to be stopped three times for no time at all."""
    with control_group("quota", Limits(cpus=0.02)) as group:
        wall_s = burn(group, 0.02)
        usage = group.usage()

    assert wall_s > 0.5
    assert usage.throttled_periods > 0


def test_a_period_is_set_and_read_back(real):
    """As asked for."""
    short = Limits(cpus=0.25, memory_bytes=64 << 20, period_us=10_000)
    with control_group("period", short) as group:
        assert group.limits() == short


def test_a_burst_is_set_and_read_back(real):
    """At most one quota; skipped where the kernel has none, which `create` says."""
    saving = Limits(cpus=0.25, burst_us=25_000)
    try:
        with control_group("burst", saving) as group:
            assert group.limits() == saving
    except cgroup.Unavailable as reason:
        pytest.skip(str(reason))


def test_a_memory_limit_ends_who_passes_it(real):
    """The kill is counted, and the peak stays at the limit."""
    limit = 64 << 20
    with control_group("memory", Limits(memory_bytes=limit)) as group:
        done = subprocess.run(
            group.wrap([sys.executable, "-c", "bytearray(200 << 20)[:] = bytes(200 << 20)"])
        )
        memory = group.memory()

    assert done.returncode == -9
    assert memory.oom_kills == 1
    assert memory.peak_bytes <= limit


def test_the_process_keeps_its_id_and_its_exit_code(real):
    """Joining forks nothing: signals reach the server itself."""
    with control_group("exec") as group:
        process = subprocess.Popen(
            group.wrap(
                [sys.executable, "-c", "import os; print(os.getpid()); raise SystemExit(7)"]
            ),
            stdout=subprocess.PIPE,
        )
        said, _ = process.communicate()

    assert int(said) == process.pid
    assert process.returncode == 7


def test_a_group_is_removed_with_what_is_left_in_it(real):
    """Even when the block fails."""
    left = []

    def fail_with_a_process_inside():
        with control_group("left") as group:
            process = subprocess.Popen(group.wrap(["sleep", "60"]))
            left.append((group.name, process))
            while process.pid not in group.processes():
                time.sleep(0.01)
            assert cgroup.find(group.name).processes() == [process.pid]
            raise LookupError

    with pytest.raises(LookupError):
        fail_with_a_process_inside()

    ((name, process),) = left
    assert process.wait(60) == -9
    with pytest.raises(Unavailable, match="no control group"):
        cgroup.find(name)


def test_without_root_the_reason_is_reported(monkeypatch):
    """Instead of a traceback about a file."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="needs root"):
        cgroup.version(ROOT if ROOT.is_dir() else Path("/"))


def test_a_machine_without_groups_is_reported(tmp_path):
    """The path is named."""
    with pytest.raises(Unavailable, match="does not exist"):
        cgroup.version(tmp_path / "none")


@pytest.fixture
def version_2(tmp_path):
    """A directory that looks like version 2, with what the kernel would have put into a group."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory")
    folder = tmp_path / PARENT / "1-server"
    folder.mkdir(parents=True)
    (tmp_path / PARENT / "cgroup.subtree_control").write_text("cpu memory")
    stat = (
        "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 40\nnr_throttled "
        "3\nthrottled_usec 90000\nnr_bursts 0\n"
    )
    (folder / "cpu.stat").write_text(stat)
    (folder / "memory.current").write_text("90000000\n")
    (folder / "memory.peak").write_text("95000000\n")
    (folder / "memory.stat").write_text(
        "anon 70000000\nfile 5000000\nsock 4096\nworkingset_refault 12\n"
    )
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n")
    return tmp_path


def test_version_2_is_read_in_its_own_units(version_2):
    """Microseconds and bytes, under the kernel's names."""
    group = Group("1-server", 2, version_2)

    usage, memory = group.usage(), group.memory()

    assert (usage.cpu_s, usage.periods, usage.throttled_periods) == (1.5, 40, 3)
    assert (memory.current_bytes, memory.peak_bytes) == (90_000_000, 95_000_000)
    assert memory.kinds == {"anon": 70_000_000, "file": 5_000_000, "sock": 4096}
    assert (memory.limit_hits, memory.oom_kills) == (2, 1)


def test_version_2_is_limited_in_its_own_files(version_2):
    """Half a core is 50 ms in every 100 ms; memory without swap."""
    create_group(Group("1-server", 2, version_2), Limits(cpus=0.5, memory_bytes=256_000_000))

    folder = version_2 / PARENT / "1-server"
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert (folder / "memory.max").read_text() == "256000000"
    assert (folder / "memory.swap.max").read_text() == "0"


def test_version_2_keeps_period_and_burst_in_two_files(version_2):
    """cpu.max has quota and period; what may be saved up is in another file, where the kernel has
    it."""
    group = Group("1-server", 2, version_2)
    limits = Limits(cpus=0.25, memory_bytes=1 << 20, period_us=10_000, burst_us=2500)
    with pytest.raises(cgroup.Unavailable, match=r"cpu\.max\.burst is missing"):
        create_group(group, limits)

    folder = version_2 / PARENT / "1-server"
    (folder / "cpu.max.burst").write_text("0")
    create_group(group, limits)

    assert (folder / "cpu.max").read_text() == "2500 10000"
    assert (folder / "cpu.max.burst").read_text() == "2500"
    assert group.limits() == limits


def test_a_group_without_limits_says_so_in_both_versions(version_2, tmp_path):
    """Version 2 writes max, version 1 writes -1 and a number near 2^63."""
    folder = version_2 / PARENT / "1-server"
    (folder / "cpu.max").write_text("max 100000\n")
    (folder / "memory.max").write_text("max\n")
    old = tmp_path / "old"
    for name, text in {
        "cpu/g/cpu.cfs_quota_us": "-1\n",
        "cpu/g/cpu.cfs_period_us": "100000\n",
        "memory/g/memory.limit_in_bytes": "9223372036854771712\n",
    }.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(text)

    assert Group("1-server", 2, version_2).limits() == Limits()
    assert Group("g", 1, old, "").limits() == Limits()


def test_version_1_is_read_in_its_own_units(tmp_path):
    """Nanoseconds and bytes, from a folder per controller."""
    for name, text in {
        "cpuacct/g/cpuacct.usage": "1500000000\n",
        "cpu/g/cpu.stat": "nr_periods 40\nnr_throttled 3\nthrottled_time 90000000\n",
        "memory/g/memory.usage_in_bytes": "90000000\n",
        "memory/g/memory.max_usage_in_bytes": "95000000\n",
        "memory/g/memory.kmem.usage_in_bytes": "4000\n",
        "memory/g/memory.failcnt": "2\n",
        "memory/g/memory.stat": "cache 10\nrss 70\npgfault 3\n",
        "memory/g/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    group = Group("g", 1, tmp_path, "")

    usage, memory = group.usage(), group.memory()

    assert (usage.cpu_s, usage.periods, usage.throttled_periods) == (1.5, 40, 3)
    assert (memory.current_bytes, memory.peak_bytes) == (90_000_000, 95_000_000)
    assert memory.kinds == {"rss": 70, "cache": 10, "kernel": 4000, "tcp": 0}
    assert (memory.limit_hits, memory.oom_kills) == (2, 1)
