"""The metrics that workers share: of one that has ended, and while their directory cannot be
written."""

import subprocess
import threading
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

    text = exposition.text(exposition.snapshot()).decode()

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


async def test_the_text_of_many_models_is_not_made_on_the_event_loop(tmp_path: Path) -> None:
    """Of 500 it takes a second. What it counts is taken before, where it is counted."""
    metrics = Metrics()
    for number in range(50):
        metrics.of(f"m{number}").answered = 3
    exposition = Exposition(metrics, version="1", shared=None)
    made: list[str] = []
    text = exposition.text

    def spied(snapshot: Snapshot) -> bytes:
        made.append(threading.current_thread().name)
        metrics.of("m0").answered = 9
        return text(snapshot)

    exposition.text = spied  # type: ignore[method-assign]
    scraped = (await exposition.scrape()).decode()

    assert [name.partition("_")[0] for name in made] == ["metrics"]
    assert 'halfcore_requests_total{model="m0",outcome="200",route="predict"} 3.0' in scraped
    assert 'halfcore_batch_rows_count{model="m49"} 0.0' in scraped
    assert "process_cpu_seconds_total" in scraped
