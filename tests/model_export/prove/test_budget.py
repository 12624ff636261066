"""The proof's size: chosen by time, and made of distinct rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from model_export.__main__ import main
from model_export.prove import budget
from model_export.prove.distinct import Distinct

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IRIS = load_iris()


def test_a_fast_model_gets_all_rows() -> None:
    """And a number that was requested is kept, whatever it takes."""
    assert budget.affordable(100_000, 1e-6, 1e-6, 40.0) == budget.Size(100_000)
    assert budget.affordable(3_000, 1e-3, 1.0, float("inf")) == budget.Size(3_000)


@pytest.mark.parametrize(
    ("graph_s", "rows"), [(1e-4, 50_000), (5e-4, 10_000), (1e-3, 5_000), (1.0, 2_000)]
)
def test_a_slow_model_gets_the_rows_that_fit_its_time(graph_s: float, rows: int) -> None:
    """A round number, at least 2,000, and a sentence that says why."""
    size = budget.affordable(100_000, 1e-5, graph_s, 40.0)

    assert size.rows == rows
    assert size.reason is not None
    assert f"{rows:,} rows instead of 100,000" in size.reason
    assert "--gate-rows" in size.reason


def test_the_time_of_a_call_is_shared_by_its_rows() -> None:
    """20 ms for each call and none for a row: 2 µs for each of 10,000 rows."""

    def answer(_: Any) -> None:
        ends = time.process_time() + 0.02
        while time.process_time() < ends:
            pass

    assert budget.seconds_per_row(answer, np.zeros((5, 2)), 10_000) < 2e-5


def test_equal_rows_are_recognized() -> None:
    """Within a chunk and between chunks; −0 and 0 differ, as do whole numbers and NaN."""
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [0.0, np.nan], [-0.0, np.nan]])
    distinct = Distinct()

    assert distinct.first(rows).tolist() == [True, True, False, True, True]
    assert distinct.first(rows[:2]).tolist() == [False, False]
    assert distinct.repeated == 3


def test_many_rows_of_whole_numbers_have_different_hashes() -> None:
    """Doubles of small integers differ in few bits."""
    grid = np.stack(np.meshgrid(*[np.arange(-20.0, 20.0)] * 3), axis=-1).reshape(-1, 3)

    assert Distinct().first(grid).all()


def test_a_model_of_categories_is_proven_on_each_row_once(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Six different rows exist: the manifest says so, not 3,000."""
    x = pd.DataFrame({"a": ["x", "y", "z"] * 20, "b": ["u", "v"] * 30})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["a", "b"])), LogisticRegression()
    )
    folder = save(model.fit(x, [0, 1, 1] * 20), x, serialization_format="cloudpickle")

    report = export(folder).manifest["parity"]

    assert report["rows"] == 6
    assert report["repeated_rows"] > 2_000


def test_a_slow_proof_says_how_many_rows_it_has(
    save: Callable[..., Any], export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the output and the manifest; the reason names the time of a row."""
    monkeypatch.setattr(budget, "seconds_per_row", lambda *_: 1e-2)
    folder = save(LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target), IRIS.data)

    bundle = export(folder, gate_rows=None)

    assert 2_000 <= bundle.manifest["parity"]["rows"] < 3_000
    assert "10 ms in the registered model" in bundle.manifest["parity"]["rows_reason"]
    assert "2,000 rows instead of 100,000" in bundle.output


def test_precision_and_domain_are_found_on_few_rows_first(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Then all rows are compared once, in that precision."""
    folder = save(LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target), IRIS.data)

    bundle = export(folder, gate_rows=12_000)

    assert "find precision and domain on 5,000 rows" in bundle.output
    assert bundle.output.count("ask the float64 graph: 12,") == 1
    assert bundle.output.count("ask the float32 graph: 12,") == 0
    assert bundle.manifest["parity"]["rows"] >= 12_000


@pytest.mark.parametrize("given", ["0", "999", "10000001", "many", "1e4"])
def test_rows_outside_the_bounds_are_wrong_usage(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the value and the bounds."""
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--gate-rows", given])

    assert ended.value.code == 2
    assert f"{given!r}, expected a whole number of rows, 1,000 to 10,000,000" in (
        capsys.readouterr().err
    )
