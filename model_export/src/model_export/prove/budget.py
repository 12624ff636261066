"""Chooses how many rows the proof compares, from the time that the first rows take.

Most models answer 100,000 rows in seconds. Neighbours among many training rows, large forests and
thousands of columns may take an hour; their proof gets as many rows as fit the budget. The output
and the manifest say so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.study.arrays import Matrix

PROOF_S = 40.0
"""CPU seconds for the answers of model and graphs, by default. The whole export of a model of
neighbours then takes less than a minute."""
SIZES = (100_000, 50_000, 20_000, 10_000, 5_000, 2_000)
"""The proof gets the first of these numbers of rows that fits, so that a somewhat busier machine
chooses the same number. The last one is the least, whatever it takes: each kind of rows still has
some."""
SCOUT_ROWS = 5_000
"""Precision and domain are found on so many rows, before all rows are compared."""
_MEASURED_S = 0.1
_FIRST_ROWS, _FACTOR, _MEASURED_ROWS = 20, 5, 500
_MODEL_ROUNDS = 1.5
_GRAPH_ROUNDS = 4.5
"""How often the registered model and a graph answer each row, on average: thresholds add half as
many rows, two precisions may be tried, and the batches of 1 to 128 repeat 127 times a hundredth of
the rows."""


@dataclass(frozen=True)
class Size:
    """How many rows to compare, and why if it is not the usual number."""

    rows: int
    reason: str | None = None


def seconds_per_row(answer: Callable[[Matrix], object], rows: Matrix, chunk_rows: int) -> float:
    """CPU seconds that one row takes, measured on two numbers of the first rows or more: a call
    takes some time for itself, which thousands of columns make long, and the rows of a chunk share.

    Args:
        answer: asks the model or the graph.
        rows: of the data; repeated if there are too few.
        chunk_rows: rows in one call of the proof.
    """
    count, before = _FIRST_ROWS, _timed(answer, rows, _FIRST_ROWS)
    while True:
        more = count * _FACTOR
        seconds = _timed(answer, rows, more)
        if seconds >= _MEASURED_S or more >= _MEASURED_ROWS:
            each = max(0.0, seconds - before) / (more - count)
            return each + max(0.0, seconds - each * more) / chunk_rows
        count, before = more, seconds


def _timed(answer: Callable[[Matrix], object], rows: Matrix, count: int) -> float:
    some = rows[np.arange(count) % len(rows)]
    started = time.process_time()
    answer(some)
    return time.process_time() - started


def affordable(most: int, model_s: float, graph_s: float, budget_s: float) -> Size:
    """The number of rows that fits the budget.

    Args:
        most: rows wanted.
        model_s: seconds that the registered model takes for a row.
        graph_s: seconds that the graph takes for a row.
        budget_s: seconds for all of them; infinite: no bound.
    """
    each = _MODEL_ROUNDS * model_s + _GRAPH_ROUNDS * graph_s
    if most * each <= budget_s:
        return Size(most)
    sizes = [size for size in SIZES if size < most] or [most]
    rows = next((size for size in sizes if size * each <= budget_s), sizes[-1])
    if rows == most:
        return Size(most)
    return Size(
        rows,
        f"{rows:,} rows instead of {most:,}: a row takes {1000 * model_s:.2g} ms in the registered "
        f"model and {1000 * graph_s:.2g} ms in the graph, and the proof has {budget_s:g} s; "
        "--gate-rows sets another number",
    )
