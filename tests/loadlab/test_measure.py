"""Real servers in real control groups; skipped with the reason where none can be made."""

import argparse
import contextlib
import dataclasses
import io
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadlab.experiments.bench import command, models, peers
from loadlab.experiments.bench import measure as measuring
from loadlab.experiments.bench.command import Refused
from loadlab.experiments.bench.measure import Load, check_cpus, measure, server_cpu
from loadlab.experiments.bench.subjects import SUBJECTS, Place, Subject
from loadlab.record import machine
from loadlab.record.cgroup import Limits, Unavailable
from loadlab.record.machine import Quiet
from loadlab.target import programs
from loadlab.target.process import CannotStart, Command, control_group, free_port, running
from loadlab.target.programs import Case, clean_environment

LOAD = Load(
    regime="saturated",
    connections=2,
    seconds=0.2,
    warmup_s=0.1,
    timeout_s=5,
    limits=Limits(),
    server_cpus=server_cpu(),
)
SPARSE = msgspec.structs.replace(
    LOAD, regime="sparse", rate=1000, think_s=(0.02, 0.04), limits=Limits(cpus=0.5)
)
ANSWER = b'{"prediction":"setosa","probabilities":{}}'


@pytest.fixture(autouse=True)
def real():
    """Skips with the reason where no group can be made."""
    try:
        with control_group("probe"):
            pass
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def place(tmp_path):
    """A scratch directory with the answer that the null server repeats."""
    place = Place(tmp_path, "sqlite:///none.db", tmp_path)
    place.answer_file("iris").write_bytes(ANSWER)
    return place


@pytest.fixture
def case(tmp_path):
    """One row of iris."""
    return Case("iris", tmp_path, '{"features":[5.1,3.5,1.4,0.2]}', '{"prediction":"setosa"')


class Python(Subject, frozen=True, kw_only=True):
    """Runs Python with some arguments."""

    def command(self, place, *_):
        """They are its words."""
        return Command([sys.executable, *self.words], clean_environment(), place.root)


def starting(*arguments):
    """A subject that runs Python with these arguments."""
    return Python(key="x", says="a test", words=arguments)


@pytest.mark.parametrize("load", [LOAD, SPARSE])
@pytest.mark.parametrize("server", ["a", "a2", "a3"])
def test_a_server_is_measured_by_its_group(place, case, server, load):
    """Right answers, no failures, and CPU time that the server and nobody else used."""
    round_ = measure(place, SUBJECTS[server], case, load, number=2, seed=1)

    assert round_.reason == ""
    assert (round_.server, round_.model, round_.regime, round_.number) == (
        server,
        "iris",
        load.regime,
        2,
    )
    assert round_.figures is not None
    assert round_.figures.failed == 0
    assert 1 < round_.figures.cpu_us < 20_000
    assert round_.figures.memory.peak_bytes > 1_000_000


def test_a_wrong_answer_is_a_result_before_any_load(place, case):
    """The answer and what was expected are in the reason."""
    place.answer_file("iris").write_bytes(b'{"prediction":"virginica"}')

    round_ = measure(place, SUBJECTS["a2"], case, LOAD, number=1, seed=1)

    assert round_.figures is None
    assert (
        round_.reason
        == 'answers wrongly: 200 {"prediction":"virginica"}, expected {"prediction":"setosa"…'
    )


def test_a_client_that_fails_costs_one_round(place, case):
    """The reason says that it was the lab, not the server."""
    too_many = msgspec.structs.replace(LOAD, connections=100_000_000)

    round_ = measure(place, SUBJECTS["a2"], case, too_many, number=1, seed=1)

    assert round_.figures is None
    assert round_.reason.startswith(
        "the lab failed: loadlab.generator.epoll: 100000000 connections need"
    )


def test_a_server_that_cannot_start_is_a_result(place, case):
    """With its exit code and last words, and without the checkout's path."""
    round_ = measure(
        place,
        starting("-c", f"raise SystemExit('{place.root}/x is missing')"),
        case,
        LOAD,
        number=1,
        seed=1,
    )

    assert round_.reason == "cannot start in these limits: ended with 1: x is missing"


def test_a_server_that_is_killed_for_its_memory_says_so(place, case):
    """So a limit that is too small differs from a broken server."""
    limited = msgspec.structs.replace(LOAD, limits=Limits(memory_bytes=32 << 20))

    round_ = measure(
        place,
        starting("-c", "bytearray(99 << 20)[:] = bytes(99 << 20)"),
        case,
        limited,
        number=1,
        seed=1,
    )

    assert "out of memory: 1 kills" in round_.reason


def test_a_server_that_never_gets_ready_is_ended(place):
    """And nothing of it is left."""
    slow_start = starting("-c", "import time; time.sleep(60)").command(place, None, 0)
    slow = running("slow", slow_start, port=free_port(), limits=Limits(), ready_timeout_s=0.2)

    with pytest.raises(CannotStart, match="not ready after 0 s"), slow:
        pass


def test_a_server_without_a_group_is_ended_with_what_it_started(place):
    """For the null server, where no groups can be made: its CPU time is that of its processes."""
    child = "import time\nwhile True: time.sleep(0.01)"
    serve = (
        "import socket, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "while time.process_time() < 0.05: pass\n"  # A count of hundredths shows less as zero.
        "print(child.pid, flush=True); port = int(sys.argv[1])\n"
        "listener = socket.create_server(('127.0.0.1', port))\n"
        "[None for _ in iter(listener.accept, None)]"
    )
    port = free_port()
    command = starting("-c", serve, str(port)).command(place, None, port)
    command = dataclasses.replace(command, ready_path="")

    with running("alone", command, port=port, limits=None) as server:
        child_id = int(server.last_words())
        assert server.group.usage().cpu_s > 0

    assert server.group.usage().cpu_s == 0
    while Path(f"/proc/{child_id}").exists() and not is_zombie(child_id):
        time.sleep(0.01)


def is_zombie(pid):
    """Whether it has ended, and nobody has asked how."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_a_busy_machine_is_refused_with_the_reason(monkeypatch, tmp_path):
    """A figure from it would prove nothing."""
    monkeypatch.setattr(
        machine,
        "watch",
        lambda: Quiet(busy_cores=1.5, steal=0.0, reasons=["others use 1.50 cores"]),
    )
    monkeypatch.setattr(models, "check", lambda *_: None)
    monkeypatch.setattr(programs, "case", lambda *_: None)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers(dest="command"))
    asked = parser.parse_args(["bench", "--servers", "a"])

    with pytest.raises(Refused, match=r"not quiet: others use 1\.50 cores.*--despite-noise"):
        command.main(asked, tmp_path, Console(file=io.StringIO()))


def test_server_and_client_get_the_cpus_that_the_lab_may_use(monkeypatch):
    """Such as `taskset` or a container leave them; one is refused."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers(dest="command"))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: {5, 6})
    tasks, _ = command.chosen(parser.parse_args(["bench", "--regimes", "saturated"]))
    visits = peers.chosen(parser.parse_args(["peers"]))
    held = {task.load.server_cpus for task in tasks}
    held |= {load.server_cpus for visit in visits for load in visit.loads}
    check_cpus()

    assert held == {"5"}

    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: {6})
    with pytest.raises(Refused, match="need a CPU each, and this process may use only CPU 6"):
        command.main(parser.parse_args(["bench"]), Path(), Console(quiet=True))


def test_the_client_uses_a_cpu_that_the_lab_may_use(monkeypatch):
    """The last one that no process of the server is held to."""

    class Group:
        def processes(self):
            return [7]

    held = {0: {4, 5, 6}, 7: {4}}
    monkeypatch.setattr(measuring.os, "sched_getaffinity", held.__getitem__)
    assert measuring._client_cpu(Group()) == 6
    held[7] = {6}
    assert measuring._client_cpu(Group()) == 5
