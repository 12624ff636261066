"""The forms of a table in MLflow's scoring protocol: four in JSON, and CSV."""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, NamedTuple

import msgspec

from halfcore.pipeline.decode import SHORT_BODY_BYTES
from halfcore.pipeline.json_slices import json_in_slices
from halfcore.pipeline.scan import BrokenText
from halfcore.pipeline.table import Coerce, Quick
from halfcore.pipeline.values import all_from_text, as_numpy, as_pandas, from_text, unchanged
from halfcore.predict.protocols.protocol import Reserve
from halfcore.problem import Problem, shown

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
INVALID_PARAMETER = "INVALID_PARAMETER_VALUE"
"""MLflow's name of an error of the model's columns or of `params`."""
OTHER_COLUMNS = 10_000
"""Most columns of a table that the model does not know: they are ignored, but a million of them
would take thirty times their length in memory."""
EMPTY_LINES = 20_000
"""Most empty lines of a CSV table, two for each row at most: other requests wait while they are
passed over, some milliseconds for so many."""
_QUOTED = re.compile('"[^"]*+"')
_ONE_OF = "exactly one of the input fields " + ", ".join(FORMS)


class Columns(NamedTuple):
    """A table as it was sent."""

    names: Sequence[str] | None
    """None: the values are in the model's order."""
    rows: Iterator[Any]
    """Sequences of a value for each name; or records, which may lack some of the names."""
    path: str
    coerce: Coerce
    quick: Quick | None = None
    """Of JSON without NaN, and of CSV."""
    columns: Sequence[list[Any]] | None = None
    """The values column by column, if they were sent so; `rows` has the same."""


class _Lenient:
    """Parses JSON, also with NaN and Infinity, which MLflow accepts; `strict` until there are
    some."""

    strict = True

    def __call__(self, text: bytes) -> Any:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = json.loads(text.decode())  # of bytes, it would guess UTF-16 and UTF-32
            self.strict = False
            return value


def parsed(
    body: bytes, *, max_rows: int, reserve: Reserve
) -> Generator[None, None, tuple[dict[str, Any], bool]]:
    """The body as an object, and whether it is strict JSON; a long one is parsed in slices.

    Raises:
        Problem: 400, 413; what `reserve` raises.
    """
    decode = _Lenient()
    try:
        if len(body) <= SHORT_BODY_BYTES:
            document = decode(body)
        else:
            document = yield from json_in_slices(
                body, max_rows=max_rows, reserve=reserve, decode=decode
            )
    except (ValueError, RecursionError, BrokenText) as error:
        raise invalid(
            f"Ensure that input is a valid JSON formatted string. Error: {_why(error)}"
        ) from None
    if not isinstance(document, dict):
        kind = "list" if isinstance(document, list) else type(document).__name__
        raise invalid(f"The input must be a JSON dictionary with {_ONE_OF}. Received a {kind}.")
    return document, decode.strict


def _why(error: Exception) -> str:
    """What is wrong with a body that `json.loads` refuses."""
    if isinstance(error, BrokenText):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return str(error)  # with the line and the column
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return "it holds an integer of more than 4,300 digits"  # all others that Python has


def table_of(
    document: Mapping[str, Any],
    *,
    most_columns: int,
    strict: bool,
    optional: AbstractSet[str] = frozenset(),
) -> Columns:
    """The table in a body.

    Args:
        most_columns: of the table.
        strict: whether the body is strict JSON, without NaN.
        optional: columns that a record may lack.

    Raises:
        Problem: 400: none of the forms, several, or one that is built wrongly, or has more than
            `most_columns` columns.
    """
    found = [form for form in FORMS if form in document]
    if len(found) != 1:
        names = ", ".join(shown(name) for name in list(document)[:10])
        raise Problem(
            400,
            "BAD_REQUEST",
            f"The input must be a JSON dictionary with {_ONE_OF}. Received dictionary with input "
            f"fields: {names or 'none'}.",
        )
    (form,) = found
    read: dict[str, Callable[[Any, str, int], Columns]] = {
        "dataframe_split": _split,
        "dataframe_records": _records,
        "instances": partial(_instances, optional=optional),
        "inputs": _inputs,
    }
    table = read[form](document[form], form, most_columns)
    return table._replace(quick=unchanged if strict else None)


def _split(value: Any, form: str, most: int) -> Columns:
    if not isinstance(value, dict):
        raise invalid(f"Dataframe split format must be a dictionary. Got {_kind(value)}.")
    unknown = value.keys() - {"columns", "index", "data"}
    if unknown or "data" not in value:
        raise invalid(
            "Dataframe split format must have 'data' field and optionally 'columns' and 'index' "
            f"fields. Got {', '.join(sorted(shown(key) for key in value))}."
        )
    names = value.get("columns")
    if names is not None and not isinstance(names, list):
        raise invalid(f"{form}.columns is {_kind(names)}, expected a list")
    _check_width(names or (), form, most)
    rows = _list_of_lists(value["data"], f"{form}.data")
    named = None if names is None else [str(name) for name in names]
    return Columns(named, iter(rows), f"$.{form}.data", as_pandas)


def _records(value: Any, form: str, most: int) -> Columns:
    if not isinstance(value, list):
        raise invalid(f"Dataframe records format must be a list of records. Got {_kind(value)}.")
    return _named(value, form, as_pandas, most)


def _instances(value: Any, form: str, most: int, optional: AbstractSet[str]) -> Columns:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        names = value[0].keys()
        required = names - optional
        for row in value:
            if not isinstance(row, dict) or (
                row.keys() != names and row.keys() - optional != required
            ):
                raise _unequal()
        return _named(value, form, as_numpy, most)
    return _positional(value, form)


def _inputs(value: Any, form: str, most: int) -> Columns:
    if not isinstance(value, dict):
        return _positional(value, form)
    _check_width(value, form, most)
    columns = [column if isinstance(column, list) else [column] for column in value.values()]
    if len({len(column) for column in columns}) > 1:
        raise _unequal()
    flat = [_flat(column) for column in columns]
    rows = zip(*flat, strict=True)
    return Columns(list(value), rows, f"$.{form}", as_numpy, columns=flat)


def _positional(value: Any, form: str) -> Columns:
    if isinstance(value, list) and value and not any(isinstance(row, list) for row in value):
        return Columns(None, ([cell] for cell in value), f"$.{form}", as_numpy)
    return Columns(None, iter(_list_of_lists(value, form)), f"$.{form}", as_numpy)


def _named(records: list[Any], form: str, coerce: Coerce, most: int) -> Columns:
    """Records as a table. They stay as they are: one value for each name that occurs in some of
    them would be the square of what was sent."""
    names: dict[str, None] = {}
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise invalid(f"{form}[{number}] is {_kind(record)}, expected a dictionary")
        for name in record:
            if name not in names:
                names[name] = None
                _check_width(names, form, most)
    return Columns(list(names), iter(records), f"$.{form}", coerce)


def _check_width(names: Collection[Any], form: str, most: int) -> None:
    if len(names) > most:
        raise _too_wide(len(names), form, most)


def _too_wide(count: int, form: str, most: int) -> Problem:
    return invalid(
        f"{form} has at least {count} columns, expected at most {most}; leave out those that the "
        "model does not have"
    )


def _list_of_lists(value: Any, name: str) -> list[list[Any]]:
    if not isinstance(value, list):
        raise invalid(f"{name} is {_kind(value)}, expected a list of rows")
    for number, row in enumerate(value):
        if not isinstance(row, list):
            raise invalid(f"{name}[{number}] is {_kind(row)}, expected a list of values")
    return value


def _flat(column: list[Any]) -> list[Any]:
    """The cells of a column, which may be a tensor of shape [N, 1]."""
    if list not in {*map(type, column)}:
        return column
    return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in column]


def from_csv(body: bytes, *, most_columns: int) -> Columns:
    """A table in CSV with a header; an empty cell is null. Lines are read when they are needed: a
    list of short ones takes forty times their length in memory.

    Raises:
        Problem: 400, also while the rows are read; or more than `most_columns` columns.
    """
    try:
        rows = _rows_of(body.decode("utf-8-sig"), most_columns)
    except UnicodeDecodeError:
        raise invalid("Ensure that input is a valid UTF-8 encoded string.") from None
    names = next(rows, None)
    if names is None:
        raise _not_csv("it is empty")
    _check_width(names, "the CSV table", most_columns)
    if names[0] == "":  # the index that `DataFrame.to_csv` writes
        names, rows = names[1:], (row[1:] for row in rows)
    return Columns(names, rows, "$", from_text, all_from_text)


def _rows_of(text: str, most: int) -> Iterator[list[str]]:
    """The cells of each line that has some; raises `Problem`."""
    try:
        lines = io.StringIO(text, newline="")  # which may end with a carriage return alone
        empty = 0
        for row in csv.reader(_not_too_wide(lines, most), strict=True):
            if row:
                yield row
                continue
            empty += 1
            if empty > EMPTY_LINES:
                raise invalid(
                    f"the CSV table has more than {EMPTY_LINES} empty lines, expected fewer; "
                    "leave them out"
                )
    except csv.Error as error:
        raise _not_csv(str(error)) from None


def _not_too_wide(lines: Iterable[str], most: int) -> Iterator[str]:
    """The lines; raises `Problem` for one of too many cells, each of which would take twenty times
    its length in memory."""
    for line in lines:
        if line.count(",") > most:
            count = _QUOTED.sub("", line).count(",")
            if count > most:
                raise _too_wide(count, "a line of the CSV table", most)
        yield line


def _not_csv(reason: str) -> Problem:
    return invalid(
        "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid "
        f"CSV-formatted Pandas DataFrame with a header. Error: {reason}"
    )


def _unequal() -> Problem:
    message = "The length of values for each input/column name are not the same"
    return Problem(400, INVALID_PARAMETER, f"Invalid input. {message}")


def invalid(message: str) -> Problem:
    """MLflow's 400 for a body that is not built as the protocol says."""
    return Problem(400, "BAD_REQUEST", f"Invalid input. {message}")


def _kind(value: Any) -> str:
    names = {dict: "a dictionary", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
