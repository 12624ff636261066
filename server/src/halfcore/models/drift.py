"""Drift: whether the requests' values, and the answers, are still distributed as in the data that
the model was exported with.

A run's only part is to keep its batch while some are wanted; once a second what was kept is counted
in the manifest's ranges.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from halfcore.bundle import Manifest
from halfcore.distribution import Distribution, Shares
from halfcore.metrics.drift import ANSWERS, Counted, DriftSnapshot
from halfcore.pipeline.schema import NUMPY_TYPES, Schema

Run = Callable[[bytes, int], Sequence[Any]]
MOST_ROWS = 1_000
"""Rows that are counted in a second."""
WINDOW_ROWS = 20_000
"""When so many were counted, all counts are halved: what was long ago counts less and less."""


class Drift:
    """Counts some batches in a second of one model version.

    Args:
        manifest: the version's.
        schema: its columns.
        expected: what the manifest says of them; columns that it describes wrongly are left out.
    """

    def __init__(self, manifest: Manifest, schema: Schema, expected: Distribution) -> None:
        self._version = manifest.version
        self._dtype = np.dtype(NUMPY_TYPES[manifest.dtype])
        self._width = schema.width
        self._columns = {
            column.name: _Column(shares, place)
            for column, place in zip(manifest.inputs, schema.places, strict=True)
            if (shares := expected.inputs.get(column.name)) is not None
            and _fits(shares, 2 + len(column.categories or ()))
        }
        self._answers = None
        if expected.answers is not None and _fits(expected.answers, len(manifest.classes)):
            self._answers = _Column(expected.answers, 0)
        self._wanted_rows = MOST_ROWS
        self._kept: list[tuple[bytes, Sequence[Any]]] = []

    def watching(self, run: Run) -> Run:
        """The same call, which keeps its batch while some are wanted."""

        def infer(payload: bytes, rows: int) -> Sequence[Any]:
            results = run(payload, rows)
            if self._wanted_rows > 0:
                self._wanted_rows -= rows
                self._kept.append((payload, results))
            return results

        return infer

    def count(self) -> None:
        """Count the batches that were kept, and want others.

        All at once: most batches of a quiet server have one row, and a call of numpy costs more
        than counting a hundred rows.
        """
        kept, self._kept = self._kept, []
        self._wanted_rows = MOST_ROWS
        if not kept:
            return
        most = MOST_ROWS * self._width * self._dtype.itemsize
        joined = b"".join([payload[:most] for payload, _ in kept])
        matrix = np.frombuffer(joined, self._dtype).reshape(-1, self._width)
        for column in self._columns.values():
            column.count(matrix[:, column.place])
        if self._answers is not None:
            answers = [result[0] for _, results in kept for result in results[:MOST_ROWS]]
            self._answers.count(np.array(answers))

    def snapshot(self) -> DriftSnapshot:
        """What was counted so far."""
        columns = dict(self._columns)
        if self._answers is not None:
            columns[ANSWERS] = self._answers
        return DriftSnapshot(
            self._version, {name: column.counted() for name, column in columns.items()}
        )


class _Column:
    """The counts of one column."""

    def __init__(self, expected: Shares, place: int) -> None:
        self.place = place
        self._expected = expected.shares
        self._limits = None if expected.limits is None else np.array(expected.limits)
        self._counts = np.zeros(len(expected.shares))

    def count(self, values: Any) -> None:
        """Count values."""
        last = len(self._counts) - 1
        if self._limits is None:
            places = np.minimum(values.astype(np.int64), last)
        else:
            places = np.searchsorted(self._limits, values, side="right")
            places[np.isnan(values)] = last
        self._counts += np.bincount(places, minlength=last + 1)
        if self._counts.sum() > WINDOW_ROWS:
            self._counts /= 2

    def counted(self) -> Counted:
        """A copy."""
        return Counted(self._counts.tolist(), self._expected)


def _fits(expected: Shares, values: int) -> bool:
    """Whether there is a share for each range of numbers, or for each of so many values."""
    if expected.limits is None:
        return len(expected.shares) == values
    return (
        len(expected.shares) == len(expected.limits) + 2
        and sorted(expected.limits) == expected.limits
    )
