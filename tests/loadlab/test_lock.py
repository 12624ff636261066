"""One lab at a time on a machine, whoever started it and in which checkout."""

import io
import subprocess
import sys
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from loadlab.experiments import trial
from loadlab.experiments.bench import command as bench
from loadlab.run import command, lock
from loadlab.run.lock import Busy, alone

HOLD = """
import sys
from loadlab.run.lock import alone
with alone():
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_lock(monkeypatch, tmp_path):
    """Not that of other tests, or of a run on this machine."""
    monkeypatch.setenv(lock.NAME, f"test-{tmp_path}"[-90:])


@contextmanager
def held(folder):
    """The lock in another process, which works in a folder; it is killed in the end."""
    words = [sys.executable, "-c", HOLD, "loadlab", "load", "tier=half-core"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=folder, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_of_another_checkout_is_named(tmp_path):
    """With all that is needed to find it; once it is killed its place is free."""
    with held(tmp_path) as process, pytest.raises(Busy) as refused, alone():
        pass
    said = str(refused.value)
    assert f"process {process.pid}, `loadlab load tier=half-core`, in {tmp_path}" in said
    assert "wait until it has ended, or end it" in said
    with alone():
        pass


def test_what_may_not_be_known_of_a_process_is_left_out(monkeypatch, tmp_path):
    """Another user's folder, and a process of another container."""
    monkeypatch.setattr(lock.psutil.Process, "cwd", _denied)
    with held(tmp_path) as process:
        with pytest.raises(Busy, match=f"process {process.pid}, `loadlab load tier=half-core`. "):
            alone().__enter__()
        monkeypatch.setattr(lock.psutil.Process, "cmdline", _denied)
        with pytest.raises(Busy, match=rf"process {process.pid}\. "):
            alone().__enter__()
        monkeypatch.setattr(lock.socket.socket, "getsockopt", lambda *_: lock._PEER.pack(0, 0, 0))
        with pytest.raises(Busy, match="on this machine, in another container"):
            alone().__enter__()


def _denied(_process):
    raise lock.psutil.AccessDenied


def test_every_command_that_measures_holds_it(monkeypatch):
    """Load runs end with 4, as the experiments made of them; the bench refuses."""
    console = Console(file=io.StringIO(), width=400)
    monkeypatch.setattr(bench, "check_cpus", lambda: None)
    with alone():
        words = ["tier=half-core"]
        load = command.main(Namespace(command="load", words=words), ROOT, console)
        search = trial.command(Namespace(command="search", words=words), ROOT, console, _never)
        for kind in ("bench", "ablate", "ladder", "protocols", "memory", "peers"):
            with pytest.raises(Busy):
                bench.main(Namespace(command=kind), ROOT, console)
    assert (load, search) == (4, 4)
    assert console.file.getvalue().count("another run of the load lab") == 2


def _never(*_):
    raise AssertionError("carried out")
