"""Conversions of values that other protocols and files allow, so that they need no change."""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

from halfcore.bundle import Input


def as_pandas(column: Input, value: Any) -> Any:
    """A value of `dataframe_split`, `dataframe_records` or CSV, as MLflow casts a frame's column
    to its type: 1.9 becomes the integer 1, "3.5" the number 3.5, and any text that is not empty
    true. NaN is null in any column, as pandas has it.

    Returns:
        the value unchanged if it cannot be converted; it is refused then.
    """
    if isinstance(value, float) and value != value:
        return None
    if value is None or column.kind == "text":
        return value
    if column.categories:
        return _category(column, value)
    if column.kind == "boolean":
        return value if isinstance(value, list | dict) else bool(value)
    return _number(column, value)


def as_numpy(column: Input, value: Any) -> Any:
    """A value of a tensor, as NumPy converts an array to the column's type: also numbers become
    texts."""
    if column.categories and isinstance(column.categories[0], str) and _is_number(value):
        return str(value)
    return as_pandas(column, value)


def as_sent(column: Input, value: Any) -> Any:
    """A value of a typed tensor: a whole number is an integer whatever its type is, and 0 and 1 are
    booleans."""
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
        if column.kind == "integer" or (column.categories and column.kind == "category"):
            return _category(column, whole) if column.categories else whole
    if column.kind == "boolean" and not isinstance(value, bool) and value in (0, 1):
        return bool(value)
    if isinstance(value, float) and value != value:
        return None  # a tensor of floats has no other way to say null
    return value


def from_text(column: Input, text: Any) -> Any:
    """A cell of a CSV file, as pandas reads it: an empty one, `NaN`, `null` and the like are
    missing, unless the column has such a category."""
    if text in MISSING and text not in (column.categories or ()):
        return None
    if column.kind == "boolean":
        return _BOOLEANS.get(str(text).lower(), text)
    return as_pandas(column, text)


MISSING = frozenset(
    {"", "NA", "N/A", "NULL", "NaN", "None", "n/a", "nan", "null", "<NA>", "#N/A", "-nan", "-NaN"}
)
"""Cells that pandas reads as missing."""
_BOOLEANS = {"true": True, "false": False}


def unchanged(_: Sequence[Input], rows: list[Any]) -> list[Any]:
    """Rows of JSON: their values have its types."""
    return rows


def all_from_text(columns: Sequence[Input], rows: list[Any]) -> list[Any] | None:
    """`from_text` of all cells of rows, column by column, in a fraction of the time; None if a cell
    cannot be converted."""
    try:
        cells = zip(*rows, strict=True)
        read = [_read(column, texts) for column, texts in zip(columns, cells, strict=True)]
        return list(zip(*read, strict=True))
    except (ValueError, OverflowError, KeyError, TypeError):  # the last: a default is no text
        return None


def _read(column: Input, texts: Sequence[str]) -> Iterable[Any]:
    """The values of a column's cells; raises as `_reader`'s."""
    read = _reader(column)
    if MISSING.isdisjoint(texts):
        return read(texts)
    if not MISSING.isdisjoint(column.categories or ()):
        raise ValueError
    present = iter(read([text for text in texts if text not in MISSING]))
    return [None if text in MISSING else next(present) for text in texts]


def _reader(column: Input) -> Callable[[Sequence[str]], Iterable[Any]]:
    """Reads cells that are there; raises ValueError, OverflowError, KeyError or TypeError."""
    if column.kind == "boolean":
        return lambda texts: map(_BOOLEANS.__getitem__, map(str.lower, texts))
    if column.kind == "text" or isinstance((column.categories or (0,))[0], str):
        return lambda texts: texts
    return _finite if column.kind == "number" else lambda texts: map(int, _finite(texts))


def _finite(texts: Sequence[str]) -> list[float]:
    values = list(map(float, texts))
    if not all(map(isfinite, values)):
        raise ValueError
    return values


def _category(column: Input, value: Any) -> Any:
    texts = isinstance((column.categories or [""])[0], str)
    return value if texts else _number(column, value)


def _number(column: Input, value: Any) -> Any:
    if isinstance(value, list | dict):
        return value
    try:
        number = float(value)
        if number != number:
            return None
        if column.kind == "number":
            return number
        return value if type(value) is int else int(number)
    except (ValueError, OverflowError):
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
