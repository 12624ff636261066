"""The numbers that stand for categories and null in a packed row."""

from collections.abc import Iterable, Sequence
from typing import Any

from halfcore.bundle import Input
from halfcore.pipeline.text import MOST_CHARACTERS, is_text

NAN = float("nan")
_LARGEST_UNKNOWN = 2**31 - 1
"""Integers beyond it are not accepted as unknown categories: they fit no column of int32."""
Codes = dict[Any, float]


class _NullOrNumber(Codes):
    """Codes of a nullable number: null is NaN, any other value is itself."""

    def __missing__(self, value: Any) -> Any:
        return value


class _KnownOrUnknown(Codes):
    """Codes of a category column that accepts unknown categories.

    Args:
        codes: of the known ones, and of null if it is allowed.
        code: of every other value.
    """

    def __init__(self, codes: Codes, code: float) -> None:
        super().__init__(codes)
        self._code = code

    def __missing__(self, value: Any) -> float:
        if not is_possible_category(value):
            raise KeyError(value)
        return self._code


def codes_of(column: Input, allowed: Sequence[str | int] | None, *, unknown: bool) -> Codes | None:
    """Value → code of a column; None if each value is its own code.

    A category's code is its index among all of the model's categories, also if only some are
    allowed; then follow null and the unknown ones.

    Args:
        allowed: the categories that are accepted.
        unknown: whether other categories are, too.
    """
    if column.categories is not None:
        wanted = set(allowed or ())
        codes: Codes = {
            value: float(i) for i, value in enumerate(column.categories) if value in wanted
        }
        count = len(column.categories)
        if column.nullable:
            codes[None] = float(count)
        return _KnownOrUnknown(codes, float(count + 1)) if unknown else codes
    return _NullOrNumber({None: NAN}) if column.nullable else None


def coded(codes: Codes | None, values: Sequence[Any]) -> Iterable[Any]:
    """One column's values as numbers; raises `KeyError`."""
    if type(codes) is _NullOrNumber:  # a call of `__missing__` for each value takes longer
        return [NAN if value is None else value for value in values]
    return values if codes is None else map(codes.__getitem__, values)


def is_possible_category(value: Any) -> bool:
    """Whether a value may be an unknown category: a text or an integer that is not too large."""
    if isinstance(value, str):
        return is_text(value, MOST_CHARACTERS)
    return value is not None and -_LARGEST_UNKNOWN - 1 <= value <= _LARGEST_UNKNOWN
