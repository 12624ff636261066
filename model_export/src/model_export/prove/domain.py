"""Within which numbers a model can be proven, where it cannot for all that float32 holds.

At the largest float32 some models leave the reach of their own arithmetic: a polynomial's squares
overflow, and so do a neighbour's distances. There the registered model and the graph differ, or one
of them has no finite answer, and no client with such values exists. Such a model is proven within
±LIMIT instead: the manifest says so, and the server refuses what lies beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from model_export.study.rows import Matrix
    from model_export.study.schema import Schema

LIMITS = (1e30, 1e24, 1e18, 1e15, 1e12, 1e9, 1e6, 1e3)
"""Tried from the largest on."""
LEAST_ROOM = 1000.0
"""A limit must be so many times the largest number in the data: what differs nearer to it is a
difference that clients can meet."""


def largest_safe_limit(failing: Iterable[Matrix], data: Matrix, schema: Schema) -> float | None:
    """The largest limit that excludes every failing row; None if rows fail that are too near to the
    data.

    Args:
        failing: packed rows on which registered model and graph differ, in chunks.
        data: packed rows of the training distribution.
        schema: of both.
    """
    least = min(
        (float(_magnitude(rows, schema).min(initial=np.inf)) for rows in failing), default=np.inf
    )
    largest = float(_magnitude(data, schema).max(initial=0.0))
    return next(
        (limit for limit in LIMITS if limit < least and limit >= LEAST_ROOM * largest), None
    )


def _magnitude(rows: Matrix, schema: Schema) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64[N]: the largest absolute number of each row; null and categories are none."""
    numbers = [i for i, column in enumerate(schema.columns) if column.kind in ("number", "integer")]
    return np.asarray(np.nan_to_num(np.abs(rows[:, numbers]), nan=0.0).max(axis=1, initial=0.0))
