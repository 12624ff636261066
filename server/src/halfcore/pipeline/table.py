"""Rows that were not sent as the body of `POST /predict`: a table of parsed values, or a matrix of
numbers, becomes packed rows after the same checks."""

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from halfcore.bundle import Input
from halfcore.pipeline.decode import REFUSED, Rows
from halfcore.pipeline.explain import too_many_rows
from halfcore.pipeline.row_checks import ExpectedRow, RowChecks, refuse
from halfcore.pipeline.schema import NUMPY_TYPES, Schema
from halfcore.problem import unprocessable

SLICE_VALUES = 4096
"""Values that are checked between two pauses: 1 to 3 ms."""
Coerce = Callable[[Input, Any], Any]
"""Converts a value to its column's JSON type where the protocol allows it; returns any other value
unchanged, and it is then refused."""

Quick = Callable[[Sequence[Input], list[Any]], list[Any] | None]
"""Converts all values of a slice of rows at once to their columns' JSON types; None if some need
`Coerce`, which gives the same for all others."""


class Table:
    """What the rows of one schema must look like; made once per model version by `of`.

    Attributes:
        expected: the checks of every column.
        names: the columns in order.
    """

    def __init__(self, schema: Schema) -> None:
        self.expected = ExpectedRow(schema)
        self.names = schema.names
        self._schema = schema
        self._dtype = np.dtype(NUMPY_TYPES[schema.dtype])
        row: Any = schema.row_type()
        self._row_list = list[row]
        self._all_numbers = all(column.kind == "number" for column in schema.inputs)
        rules = [schema.rule(name) for name in schema.names]
        largest = schema.largest
        self._low = np.array([-largest if r.minimum is None else r.minimum for r in rules])
        self._high = np.array([largest if r.maximum is None else r.maximum for r in rules])
        self._nullable = np.array([column.nullable for column in schema.inputs])
        self._any_number = all(r.minimum is None and r.maximum is None for r in rules)

    @classmethod
    def of(cls, schema: Schema) -> "Table":
        """The table of a schema; it lives as long as the schema."""
        return schema.derived(cls)

    def pack(
        self,
        rows: Iterable[Sequence[Any]],
        coerce: Coerce,
        *,
        max_rows: int,
        path: str,
        quick: Quick | None,
    ) -> Generator[None, None, Rows]:
        """Check and pack rows of parsed values, one value per column in the schema's order.

        Args:
            rows: the values, as parsed.
            coerce: see `Coerce`.
            max_rows: most rows in one request.
            path: where the rows are in the body, for messages.
            quick: see `Quick`; its values are neither NaN nor infinite. None: every value is
                looked at.

        Raises:
            Problem: 413 too many rows, 422 a wrong value or no row.
        """
        checks = RowChecks(self.expected)
        number, left = 0, iter(rows)
        while part := list(islice(left, -(-SLICE_VALUES // len(self.names)))):
            if number + len(part) > max_rows:
                raise too_many_rows(max_rows)
            packed = self._quick(part, quick) if quick and not checks.error_count else None
            if packed is not None:
                checks.packed += packed
            else:
                self._check(part, coerce, checks, number, path)
            number += len(part)
            if checks.full:
                break
            yield
        if not number:
            refuse("no_rows", path, "no row was sent, expected at least one row", [])
        if checks.error_count:
            raise unprocessable(checks.errors, checks.error_count, more=checks.full)
        return Rows(bytes(checks.packed), number, many=True)

    def _quick(self, rows: list[Any], quick: Quick) -> bytes | None:
        """Pack rows without a look at each value; None if some may be wrong."""
        if (values := quick(self._schema.inputs, rows)) is None:
            return None
        try:
            return self._schema.pack_rows(msgspec.convert(values, self._row_list))
        except REFUSED:
            return None

    def _check(
        self, rows: list[Sequence[Any]], coerce: Coerce, checks: RowChecks, first: int, path: str
    ) -> None:
        """Check and pack rows value by value, until the list of errors is full."""
        columns = self._schema.inputs
        for number, row in enumerate(rows, first):
            values = [
                coerce(column, value) for column, value in zip(columns, row, strict=False)
            ] + list(row[len(columns) :])
            checks.check_vector(values, number, f"{path}[{number}]")
            if checks.full:
                return

    def pack_matrix(self, matrix: NDArray[Any], *, max_rows: int) -> Rows | None:
        """Check and pack a matrix of numbers [N, F] without a look at each value.

        Returns:
            None if the columns are not all numbers or a value may be wrong: `pack` then decides.

        Raises:
            Problem: 413 too many rows.
        """
        if not self._all_numbers or matrix.ndim != 2 or matrix.shape[1] != len(self.names):
            return None
        if len(matrix) > max_rows:
            raise too_many_rows(max_rows)
        if not len(matrix) or not self._all_right(matrix):
            return None
        return Rows(matrix.astype(self._dtype, copy=False).tobytes(), len(matrix), many=True)

    def pack_bytes(self, payload: bytes, rows: int) -> Rows | None:
        """Check rows that are packed already; they are not copied.

        Args:
            payload: `rows` rows of the schema's `row_bytes`.

        Returns:
            None if the columns are not all numbers without bounds or a value may be wrong:
            `pack_matrix` or `pack` then decides.
        """
        if not (self._all_numbers and self._any_number):
            return None
        values = np.frombuffer(payload, self._dtype)
        # Half the time of `all`.
        right = b"\0" not in np.isfinite(values).tobytes()
        return Rows(payload, rows, many=True) if right else None

    def _all_right(self, matrix: NDArray[Any]) -> bool:
        if self._any_number and matrix.dtype == self._dtype and np.isfinite(matrix).all():
            return True  # two passes in place of four
        right = (matrix >= self._low) & (matrix <= self._high)
        return bool(right.all() or (right | (np.isnan(matrix) & self._nullable)).all())
