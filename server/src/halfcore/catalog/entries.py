"""What the table says about one model's columns, and whether it fits the model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from halfcore.bundle import Input, Scalar
from halfcore.pipeline.columns import value_problem
from halfcore.pipeline.schema import Rule, Schema
from halfcore.problem import listed, shown

_EXACT = 1 << 53
"""Integers beyond it are not exact as float64, the type of PostgreSQL's bounds."""


class CatalogError(Exception):
    """Rows that are not applied; the message names the model, the column and the field, what was
    received and what was expected."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the table; a field that is unset or None makes no rule."""

    column_name: Annotated[str, Meta(min_length=1)]
    position: Annotated[int, Meta(ge=1)] | None = None
    kind: Literal["number", "integer", "boolean", "category"] | None = None
    default_value: Scalar | UnsetType = UNSET
    minimum: float | None = None
    maximum: float | None = None
    categories: Annotated[tuple[str | int, ...], Meta(min_length=1)] | None = None


_TYPES = {field.name: (field.encode_name, field.type) for field in msgspec.structs.fields(Entry)}
_JSON_FIELDS = ("default_value", "categories")
_WANTED = {
    "column_name": "the name of a column",
    "position": "a whole number from 1, or NULL",
    "kind": "number, integer, boolean, category or NULL",
    "default_value": "a JSON string, number, boolean or null, or NULL",
    "minimum": "a number or NULL",
    "maximum": "a number or NULL",
    "categories": "a JSON array of strings or integers, or NULL",
}


def parse(model: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """The rows of one model as entries, in the order of their names.

    Args:
        model: its name, for the message.
        rows: field name → value, as asyncpg returns them: `jsonb` is a str.

    Raises:
        CatalogError: a field has the wrong type, which only an altered table allows.
    """
    return tuple(sorted((_entry(model, row) for row in rows), key=lambda entry: entry.column_name))


def rules_for(
    model: str, entries: Sequence[Entry], inputs: Sequence[Input], dtype: str
) -> dict[str, Rule]:
    """The rules that entries make for a model's columns.

    Args:
        model: its name, for the message.
        entries: what the catalogue says; a column without an entry has no rule.
        inputs: the model's columns in order.
        dtype: type of the input matrix.

    Raises:
        CatalogError: an entry contradicts the model, so none of them is applied.
    """
    columns = {column.name: (position, column) for position, column in enumerate(inputs, 1)}
    rules = {}
    for entry in entries:
        if entry.column_name not in columns:
            raise _error(
                model, entry, "column_name", entry.column_name, f"one of {listed(list(columns))}"
            )
        position, column = columns[entry.column_name]
        for field, expected in _contradictions(entry, column, position):
            raise _error(model, entry, field, getattr(entry, field), expected)
        rules[column.name] = _rule(entry, column)
    _check_defaults(model, entries, Schema(inputs, dtype, rules))
    return {name: rule for name, rule in rules.items() if rule != Rule()}


def _check_defaults(model: str, entries: Sequence[Entry], schema: Schema) -> None:
    """Hold each default to the schema with the entries' own rules.

    Raises:
        CatalogError: a request could not have the default as a value.
    """
    columns = {column.name: column for column in schema.inputs}
    for entry in entries:
        if entry.default_value is not UNSET and (
            problem := value_problem(columns[entry.column_name], entry.default_value, schema)
        ):
            raise _error(model, entry, "default_value", entry.default_value, problem[2])


def _entry(model: str, row: Mapping[str, Any]) -> Entry:
    fields = {}
    for name, (_, kind) in _TYPES.items():
        value = row[name]
        if value is None and name != "column_name":
            # SQL's NULL makes no rule; JSON's null, which is a value, is the text "null" here
            continue
        try:
            fields[name] = msgspec.convert(
                msgspec.json.decode(value) if name in _JSON_FIELDS else value, kind
            )
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
            column = shown(row["column_name"])
            raise CatalogError(
                f'model "{model}", column "{column}": {name} is {_received(value)}, expected '
                f"{_WANTED[name]}"
            ) from None
    return Entry(**fields)


def _contradictions(entry: Entry, column: Input, position: int) -> Iterator[tuple[str, str]]:
    """The fields of an entry that contradict the model's column, and what was expected of each."""
    if entry.position not in (None, position):
        yield "position", f"{position}, as in the model"
    if entry.kind not in (None, column.kind):
        yield "kind", f"{column.kind}, as in the model"
    if entry.categories is not None:
        yield from _category_contradictions(entry.categories, column)
    for field in ("minimum", "maximum"):
        if (bound := getattr(entry, field)) is not None:
            yield from _bound_contradictions(field, bound, column)
    low, high = _bounds(entry, column)
    if low is not None and high is not None and low > high:
        yield (
            "minimum",
            f"at most the maximum, {entry.maximum:g}"
            + (", and an integer between them" if column.kind == "integer" else ""),
        )


def _category_contradictions(
    categories: Sequence[str | int], column: Input
) -> Iterator[tuple[str, str]]:
    known = column.categories or []
    if not known:
        yield "categories", f"NULL for a {column.kind}"
    # `in` takes True for 1; but JSON's true is no category, and `parse` refuses it
    elif not all(value in known for value in categories) or len(set(categories)) < len(categories):
        yield "categories", f"some of {listed(known)}, each once"


def _bound_contradictions(field: str, bound: float, column: Input) -> Iterator[tuple[str, str]]:
    if column.kind not in ("number", "integer"):
        yield field, f"NULL for a {column.kind}"
    elif not math.isfinite(bound):
        yield field, "a finite number"
    elif column.kind == "integer" and abs(bound) > _EXACT:
        yield field, f"between -{_EXACT} and {_EXACT} for an integer"


def _bounds(entry: Entry, column: Input) -> tuple[float | None, float | None]:
    """The bounds of a column's values; of an integer column, rounded to the integers inside."""
    if column.kind != "integer":
        return entry.minimum, entry.maximum
    return (
        None if entry.minimum is None else math.ceil(entry.minimum),
        None if entry.maximum is None else math.floor(entry.maximum),
    )


def _rule(entry: Entry, column: Input) -> Rule:
    minimum, maximum = _bounds(entry, column)
    return Rule(
        default=entry.default_value, minimum=minimum, maximum=maximum, categories=entry.categories
    )


def _error(model: str, entry: Entry, field: str, received: Any, expected: str) -> CatalogError:
    return CatalogError(
        f'model "{model}", column "{shown(entry.column_name)}": {field} is {_received(received)}, '
        f"expected {expected}"
    )


def _received(value: Any) -> str:
    if isinstance(value, tuple | list):
        return listed([shown(item) for item in value])
    return repr(value if isinstance(value, float) else shown(value))
