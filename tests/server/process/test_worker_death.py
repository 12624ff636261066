"""One of several workers dies or stands still, or files run out: the others answer, and the server
mends itself."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.popen_fork import Popen
from pathlib import Path
from types import SimpleNamespace

import pytest
from granian import Granian
from granian.server.mp import WorkerProcess

from halfcore.http import granian_private
from halfcore.process import supervisor
from support.bundles import write_bundle
from support.client import parsed
from support.log import listen
from support.processes import GOOD, connect, cpu_s, listening, status, until, workers
from support.serving import Server, receive, request, serving


def metric(server: Server, *sample: str) -> float | None:
    """One sample of the server's metrics now."""
    answer = server.send(request("/metrics", method="GET"))
    return parsed(answer.partition(b"\r\n\r\n")[2].decode()).get(sample)


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """Requests of the other worker are answered, the death is counted and logged once, and two
    workers answer again, with one version, though the folder has a newer one now."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=2) as server, ExitStack() as stack:
        until(lambda: len(listening(server)) == 2, "two workers")
        killed, other = listening(server)
        write_bundle(tmp_path, version="2", created_at="2027-01-01T00:00:00Z")
        kept = [stack.enter_context(connect(server)) for _ in range(20)]
        os.kill(killed, signal.SIGKILL)
        answers = 0
        for connection in kept:
            try:
                connection.sendall(request("/predict", GOOD))
                answer = receive(connection)
            except ConnectionError:
                continue  # the dead worker's
            answers += answer.startswith(b"HTTP/1.1 200 ")
        assert answers > 0
        until(lambda: len(listening(server)) == 2, "the worker is replaced")
        assert other in listening(server)
        assert killed not in workers(server)
        for connection in [stack.enter_context(connect(server)) for _ in range(20)]:
            connection.sendall(request("/predict", GOOD))
            assert b'"version":"1"' in receive(connection), "the other worker's version"
        assert metric(server, "halfcore_worker_deaths_total") == 1
        assert server.stop() == 0
        assert server.process.stderr is not None
        lines = [line for line in server.process.stderr.read().splitlines() if "SIGKILL" in line]
        assert len(lines) == 1


def test_a_death_that_cannot_be_counted_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk: the supervisor goes on, and starts another worker."""
    listen(caplog)
    supervisor._on_death(tmp_path / "gone", "SIGKILL", 1)
    assert "a worker ended unexpectedly (SIGKILL)" in caplog.text


def test_a_signal_amid_a_wait_ends_the_server_though_it_was_missed_once() -> None:
    """The main thread may hold the lock of the event that a signal's handler sets; and granian
    clears that event after it has replaced a worker, even if it was set meanwhile."""
    event = threading.Event()
    end = supervisor.End(SimpleNamespace(wrks=[], signal_handler_interrupt=event.set))
    end.start()
    with event._cond:  # type: ignore[attr-defined]  # as `event.wait` does for a moment
        end(signal.SIGTERM)
    assert event.wait(90)
    event.clear()
    assert event.wait(90)


def test_a_worker_that_ended_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of granian waits for each worker, too. On a busy machine it has received the exit
    code from the kernel, and `multiprocessing` does not know it yet."""
    polled = 0
    poll = Popen.poll

    def slow_poll(popen: Popen, flag: int = os.WNOHANG) -> int | None:
        nonlocal polled
        polled += 1
        return None if polled < 20 else poll(popen, flag)

    monkeypatch.setattr(Granian, "_spawn_worker", lambda server: WorkerProcess(server, 0, int, ()))
    killed: list[object] = []
    monkeypatch.setattr(WorkerProcess, "kill", killed.append)
    make = granian_private.supervisor(lambda *_: None)
    server = make("no:app", workers_kill_timeout=90, log_enabled=False)
    worker = server._spawn_worker()
    worker.inner.start()
    server.wrks = [worker]
    monkeypatch.setattr(Popen, "poll", slow_poll)
    server._stop_workers()
    assert polled >= 20
    assert killed == []
    assert not server.killed


@pytest.mark.slow
def test_a_worker_that_is_stopped_loses_nothing(tmp_path: Path) -> None:
    """While it stands still the other one answers; what it was sent is answered later."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=2) as server, ExitStack() as stack:
        until(lambda: len(listening(server)) == 2, "two workers")
        first = listening(server)[0]
        os.kill(first, signal.SIGSTOP)
        sent = [stack.enter_context(connect(server, timeout_s=1)) for _ in range(20)]
        late = []
        for connection in sent:
            connection.sendall(request("/predict", GOOD))
        for connection in sent:
            try:
                assert status(receive(connection)) == 200
            except TimeoutError:
                late.append(connection)
        assert 0 < len(late) < len(sent)
        os.kill(first, signal.SIGCONT)
        for connection in late:
            connection.settimeout(60)
            assert status(receive(connection)) == 200
        assert server.stop() == 0


@pytest.mark.slow
def test_a_worker_that_stays_stopped_does_not_delay_the_end(tmp_path: Path) -> None:
    """It is killed when its time is over, and the exit code says so."""
    write_bundle(tmp_path)
    with serving(tmp_path, workers=2, drain_timeout_s=1) as server:
        until(lambda: len(listening(server)) == 2, "two workers")
        os.kill(listening(server)[0], signal.SIGSTOP)
        assert server.stop() == 1
        assert server.process.stderr is not None
        assert "HALFCORE_DRAIN_TIMEOUT_S" in server.process.stderr.read()


@pytest.mark.slow
def test_a_server_without_free_files_waits_and_ends(tmp_path: Path) -> None:
    """Of 400 clients it serves as many as it may open files; it does not spin meanwhile, and
    SIGTERM ends it."""

    def few_files(command: Sequence[str]) -> Sequence[str]:
        return ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *command]

    write_bundle(tmp_path)
    with serving(tmp_path, wrap=few_files, idle_timeout_s=60) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server, timeout_s=1)) for _ in range(400)]
        answered = 0
        for connection in clients[:150]:
            connection.sendall(request("/predict", GOOD))
            answered += status(receive(connection)) == 200
        assert answered == 150
        before_s = cpu_s(server.process.pid)
        time.sleep(3)  # what is measured is the CPU time of doing nothing
        assert cpu_s(server.process.pid) - before_s <= 0.2 * 3
        assert server.stop() == 0


def test_workers_share_a_folder_in_memory_if_no_other_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `docker run --read-only`; if that fails too, the start ends with a sentence."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "read-only"))
    monkeypatch.setattr(supervisor, "_IN_MEMORY", str(tmp_path))
    with supervisor._shared_folder() as shared:
        assert Path(shared).parent == tmp_path

    listen(caplog)
    monkeypatch.setattr(supervisor, "_IN_MEMORY", str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match="2"):
        supervisor._shared_folder()
    assert "mount a tmpfs on /tmp" in caplog.text
