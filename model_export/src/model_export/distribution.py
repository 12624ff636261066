"""How the model's columns and answers are distributed in its data, for a server that watches for
drift.

Numbers are counted in ten ranges of about equal counts, categories each for itself. The limits of
the ranges are values of the data in the graph's own type, so that a server that counts the rows it
gives to the graph counts equal values alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from model_export.prove.oracle import Truth
    from model_export.study.arrays import Matrix
    from model_export.study.schema import Column, Schema

FEWEST_ROWS = 100
"""With fewer rows of data a difference says nothing, and no distribution is written."""
MOST_COLUMNS = 200
"""Of a wider model no distribution is written: a server would expose a metric for each column."""
RANGES = 10
_DIGITS = 6
"""Of a share."""


def distribution(
    packed: Matrix, schema: Schema, truth: Truth, classes: int, dtype: str
) -> dict[str, Any] | None:
    """The manifest's `distribution`; None if the data has too few rows or too many columns.

    Args:
        packed: float64[N, F], the rows of the data.
        schema: of the rows.
        truth: what the registered model answers, first for rows of the data.
        classes: number of classes; 0: a regressor.
        dtype: of the graph's rows.
    """
    if len(packed) < FEWEST_ROWS or len(schema.columns) > MOST_COLUMNS:
        return None
    rows = packed.astype(dtype)
    answered = truth.sample.groups[0].count
    return {
        "rows": len(packed),
        "inputs": {
            column.name: _of(column, rows[:, i])
            for i, column in enumerate(schema.columns)
            if column.text is None
        },
        "answers": _answers(truth, answered, classes) if answered >= FEWEST_ROWS else None,
    }


def _of(column: Column, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    if column.is_index:
        # After the categories: null, and where they are accepted unknown ones
        counts = np.bincount(values.astype(np.int64), minlength=len(column.categories) + 2)
        return {"shares": _shares(counts)}
    return ranges(values)


def ranges(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The limits of the ranges, and the share of the values in each: below the first limit, from
    each limit to the next, from the last on, and null."""
    known = np.sort(values[~np.isnan(values)])
    if len(known) == 0:
        return {"limits": [], "shares": [0.0, 1.0]}
    limits = np.unique(known[[len(known) * part // RANGES for part in range(1, RANGES)]])
    places = np.searchsorted(limits, known, side="right")
    counts = np.bincount(places, minlength=len(limits) + 1)
    return {
        "limits": [float(limit) for limit in limits],
        "shares": _shares(np.append(counts, len(values) - len(known))),
    }


def _answers(truth: Truth, rows: int, classes: int) -> dict[str, Any] | None:
    """Of labels, or of the only value of a regressor."""
    if classes:
        return {"shares": _shares(np.bincount(truth.label[:rows], minlength=classes))}
    values = truth.scores[:rows]
    if values.shape[1] != 1 or not np.isfinite(values).all():
        return None
    return ranges(values[:, 0])


def _shares(counts: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(share), _DIGITS) for share in counts / counts.sum()]
