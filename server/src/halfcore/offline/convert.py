"""Columns of a file to the model's matrix: whole columns are converted and checked at once, and
only values that do not pass are looked at one by one, by the same checks as the server's."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from halfcore.bundle import Input
from halfcore.offline.cells import Cells, Codes, is_utf8
from halfcore.offline.sources import Chunk, Values
from halfcore.pipeline.row_checks import ExpectedRow, RowChecks
from halfcore.pipeline.schema import NUMPY_TYPES, Schema
from halfcore.pipeline.values import MISSING, as_pandas, from_text

_JSON_TYPES = {str, int, float, bool, list, dict, type(None)}
_BOOLEANS = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}
Checked = tuple[NDArray[Any], NDArray[np.bool_]]
"""A column's packed numbers, and which of them are surely right."""


class Converted(NamedTuple):
    """A chunk as the model reads it."""

    matrix: NDArray[Any]
    """The right rows, [N, F], of the model's type."""
    right: NDArray[np.bool_]
    """Which of the chunk's rows those are."""


class Converter:
    """Converts chunks for one model.

    Args:
        schema: of the model version.
        text: whether all values are texts, as in CSV.
    """

    def __init__(self, schema: Schema, *, text: bool) -> None:
        self._schema, self._text = schema, text
        self._expected = ExpectedRow(schema)
        self._dtype = np.dtype(NUMPY_TYPES[schema.dtype])
        self._coerce: Callable[[Input, Any], Any] = from_text if text else as_pandas
        self._missing = MISSING if text else frozenset([None])
        self._codes = [
            self._known(i) if column.kind != "text" else {}
            for i, column in enumerate(schema.inputs)
        ]
        self._known_texts = [Codes(codes or {}) for codes in self._codes]

    def convert(self, chunk: Chunk) -> Converted:
        """The chunk's rows; those that are broken or have a wrong value are left out."""
        schema, rows = self._schema, len(chunk.lines)
        matrix = np.zeros((rows, schema.width), self._dtype)
        right = np.ones(rows, bool)
        right[list(chunk.broken)] = False
        at = 0
        for i, column in enumerate(schema.inputs):
            values, width = chunk.columns[column.name], column.text.slots if column.text else 1
            if column.text:
                right &= self._texts(i, values, matrix[:, at : at + width])
            else:
                numbers, good = self._numbers_of(i, values)
                with np.errstate(over="ignore"):  # such a row is not right
                    matrix[:, at] = numbers
                right &= good
            at += width
        return Converted(matrix if right.all() else matrix[right], right)

    def reason(self, chunk: Chunk, row: int) -> str:
        """What is wrong with a row that was left out."""
        if row in chunk.broken:
            return chunk.broken[row]
        inputs = self._schema.inputs
        values = [_plain(chunk.columns[column.name][row]) for column in inputs]
        if any(isinstance(value, str) and not is_utf8(value) for value in values):
            return "it is not UTF-8"
        coerced = [self._coerce(*each) for each in zip(inputs, values, strict=True)]
        checks = RowChecks(self._expected)
        checks.check_vector(coerced, None, "$")
        return "; ".join(error.message for error in checks.errors) or "its values do not fit"

    def _known(self, i: int) -> Mapping[Any, float] | None:
        """Value → number for columns of few values; None for numbers."""
        column = self._schema.inputs[i]
        if column.kind == "boolean":
            return _BOOLEANS if self._text else {True: 1.0, False: 0.0}
        if column.categories is None:
            return None
        codes: dict[Any, float] = dict(self._schema.codes[i] or {})
        if self._text and None in codes and isinstance(column.categories[0], str):
            return dict.fromkeys(MISSING, codes[None]) | codes
        return codes

    def _numbers_of(self, i: int, values: Values) -> Checked:
        column, codes = self._schema.inputs[i], self._codes[i]
        if codes is None:
            numbers, good = self._checked(column, self._floats(values))
        else:
            of_numbers = column.categories and not isinstance(column.categories[0], str)
            known = self._floats(values) if of_numbers and self._text else values
            numbers, good = _coded(codes, self._known_texts[i], known)
        if not good.all():
            for row in np.flatnonzero(~good).tolist():
                number = self._one(i, values[row])
                if number is not None:
                    numbers[row], good[row] = number, True
        return numbers, good

    def _checked(self, column: Input, numbers: NDArray[Any]) -> Checked:
        rule, largest = self._schema.rule(column.name), self._schema.largest
        low = -largest if rule.minimum is None else rule.minimum
        high = largest if rule.maximum is None else rule.maximum
        good = (numbers >= low) & (numbers <= high)
        if column.kind == "integer":
            good &= numbers == np.floor(numbers)
        if column.nullable:
            missing = np.isnan(numbers)
            numbers[missing] = np.nan  # a file may also hold its negative
            good |= missing
        return numbers, good

    def _floats(self, values: Values) -> NDArray[Any]:
        """The values as numbers: NaN for a missing one, infinity for what is none."""
        if isinstance(values, np.ndarray):
            return values.astype(float)
        if isinstance(values, Cells):
            return values.numbers(self._float)
        try:
            return np.fromiter(map(float, values), float, len(values))
        except (ValueError, TypeError, OverflowError):
            return np.fromiter(map(self._float, values), float, len(values))

    def _float(self, value: Any) -> float:
        try:
            return float(value)
        except (ValueError, TypeError, OverflowError):
            missing = not isinstance(value, list | dict) and value in self._missing
            return float("nan" if missing else "inf")

    def _one(self, i: int, value: Any) -> float | None:
        """One value packed, by the server's own checks; None if it is wrong."""
        value = self._coerce(self._schema.inputs[i], _plain(value))
        if not self._expected.columns[i].accepts(value):
            return None
        codes = self._schema.codes[i]
        return float(value if codes is None else codes[value])

    def _texts(self, i: int, values: Values, into: NDArray[Any]) -> NDArray[np.bool_]:
        """Pack a column of texts; returns which of them are right."""
        good = np.ones(len(values), bool)
        column, tokens = self._schema.inputs[i], self._schema.tokens
        for row, value in enumerate(values):
            text = self._coerce(column, _plain(value))
            try:
                if type(text) is str:
                    into[row] = tokens(i, text)
                else:
                    good[row] = False
            except KeyError:
                good[row] = False
        return good


def _coded(codes: Mapping[Any, float], known: Codes, values: Values) -> Checked:
    if isinstance(values, Cells):
        numbers = values.coded(known)
        return numbers, numbers >= 0
    if isinstance(values, np.ndarray):
        values = values.tolist()
    get = codes.get
    try:
        numbers = np.array([get(value, -1.0) for value in values])
    except TypeError:  # a list or an object is no key
        numbers = np.full(len(values), -1.0)
    return numbers, numbers >= 0


def _plain(value: Any) -> Any:
    """A value of JSON: a decimal is a number, a date a text, and so are bytes, as which some
    engines write texts."""
    if type(value) in _JSON_TYPES:
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.generic):
        return value.item()
    return float(value) if isinstance(value, Decimal) else str(value)
