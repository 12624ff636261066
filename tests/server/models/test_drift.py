"""Requests counted in the manifest's ranges, and how far they are from its shares."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halfcore import bundle
from halfcore.metrics.drift import ANSWERS, Counted, stability_index
from halfcore.models.drift import WINDOW_ROWS, Drift
from halfcore.pipeline.schema import Schema
from support.bundles import MIXED, NUMBERS, write_bundle

TWO = {"limits": [10.0, 20.0], "shares": [0.5, 0.3, 0.1, 0.1]}


def made(root: Path, inputs: list[dict[str, Any]], described: dict[str, Any]) -> Drift:
    """What counts for a bundle whose manifest has this distribution."""
    path = write_bundle(root, inputs=inputs, changes={"distribution": {"rows": 1000} | described})
    manifest = bundle.read(path).manifest
    assert manifest.distribution is not None
    return Drift(manifest, Schema.of(manifest), manifest.distribution)


def counted(drift: Drift, rows: list[list[float]], results: list[tuple[Any, ...]]) -> Any:
    """The counts of each column after a batch."""
    payload = np.array(rows, np.float32).tobytes()
    run = drift.watching(lambda *_: results)
    assert run(payload, len(rows)) is results
    drift.count()
    return {name: column.counts for name, column in drift.snapshot().columns.items()}


def test_rows_are_counted_in_the_ranges_of_their_columns(tmp_path: Path) -> None:
    """A limit belongs to the range that it begins; null is last; labels count for themselves."""
    first = NUMBERS[0]["name"]
    drift = made(
        tmp_path,
        NUMBERS,
        {"inputs": {first: TWO}, "answers": {"shares": [0.5, 0.25, 0.25]}},
    )
    rows = [[value, 0, 0, 0] for value in (-5, 9.9, 10, 19, 20, 1e9, float("nan"))]

    found = counted(drift, rows, [(label, []) for label in (0, 0, 2, 1, 0, 0, 0)])

    assert found == {first: [2, 2, 2, 1], ANSWERS: [5, 1, 1]}


def test_categories_nulls_and_unknown_values_count_for_themselves(tmp_path: Path) -> None:
    """By their index; one beyond counts as the last."""
    index, column = next((i, each) for i, each in enumerate(MIXED) if each["kind"] == "category")
    values = len(column["categories"]) + 2
    described = {"inputs": {column["name"]: {"shares": [1 / values] * values}}}
    drift = made(tmp_path, MIXED, described)
    rows = [
        [0.0] * index + [float(i)] + [0.0] * (len(MIXED) - index - 1) for i in range(values + 1)
    ]

    found = counted(drift, rows, [(0, [])] * len(rows))

    assert found == {column["name"]: [1] * (values - 1) + [2]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": [1.0], "shares": [1.0]},
        {"limits": [2.0, 1.0], "shares": [0.25] * 4},
        {"shares": [0.5, 0.3, 0.2]},
    ],
    ids=["too few shares", "unsorted", "categories of a number"],
)
def test_what_is_described_wrongly_is_left_out(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The model is served all the same."""
    drift = made(
        tmp_path,
        NUMBERS,
        {"inputs": {NUMBERS[0]["name"]: wrong, "no column": TWO}, "answers": {"shares": [1.0]}},
    )

    assert counted(drift, [[0, 0, 0, 0]], [(0, [])]) == {}


def test_some_rows_are_counted_in_a_second(tmp_path: Path) -> None:
    """Batches are kept until there are enough rows; more only after they were counted."""
    name = NUMBERS[0]["name"]
    drift = made(tmp_path, NUMBERS, {"inputs": {name: TWO}})
    run = drift.watching(lambda _, rows: [(0, [])] * rows)
    payload = np.zeros((400, 4), np.float32).tobytes()

    for _ in range(5):
        run(payload, 400)
    drift.count()
    drift.count()
    assert drift.snapshot().columns[name].counts == [1200, 0, 0, 0]

    run(payload, 400)
    drift.count()
    assert drift.snapshot().columns[name].counts == [1600, 0, 0, 0]


def test_many_small_batches_are_counted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the event loop each call of numpy for a batch of one row would delay predictions."""
    name = NUMBERS[0]["name"]
    described = {"inputs": {name: TWO}, "answers": {"shares": [0.5, 0.25, 0.25]}}
    drift = made(tmp_path, NUMBERS, described)
    run = drift.watching(lambda _, rows: [(2, [])] * rows)
    for row in range(300):
        run(np.array([row % 30, 0, 0, 0], np.float32).tobytes(), 1)
    calls, searchsorted = [], np.searchsorted
    monkeypatch.setattr(
        np, "searchsorted", lambda *args, **more: calls.append(1) or searchsorted(*args, **more)
    )
    drift.count()
    assert len(calls) == 1
    counts = {key: column.counts for key, column in drift.snapshot().columns.items()}
    assert counts == {name: [100, 100, 100, 0], ANSWERS: [0, 0, 300]}


def test_what_was_long_ago_counts_less(tmp_path: Path) -> None:
    """Counts are halved when there are many."""
    name = NUMBERS[0]["name"]
    drift = made(tmp_path, NUMBERS, {"inputs": {name: TWO}})
    run = drift.watching(lambda _, rows: [(0, [])] * rows)
    for value in (0.0, 15.0):
        payload = np.full((1000, 4), value, np.float32).tobytes()
        for _ in range(20):
            run(payload, 1000)
            drift.count()

    before, after, *_ = drift.snapshot().columns[name].counts

    assert before + after <= WINDOW_ROWS
    assert before < after


def test_the_index_is_small_for_equal_shares_and_large_for_others() -> None:
    """None for few rows; an empty range is no endless difference."""
    expected = [0.5, 0.3, 0.2, 0.0]

    assert stability_index(Counted([250, 150, 99, 0], expected)) is None
    assert stability_index(Counted([500, 300, 200, 0], expected)) == pytest.approx(0, abs=1e-9)
    assert stability_index(Counted([440, 330, 230, 0], expected)) == pytest.approx(0.015, abs=0.002)
    assert 0.25 < (stability_index(Counted([200, 300, 500, 0], expected)) or 0) < 1
    assert 1 < (stability_index(Counted([0, 0, 0, 1000], expected)) or 0) < 20


def test_workers_of_one_version_are_added(tmp_path: Path) -> None:
    """Those of another version are not."""
    name = NUMBERS[0]["name"]
    drift = made(tmp_path, NUMBERS, {"inputs": {name: TWO}})
    counted(drift, [[0, 0, 0, 0]], [(0, [])])
    own, same, other = drift.snapshot(), drift.snapshot(), drift.snapshot()
    other.version = "2"

    own.add(same)
    own.add(other)

    assert own.columns[name].counts == [2, 0, 0, 0]
