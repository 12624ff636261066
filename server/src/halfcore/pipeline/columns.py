"""What one column accepts: the check of a single value, and the message for a wrong one."""

from collections.abc import Callable
from typing import Any

from halfcore.bundle import Input
from halfcore.pipeline.codes import is_possible_category
from halfcore.pipeline.schema import Schema
from halfcore.problem import beginning, listed

_SURELY_FITS = 3.4e38
"""Numbers below this fit float32 and so every dtype; the exact check costs three times as much."""
_OF_TYPE = {int: "an integer, ", str: "a string, "}
"""Before a list of categories: in it, an integer and a string may look the same."""
_WANTED = {"number": "a number", "integer": "an integer", "boolean": "true or false"}


class Column:
    """The check of one column's values; made once per model version.

    Args:
        column: one of the schema's `inputs`.
        schema: of the model version, with the rules of a feature catalogue.

    Attributes:
        accepts: whether a parsed JSON value is right. Called for every value of a bulk request that
            has an error somewhere, so it allocates nothing.
    """

    def __init__(self, column: Input, schema: Schema) -> None:
        self.name = column.name
        self._column = column
        self._schema = schema
        self._rule = schema.rule(column.name)
        # 1, 1.0 and True are equal as keys of a set, but are different JSON values: the type is
        # compared first.
        self._categories = frozenset(column.categories or ())
        self._accepts_unknown = schema.accepts_unknown(column.name)
        self._index = schema.names.index(column.name)
        self.accepts: Callable[[Any], bool] = (
            self._is_category if column.categories else self._accepter()
        )

    def problem(self, value: Any) -> tuple[str, Any, str] | None:
        """What is wrong with a value: code, expected value, and the expected value in words; None
        if the value is right."""
        if self.accepts(value):
            return None
        column, rule = self._column, self._rule
        expected = beginning(column.categories) if column.categories else column.kind
        wanted = self._wanted()
        if value is None:
            return "null_not_allowed", expected, wanted
        if not self._has_the_type(value):
            kind = _OF_TYPE.get(type(column.categories[0]), "") if column.categories else ""
            return "wrong_type", expected, kind + wanted
        if column.categories:
            return "unknown_category", expected, wanted
        if column.text is not None:
            return "out_of_range", f"at most {column.text.max_length} characters", wanted
        bounds = rule.range_text()
        if bounds:
            return "out_of_range", bounds, wanted
        largest = self._schema.largest
        limits = f"between -{largest:g} and {largest:g} ({self._schema.dtype})"
        return "out_of_range", f"at most {largest:g}", f"{wanted} {limits}"

    def _wanted(self) -> str:
        if self._column.categories:
            return "one of " + listed(self._column.categories)
        if (text := self._column.text) is not None:
            return f"a string of at most {text.max_length} characters and {text.slots} tokens"
        bounds = self._rule.range_text()
        return _WANTED[self._column.kind] + (f" {bounds}" if bounds else "")

    def _accepter(self) -> Callable[[Any], bool]:
        return {
            "number": self._is_number,
            "integer": self._is_integer,
            "boolean": self._is_boolean,
            "text": self._is_text,
        }[self._column.kind]

    def _has_the_type(self, value: Any) -> bool:
        kind = type(value)
        if self._column.categories:
            return kind is type(self._column.categories[0])
        allowed = {"number": (int, float), "integer": (int,), "boolean": (bool,), "text": (str,)}
        return kind in allowed[self._column.kind]

    def _is_category(self, value: Any) -> bool:
        if value is None:
            return self._column.nullable
        if not self._has_the_type(value):
            return False
        return value in self._categories or (self._accepts_unknown and is_possible_category(value))

    def _is_text(self, value: Any) -> bool:
        return type(value) is str and self._schema.is_right_text(self._index, value)

    def _is_boolean(self, value: Any) -> bool:
        return self._column.nullable if value is None else type(value) is bool

    def _is_integer(self, value: Any) -> bool:
        if type(value) is not int:
            return value is None and self._column.nullable
        return self._is_allowed(value) and self._schema.fits(value)

    def _is_number(self, value: Any) -> bool:
        kind = type(value)
        if kind is float or kind is int:
            # The fast decoder converts an integer of a number column to float, then compares.
            fits = -_SURELY_FITS < value < _SURELY_FITS or self._schema.fits(value)
            return fits and self._is_allowed(float(value))
        return value is None and self._column.nullable

    def _is_allowed(self, number: float) -> bool:
        low, high = self._rule.minimum, self._rule.maximum
        return (low is None or number >= low) and (high is None or number <= high)


def value_problem(column: Input, value: Any, schema: Schema) -> tuple[str, Any, str] | None:
    """What is wrong with one value of a column; see `Column.problem`."""
    return Column(column, schema).problem(value)
