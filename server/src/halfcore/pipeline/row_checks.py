"""Checks the rows of one body against a model version's columns: packs those that are right, and
lists what is wrong."""

import json
from typing import Any, NoReturn

from halfcore.pipeline.columns import Column
from halfcore.pipeline.json_text import Unread
from halfcore.pipeline.schema import Schema
from halfcore.problem import MOST_ERRORS, FieldError, beginning, listed, shown, unprocessable

_SCALAR = "a string, a number, true, false or null"
_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


_MLFLOW = "send MLflow's scoring protocol to POST /invocations or /endpoints/NAME/invocations"
OTHER_PROTOCOLS = {
    "dataframe_split": _MLFLOW,
    "dataframe_records": _MLFLOW,
    "instances": f"{_MLFLOW}, and KServe's to POST /v1/models/NAME:predict",
    "inputs": f"{_MLFLOW}, and the inference protocol to POST /v2/models/NAME/infer",
}
"""Names with which bodies in other protocols begin, and the routes that take those."""


class ExpectedRow:
    """What a row of one model version must hold; made once per version."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns = [Column(column, schema) for column in schema.inputs]
        self.column_of = {column.name: column for column in self.columns}
        self.ignored = frozenset(schema.ignored)
        self.known = self.column_of.keys() | self.ignored
        # If a model has a column that is called `features`, its records take precedence over the
        # vector form.
        self.vectors = "features" not in self.known


class RowChecks:
    """The rows of one body, checked and packed.

    Attributes:
        packed: the rows until the first error.
        rows: their number.
        errors: the first `MOST_ERRORS` of `error_count`.
    """

    def __init__(self, expected: ExpectedRow) -> None:
        self.expected = expected
        self._schema = expected.schema
        self.packed = bytearray()
        self.rows = 0
        self.errors: list[FieldError] = []
        self.error_count = 0

    @property
    def full(self) -> bool:
        """Whether the list of errors is full."""
        return len(self.errors) == MOST_ERRORS

    def add(self, packed: bytes) -> None:
        """Add a row that is right."""
        self.packed += packed
        self.rows += 1

    def check(self, row: Any, number: int | None, path: str) -> None:
        """Check a row that was parsed whole."""
        if isinstance(row, dict):
            self._check_names(row, number, path)
            self.check_record(row, number, path)
        elif isinstance(row, list):
            self.check_vector(row, number, path)
        elif self._counted():
            expected = "an array" if path.startswith("$.features") else "an object"
            message = f"row {number} is {kind_of(row)}, expected {expected}"
            got = shown(row)
            error = FieldError("wrong_type", path, message, number, got=got, expected=expected)
            self.errors.append(error)

    def check_record(self, row: dict[str, Any], number: int | None, path: str) -> None:
        """Check that each column is there or has a default, then the values; pack the row."""
        columns, defaults = self.expected.columns, self._schema.defaults
        if self.expected.ignored:
            self.check_ignored(row, number, path)
        for i, column in enumerate(columns):
            if column.name not in row and i not in defaults:
                self._wrong_name("missing_column", column.name, "is missing", number, path)
        for column in columns:
            if column.name in row and not column.accepts(row[column.name]):
                self.wrong(column, row[column.name], number, f"{path}.{column.name}")
        if not self.error_count:
            names = enumerate(self._schema.names)
            self.add(
                self._schema.pack([row[name] if name in row else defaults[i] for i, name in names])
            )

    def check_vector(self, row: list[Any], number: int | None, path: str) -> None:
        """Check a vector's length, then its values; pack the row."""
        columns = self.expected.columns
        if len(row) != len(columns):
            self.wrong_length(str(len(row)), len(row), number, path)
            return
        for i, (column, value) in enumerate(zip(columns, row, strict=True)):
            if not column.accepts(value):
                self.wrong(column, value, number, f"{path}[{i}]")
        if not self.error_count:
            self.add(self._schema.pack(row))

    def check_ignored(self, row: dict[str, Any], number: int | None, path: str) -> None:
        """A column that the model does not read may hold any string, number, boolean or null."""
        for name in self._schema.ignored:
            value = row.get(name)
            if isinstance(value, list | dict | Unread) and self._counted():
                text = shown(name)
                message = f'{_row(number)}"{text}" is {kind_of(value)}, expected {_SCALAR}'
                where = f"{path}.{text}"
                error = FieldError(
                    "wrong_type", where, message, number, text, shown(value), _SCALAR
                )
                self.errors.append(error)

    def unknown(self, name: str, number: int | None, path: str) -> None:
        """Add the error for a name that is no column."""
        problem = "is not a column of this model"
        self._wrong_name("unknown_column", shown(name), problem, number, path)

    def wrong(self, column: Column, value: Any, number: int | None, path: str) -> None:
        """Add the error for a value that its column does not accept."""
        problem = column.problem(value) if self._counted() else None
        if problem is not None:
            code, expected, wanted = problem
            message = f'{_row(number)}"{column.name}" is {_quoted(value)}, expected {wanted}'
            got = shown(value)
            self.errors.append(FieldError(code, path, message, number, column.name, got, expected))

    def wrong_length(self, sent: str, got: int, number: int | None, path: str) -> None:
        """Add the error for a vector whose length is not the number of columns."""
        if self._counted():
            expected = len(self._schema.inputs)
            names = listed(list(self._schema.names))
            message = f"{_row(number)}{sent} values were sent, expected {expected}: {names}"
            error = FieldError("wrong_length", path, message, number, None, got, expected)
            self.errors.append(error)

    def _check_names(self, row: dict[str, Any], number: int | None, path: str) -> None:
        if self.expected.vectors and number is None and "features" in row:
            refuse_with_features(next(iter(row)))
        for name in row:
            if name not in self.expected.known:
                if number is None and name in OTHER_PROTOCOLS:
                    refuse_other_protocol(name)
                self.unknown(name, number, path)

    def _wrong_name(
        self, code: str, name: str, problem: str, number: int | None, path: str
    ) -> None:
        """Add the error for a name that is missing or unknown."""
        if self._counted():
            names = list(self._schema.names)
            message = f'{_row(number)}"{name}" {problem}, expected {listed(names)}'
            where, expected = f"{path}.{name}", beginning(names)
            self.errors.append(FieldError(code, where, message, number, name, expected=expected))

    def _counted(self) -> bool:
        """Count an error; returns whether it is also to be listed."""
        self.error_count += 1
        return len(self.errors) < MOST_ERRORS


def refuse_other_protocol(name: str) -> NoReturn:
    """Refuse a body in the protocol of another server; say which route takes it."""
    message = (
        f'"{name}" is not a column of this model, expected the columns or {{"features": […]}}; '
        f"{OTHER_PROTOCOLS[name]}"
    )
    refuse("unknown_column", f"$.{name}", message, name)


def refuse_with_features(name: str) -> NoReturn:
    """Refuse a body in which `features` is not the only name."""
    text = shown(name)
    message = f'"{text}" was sent with "features", expected "features" alone'
    refuse("unknown_column", f"$.{text}", message, text)


def refuse(code: str, path: str, message: str, got: Any) -> NoReturn:
    """Refuse a body for one error that makes the others meaningless."""
    raise unprocessable([FieldError(code, path, message, got=shown(got))], 1)


def kind_of(value: Any) -> str:
    """A value's JSON type in words."""
    return str(value) if isinstance(value, Unread) else _TYPES[type(value)]


def _row(number: int | None) -> str:
    return "" if number is None else f"row {number}: "


def _quoted(value: Any) -> str:
    """A client's value as a person would write it, cut short."""
    text = shown(value)
    if isinstance(value, Unread) or not (isinstance(value, str | bool) or value is None):
        return str(text)
    return json.dumps(text, ensure_ascii=False)
