"""The metrics that workers share: of one that has ended, and while their directory cannot be
written."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from halfcore.metrics.counters import Metrics
from halfcore.metrics.drift import Counted, DriftSnapshot
from halfcore.metrics.exposition import Exposition, Snapshot
from support.log import listen


class Watched:
    """Rows of one column in two ranges, which were expected to have half of them each."""

    def __init__(self, *counts: float) -> None:
        self._counts = list(counts)

    def count(self) -> None:
        """Nothing is new."""

    def snapshot(self) -> DriftSnapshot:
        """See `drift.Watched`."""
        return DriftSnapshot("1", {"x": Counted(list(self._counts), [0.5, 0.5])})


def counters(*rows: float) -> Metrics:
    """Of a worker that has answered three requests."""
    metrics = Metrics()
    metrics.of("iris").answered = 3
    metrics.of("iris").drift = Watched(*rows)
    return metrics


def test_a_worker_that_has_ended_keeps_its_requests_and_not_its_drift(tmp_path: Path) -> None:
    """Nothing it counts any more makes its rows grow old."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    written = msgspec.msgpack.encode(Snapshot.of(counters(600, 0)))
    (tmp_path / f"{ended.pid}.msgpack").write_bytes(written)
    exposition = Exposition(counters(300, 300), version="1", shared=tmp_path)

    text = exposition.text().decode()

    assert 'halfcore_requests_total{model="iris",outcome="200",route="predict"} 6.0' in text
    assert 'halfcore_drift_index{column="x",model="iris",version="1"} 0.0' in text


def test_a_full_disk_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not every second by every worker; and again after it could be written in between."""
    listen(caplog)
    shared = tmp_path / "shared"
    exposition = Exposition(Metrics(), version="1", shared=shared)
    own = exposition._own
    assert own is not None

    def say() -> list[str]:
        for _ in range(3):
            exposition._write(own)
        return [text for text in caplog.messages if "cannot share this worker's metrics" in text]

    (line,) = say()
    assert line.endswith("or let TMPDIR name another one")
    shared.mkdir()
    assert len(say()) == 1
    own.unlink()
    shared.rmdir()
    assert len(say()) == 2
