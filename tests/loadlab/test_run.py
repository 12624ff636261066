"""The parts of a run that need no server: ticks and seconds, phases, early ends, counters."""

import errno
import os
import resource
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from loadlab.generator.ledger import Ledger, Tick
from loadlab.record import counters
from loadlab.record.histogram import merge, pack, quantile
from loadlab.record.schema import Objective, Second
from loadlab.run import null_server
from loadlab.run.phases import _most_files
from loadlab.run.timeline import HUNG_S, Book, hopeless
from loadlab.target.serving import Sampler, Serving
from loadlab.verdict.figures import answered, response_ms


class Recorded:
    """Takes what a recorder would write."""

    def __init__(self) -> None:
        self.seconds: list[Second] = []
        self.phases: list[tuple[str, float, int]] = []

    def second(self, line: Second) -> None:
        """Keep a line."""
        self.seconds.append(line)

    def begin(self, name: str, at_s: float, users: int = 0) -> None:
        """Keep a phase."""
        self.phases.append((name, at_s, users))


def tick(t: int, *, worker: str = "a", answers: int = 0, **changes: object) -> Tick:
    """A worker's second with `answers` right answers of 1 ms."""
    response = pack({1000: answers}) if answers else []
    fields = {"sent": answers, "intended": answers, "answered": answers, "response": response}
    return Tick(**{"worker": worker, "t": t, "users": 0, **fields, **changes})


def test_a_ledger_counts_from_the_intended_start():
    """An answer that arrived 3 s after its request was due took 3 s, though it was sent a moment
    ago; a request is offered in the second it was due."""
    ledger = Ledger("a", epoch=100.0)
    ledger.begun(101.5)
    ledger.answered(101.5, sent=104.4, now=104.5)
    closed = ledger.tick()
    assert quantile(merge([closed.response]), 0.5) == pytest.approx(3_000_000, rel=0.01)
    assert quantile(merge([closed.service]), 0.5) == pytest.approx(100_000, rel=0.01)
    assert quantile(merge([closed.lag]), 0.5) == pytest.approx(2_900_000, rel=0.01)
    assert (closed.intended, closed.late) == (0, {1: 1})
    assert (closed.sent, closed.answered, closed.in_flight) == (1, 1, 0)
    assert ledger.tick().response == []


def test_the_ramp_begins_with_the_first_user():
    """Not when the generator was started: that takes it seconds."""
    recorded = Recorded()
    book = Book(recorded, workers=1)  # type: ignore[arg-type]
    book.begin("warmup", 1.2)
    book.ramp_users = 50
    book.take(
        [
            tick(3),
            tick(4, first_s=4.7, users=3, answers=3),
            tick(5, first_s=4.7, users=6, answers=6),
        ]
    )
    assert recorded.phases == [("warmup", 1.2, 0), ("ramp", 4.7, 50)]
    assert [line.phase for line in recorded.seconds] == ["warmup", "ramp", "ramp"]


def test_seconds_of_several_workers_add_up_and_are_whole_when_all_have_come():
    """A decision is never made on half of the users."""
    book = Book(Recorded(), workers=2)  # type: ignore[arg-type]
    book.begin("steady", 0.0)
    book.take(
        [
            tick(0, users=2, answers=2),
            tick(0, worker="b", users=3, answers=4),
            tick(1, users=2, answers=2),
        ]
    )
    assert (book.whole, book.next) == (0, 2)
    (second,) = book.since(0)
    assert sum(each.users for each in second) == 5
    assert (answered(second), response_ms(second, 0.5)) == (6, 1.0)


def test_a_late_request_is_offered_in_the_second_that_it_was_meant_for():
    """The rate asked for does not follow the rate that was possible."""
    recorded = Recorded()
    book = Book(recorded, workers=1)  # type: ignore[arg-type]
    book.begin("steady", 0.0)
    book.take([tick(7, answers=5, intended=3, late={5: 2})])
    assert sorted((line.t, line.intended, line.answered) for line in recorded.seconds) == [
        (5, 2, 0),
        (7, 3, 5),
    ]


def test_a_server_that_answers_nothing_hangs():
    """Only if it was asked."""
    asked, idle = [[tick(0, in_flight=5)]] * HUNG_S, [[tick(0)]] * HUNG_S
    fault = hopeless(asked, Objective())
    assert fault is not None
    assert (fault.kind, "5 requests waited" in fault.sentence) == ("server_hung", True)
    assert hopeless(idle, Objective()) is None
    assert hopeless(asked[1:], Objective()) is None


def test_time_outs_of_a_server_that_hangs_do_not_make_it_one_that_errs():
    """Users give up after 10 s, so five seconds of nothing but errors may be over before fifteen of
    silence. Seen as: INVALID, for a server that errs has to be measured well."""
    waiting = [tick(0, in_flight=500)]
    given_up = [tick(0, in_flight=400, failures={"timeout": 50})]
    assert hopeless([waiting] * 9 + [given_up] * 5, Objective()) is None
    assert (fault := hopeless([waiting] * 10 + [given_up] * 5, Objective())) is not None
    assert fault.kind == "server_hung"
    refusing = [tick(0, in_flight=1, failures={"timeout": 1, "reset": 49})]
    assert (fault := hopeless([waiting] * 10 + [refusing] * 5, Objective())) is not None
    assert fault.kind == "aborted"


def test_a_server_that_answers_the_witness_does_not_hang():
    """Then it is the generator that gets nothing done, and the rules say so."""
    assert hopeless([[tick(0, in_flight=5)]] * HUNG_S, Objective(), witnessed=1) is None
    book = Book(Recorded(), workers=1)  # type: ignore[arg-type]
    book.begin("steady", 0.0)
    book.take([tick(3, answers=4), tick(9, answers=2)], "witness")
    assert (book.witnessed(3), book.witnessed(4), book.witnessed(10)) == (6, 2, 0)


def test_a_run_without_hope_is_stopped():
    """More than 5 % errors for 5 s, or a p95 of ten times the objective for 10 s."""
    failing = [[tick(0, answers=90, failures={"reset": 10})]] * 5
    assert (fault := hopeless(failing, Objective())) is not None
    assert "10%" in fault.sentence
    slow = [[tick(0, answers=100, response=pack({1_100_000: 100}))]] * 10
    assert (fault := hopeless(slow, Objective(p95_ms=100))) is not None
    assert "p95 was above 1000 ms for 10 s" in fault.sentence
    assert hopeless(slow, Objective(p95_ms=200)) is None
    assert hopeless([*failing[:4], [tick(0, answers=100)]], Objective()) is None


def test_connections_are_counted_exactly():
    """Established ones to a port, those of others not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert counters.established(port) == 0
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(7)]
        assert counters.established(port) == 7
        for each in opened:
            each.close()


def test_connections_that_cannot_be_counted_are_not_recorded_as_none(monkeypatch):
    """Rule V7 would call them closed."""

    def refused(_port: int) -> int:
        raise OSError("sock_diag: error 93")

    monkeypatch.setattr(counters, "established", refused)
    sampler = Sampler(lambda _sample: None, epoch=0.0)
    sampler.server = Serving(addresses=[("127.0.0.1", 1)])
    assert sampler.look().net is None


def test_this_machine_and_this_process_can_be_read():
    """Every counter that the rules need is there on this kernel."""
    host, tcp, me = counters.host(), counters.tcp(), counters.process(os.getpid())
    assert host.total_s > host.busy_s > 0
    assert {"ActiveOpens", "ListenOverflows", "ListenDrops", "RetransSegs", "OutSegs", "tw"} <= set(
        tcp
    )
    assert me is not None
    assert me.cpu_s > 0
    assert me.files == len(list(Path("/proc/self/fd").iterdir())) - 1
    assert counters.process(2**22 + 1) is None


def test_a_process_s_limit_on_open_files_is_read():
    """Of any user's process: a container's belongs to another one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert _most_files(os.getpid()) == (1 << 30 if soft == resource.RLIM_INFINITY else soft)


def test_a_full_disk_stops_the_sampler_and_is_kept(tmp_path: Path):
    """The run ends with it; a thread that dies unseen would not be noticed."""

    def full(_sample: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sampler = Sampler(full, epoch=0.0)
    sampler.start()
    sampler._thread.join(10)
    assert sampler.failure is not None
    assert sampler.failure.errno == errno.ENOSPC


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_above_the_generator_is_counted(tmp_path: Path, version: int):
    """Its own group's and every one above it, each once; a group that is gone, or has no quota,
    adds nothing."""
    top = tmp_path / "cgroup" / ("cpu" if version == 1 else "")
    for folder, stopped in (("pod", 7), ("pod/worker", 30), ("elsewhere", 900)):
        (top / folder).mkdir(parents=True)
        (top / folder / "cpu.stat").write_text(
            f"nr_periods 40\nnr_throttled {stopped}\nthrottled_time 1\n"
        )
    if version == 2:
        (top / "cgroup.controllers").touch()
        (top / "cpu.stat").write_text("usage_usec 12\n")
    for pid, path in ((1, "/pod/worker"), (2, "/pod/worker"), (3, "/gone")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(
            f"4:cpu,cpuacct:{path}\n1:name=systemd:/\n" if version == 1 else f"0::{path}\n"
        )
    assert counters.throttled_periods([1, 2, 3, 4], tmp_path / "cgroup", tmp_path) == 37


class Driven:
    """A generator of two workers that brings ten users in two seconds; it reports a second of both
    each time it is asked."""

    def __init__(self) -> None:
        self.t = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ticks(self) -> list[Tick]:
        """The next second; a failure in the ramp."""
        self.t += 1
        users, failures = (5, {}) if self.t > 1 else (2, {"reset": 1})
        return [
            tick(self.t, worker=worker, users=users, answers=100, failures=failures)
            for worker in "ab"
        ]

    def broken(self) -> str:
        """Never."""
        return ""

    def kill(self) -> None:
        """Nothing to end."""


def test_the_null_server_is_measured_while_all_users_are_there(monkeypatch: pytest.MonkeyPatch):
    """CPU time per answer of the seconds after the first with all users; failures of the ramp
    too."""
    used_s = iter(0.1 * n for n in range(100))
    group = SimpleNamespace(usage=lambda: SimpleNamespace(cpu_s=next(used_s)))
    monkeypatch.setattr(null_server, "generating", lambda *_: Driven())
    monkeypatch.setattr(null_server.time, "sleep", lambda _s: None)
    parts = [SimpleNamespace(role=role) for role in ("lab", "generator", "generator")]
    load = SimpleNamespace(users=10, rate=5.0, workers=2)
    driven = null_server._drive(
        Path(),
        load,  # type: ignore[arg-type]
        parts,  # type: ignore[arg-type]
        SimpleNamespace(group=group),  # type: ignore[arg-type]
        seconds=3,
    )
    ticks, found = null_server._summary(*driven, users=10)
    assert {each.t for each in ticks} == {3, 4, 5}
    assert found is not None
    assert (found.users, found.rate, found.failures, found.seconds) == (10, 200.0, 4, 3)
    assert found.cpu_us == pytest.approx(0.1 / 200 * 1e6)
