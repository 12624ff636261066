"""Rows on which the registered model raises are found with few calls of it."""

from typing import Any

import numpy as np
import pytest

from model_export.errors import ExportError
from model_export.prove.refusals import Refusals

ROWS = 4096
NEGATIVE = {
    "any number": lambda rows: (rows < 0).any(axis=1),
    "one column": lambda rows: rows[:, 1] < 0,
    "a few rows": lambda rows: np.arange(len(rows)) % 500 == 3,
    "all rows": lambda rows: np.ones(len(rows), dtype=bool),
    "large numbers": lambda rows: rows[:, 0] > 1e60,
    "nulls": lambda rows: np.isnan(rows[:, 2]),
}


def draw(seed: int) -> Any:
    """Rows with numbers of both signs, some huge, some null."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(2, 2, (ROWS, 3))
    rows[rng.random(ROWS) < 0.1, 0] = 1e300
    rows[rng.random(ROWS) < 0.1, 2] = np.nan
    return rows


@pytest.mark.parametrize("kind", NEGATIVE)
def test_the_rows_that_the_model_raises_on_are_found_with_few_calls(kind: str) -> None:
    """Each answer stands beside its row; nearly all rows that can be answered are."""
    refusals, calls = Refusals(), 0
    marked: set[bytes] = set()

    def ask(rows: Any) -> Any:
        nonlocal calls
        calls += 1
        if any(row.tobytes() in marked for row in rows):
            raise ValueError("not such a row")
        return rows[:, 1] * 2

    answered = right = 0
    for seed in range(8):
        rows = draw(seed)
        raises = NEGATIVE[kind](rows)
        marked = {row.tobytes() for row in rows[raises]}
        right += int((~raises).sum())
        for positions, answers in refusals.pieces(rows, ask):
            assert not raises[positions].any()
            np.testing.assert_array_equal(answers, rows[positions, 1] * 2)
            answered += len(positions)
    assert answered >= 0.97 * right
    assert calls < 8 * ROWS / 6


def test_a_batch_of_invalid_rows_does_not_take_the_next_one_out_of_the_proof() -> None:
    """The first batch teaches that every row raises; of the next one, a tenth does."""
    refusals, rows = Refusals(), np.abs(draw(0))
    rows[:, 1] = np.random.default_rng(0).permutation(np.linspace(-1, 9, ROWS))

    def ask(some: Any) -> Any:
        if (some[:, 1] < 0).any():
            raise ValueError("negative")
        return some

    assert refusals.pieces(-rows[rows[:, 1] > 0][: ROWS // 2], ask) == []
    for share in (0.4, 0.97):  # pieces of eight with no invalid row; then what was learned helps
        answered = sum(len(positions) for positions, _ in refusals.pieces(rows, ask))
        assert answered >= share * (rows[:, 1] >= 0).sum()


@pytest.mark.parametrize("error", [ExportError("no"), MemoryError()])
def test_other_errors_are_not_taken_for_a_refused_row(error: Exception) -> None:
    """They end the export."""

    def ask(rows: Any) -> Any:
        raise error

    with pytest.raises(type(error)):
        Refusals().pieces(draw(0), ask)
