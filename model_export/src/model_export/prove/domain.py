"""Finds a limit for the inputs of a model that cannot be proven for all numbers of float32.

Near the largest float32 the arithmetic of some models overflows: a polynomial's squares, or the
distances between neighbours. There the registered model and the graph differ, or one of them has no
finite answer, and no client sends such values. Such a model is proven within ±LIMIT instead: the
manifest says so, and the server refuses numbers beyond it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_export.study.arrays import Matrix, Values
    from model_export.study.schema import Schema
    from model_export.study.study import StudiedModel

LIMITS = (1e30, 1e24, 1e18, 1e15, 1e12, 1e9, 1e6, 1e3)
"""Tried in this order."""
LEAST_ROOM = 1000.0
"""A limit must be at least so many times the largest number in the data: clients may send rows that
lie nearer to the data, and differences there count."""
_FAR = 10.0
"""Rows with numbers larger than so many times the largest in the data are not like it."""


def largest_safe_limit(failing: Iterable[Matrix], data: Matrix, schema: Schema) -> float | None:
    """The largest limit that excludes every failing row; None if a failing row is too near to the
    data.

    Args:
        failing: packed rows on which registered model and graph differ, in chunks.
        data: packed rows of the training distribution.
        schema: of both.
    """
    least = min(
        (float(magnitudes(rows, schema).min(initial=np.inf)) for rows in failing), default=np.inf
    )
    largest = float(magnitudes(data, schema).max(initial=0.0))
    return next(
        (limit for limit in LIMITS if limit < least and limit >= LEAST_ROOM * largest), None
    )


def magnitudes(rows: Matrix, schema: Schema) -> Values:
    """float64[N]: the largest absolute number of each row, without nulls and categories."""
    numbers = [i for i, column in enumerate(schema.columns) if column.is_numeric]
    return np.asarray(np.nan_to_num(np.abs(rows[:, numbers]), nan=0.0).max(axis=1, initial=0.0))


def usual_magnitude(studied: StudiedModel) -> float:
    """The largest number of a row that is like the data."""
    return _FAR * float(magnitudes(studied.data.packed, studied.schema).max(initial=0.0))
