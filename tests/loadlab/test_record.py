"""Stored load runs: what is written is read again, and what was cut off is named."""

import gzip
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as some

from loadlab.record import machine
from loadlab.record.histogram import edge, index, merge, pack
from loadlab.record.schema import Ended, Sample, Second
from loadlab.record.store import Recorder, StoreError, compress, read
from support.runs import fresh

microseconds = some.dictionaries(some.integers(0, 10**8), some.integers(1, 1000), max_size=30)


@given(some.integers(0, 10**9))
def test_buckets_are_numbered_without_holes_as_latency_has_them(value):
    """A bucket's number and its edge belong together, and the next number is the next bucket."""
    assert edge(index(value)) <= value < edge(index(value) + 1)


@given(microseconds, microseconds)
def test_packed_histograms_add_up(left, right):
    """What two workers packed is what one would have counted."""
    assert merge([pack(left), pack(right)]) == merge([pack(left)]) + merge([pack(right)])
    assert merge([pack(left)]).total() == sum(left.values())


def test_a_run_is_read_as_it_was_written(tmp_path):
    """Packed or not."""
    made = fresh()
    folder = made.write(tmp_path / "run")
    plain = read(folder)
    compress(folder)
    packed = read(folder)

    assert plain == packed
    assert plain.missing == []
    assert (plain.run, plain.seconds, plain.samples) == (made.run, made.seconds, made.samples)
    assert not (folder / "seconds.jsonl").exists()


def test_a_killed_run_keeps_all_but_its_last_line(tmp_path):
    """The writer was killed in the middle of a line, and nobody wrote the end."""
    made = fresh()
    made.run.ended, made.run.phases = None, made.run.phases[:6]
    folder = made.write(tmp_path / "run")
    lines = (folder / "seconds.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "seconds.jsonl").write_bytes(b"".join(lines[:80]) + lines[80][:40])

    log = read(folder)

    assert len(log.seconds) == 80
    assert log.missing == [
        "1 unreadable line of seconds.jsonl",
        "the run's end: it was killed, or it still runs",
        "the phase drain",
    ]


def test_missing_files_are_named(tmp_path):
    """Samples that were never written, and a packed file that was cut off."""
    folder = fresh().write(tmp_path / "run")
    (folder / "samples.jsonl").unlink()
    whole = gzip.compress((folder / "seconds.jsonl").read_bytes())
    (folder / "seconds.jsonl.gz").write_bytes(whole[: len(whole) // 2])

    log = read(folder)

    assert 0 < len(log.seconds) < len(fresh().seconds)
    assert [line.split(":")[0] for line in log.missing[-2:]] == ["seconds.jsonl", "samples.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "run.json cannot be read, it is damaged"),
        (b'{"format": 99}', "format is 99, expected 1: another version"),
        (b'{"format": 1}', "id"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, content, message):
    """The message names the file, and the field."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(StoreError, match=message):
        read(tmp_path)


def test_phases_follow_one_another(tmp_path):
    """A phase ends where the next begins; lines are in the file at once."""
    run = fresh().run
    run.phases, run.ended = [], None
    with Recorder(tmp_path / "run", run) as recorder:
        recorder.begin("ramp", 1.5, users=10)
        recorder.begin("steady", 3.0, users=10)
        recorder.second(Second(t=3, series="users", phase="steady"))
        recorder.sample(Sample(t=3.1))
        assert len(read(tmp_path / "run").seconds) == len(read(tmp_path / "run").samples) == 1
        recorder.end(Ended(kind="complete"), 9.0)

    log = read(tmp_path / "run")
    assert [(phase.name, phase.start_s, phase.end_s) for phase in log.run.phases] == [
        ("ramp", 1.5, 3.0),
        ("steady", 3.0, 9.0),
    ]
    assert log.lasted_s("steady") == 6.0


def test_a_machine_is_calibrated_against_the_reference():
    """Three speeds in their units, and their mean as a multiple of the reference machine's."""
    found = machine.calibrate()
    assert 0.1 < found.python_mops < 1000
    assert found.syscalls_per_s > 1000
    assert found.loopback_per_s > 100
    product = 1.0
    for name, reference in machine._REFERENCE.items():
        product *= getattr(found, name) / reference
    assert found.score == pytest.approx(product ** (1 / 3), abs=0.001)


def test_a_busy_machine_names_the_processes_that_keep_it_busy(monkeypatch):
    """So that their user can stop them."""
    every, script = machine._used_s, "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()  # it has started
        # Only the busiest are named, and on a shared machine others may be busier than this one.
        monkeypatch.setattr(
            machine,
            "_used_s",
            lambda: {who: s for who, s in every().items() if who.pid == busy.pid},
        )
        try:
            quiet = machine.watch(0.5)
        finally:
            busy.kill()
    (reason,) = [each for each in quiet.reasons if each.startswith("others use")]
    assert re.search(rf"\({busy.pid}\) [01]\.\d\d", reason)
