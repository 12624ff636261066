"""The slow decoder: reads a body that the fast one refused, and says exactly what is wrong with it.

It accepts the same bodies as the fast decoder and gives the same rows, but is strict about every
byte: UTF-8, JSON, no name twice, then each value of each row against its column. The first errors
are listed with their paths, the others only counted; where many are found, the search ends early.

Bodies are meant to be wrong here, and may be made to be expensive. So time is linear in the length
of the body, and memory a small multiple of it (`just prove-bodies`): rows are found by their ends
(`scan`), parsed one at a time and only if they are short; of a longer row one value at a time. The
work is cut into slices (`yield`), between which other requests are answered.
"""

import json
import re
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from halfcore.pipeline.columns import Column
from halfcore.pipeline.scan import FLAT, SEPARATOR, STRING, BrokenText, after_space, end_of_scalar
from halfcore.pipeline.schema import Schema
from halfcore.problem import (
    MOST_ERRORS,
    FieldError,
    Problem,
    beginning,
    listed,
    shown,
    unprocessable,
)

SLICE_BYTES = 8192
"""Of a body that are examined between two pauses: 1 to 4 ms."""
SHORT_ROW_BYTES = 16_384
"""Rows up to this length are parsed whole; a model with many columns has a larger limit."""
NESTED_BYTES = 1024
"""An array or object in the place of a value is wrong; a longer one is not read to its end."""
MAX_DEPTH = 64
"""Arrays and objects that may be open at the end of those bytes."""
_SHOWN_BYTES = 800
"""Of a text that is too long to be parsed: enough for what an error shows of it."""
_SCALAR = "a string, a number, true, false or null"
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Strings, also the last one if it is cut off: else each escaped quote in it would be tried as a
beginning."""
_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

Steps = Generator[None, None, int]
"""Work in slices; its result is the position after what was read."""


RightRow = Callable[[bytes], bytes | None]


def _no_right_row(_: bytes) -> bytes | None:
    return None


class Unread(str):
    """Stands for a value inside a long row that is not parsed: what it is, in words."""

    __slots__ = ()


class _Enough(Exception):
    """The rest of the body need not be read: the list of errors is full, or a value is too long to
    be right."""


class _TooDeep(Exception):
    """Arrays and objects are nested too deeply."""


class Explainer:
    """Explains bodies to one model version's clients.

    Args:
        schema: what a row must look like.
        max_rows: most rows in one request.
        right_row: packs a row that is certainly right, else returns None. The rows before the first
            error are usually right, and this is several times faster than to check each value.
    """

    def __init__(
        self, schema: Schema, *, max_rows: int, right_row: RightRow = _no_right_row
    ) -> None:
        self.schema = schema
        self.max_rows = max_rows
        self.right_row = right_row
        self.columns = [Column(column, schema) for column in schema.inputs]
        self.column_of = {column.name: column for column in self.columns}
        self.ignored = frozenset(schema.ignored)
        self.known = self.column_of.keys() | self.ignored
        # A model may have a column that is called `features`; its records then win over the vector
        # form.
        self.vectors = "features" not in self.known
        self.short_row_bytes = max(SHORT_ROW_BYTES, 4 * _longest_row(schema))

    def steps(self, body: bytes) -> Generator[None, None, tuple[bytes, int, bool]]:
        """Read a body; yields between slices.

        Returns:
            the packed rows, their number, and whether a list of rows was sent.

        Raises:
            Problem: 400, 413 or 422; see `Decoder.decode`.
        """
        reading = _Reading(self, body)
        more = False
        try:
            at = yield from reading.body()
            at = after_space(body, at)
            if at < len(body):
                raise BrokenText(at)
        except _Enough:
            more = True
        except BrokenText as error:
            raise _not_json(body, error) from None
        except (_TooDeep, RecursionError):
            message = "the body is nested too deeply, expected at most an array of objects"
            raise Problem(400, "too_deep", message) from None
        if reading.error_count:
            raise unprocessable(reading.errors, reading.error_count, more=more)
        return bytes(reading.packed), reading.rows, reading.many


class _Reading:
    """One body while it is read.

    Attributes:
        packed: the rows until the first error.
        rows: their number.
        many: whether a list of rows was sent.
        errors: the first `MOST_ERRORS` of `error_count`.
    """

    def __init__(self, explainer: Explainer, text: bytes) -> None:
        self._explainer = explainer
        self._schema = explainer.schema
        self._text = text
        self._most = explainer.short_row_bytes
        self.packed = bytearray()
        self.rows = 0
        self.many = False
        self.errors: list[FieldError] = []
        self.error_count = 0

    # -- the four forms of a body ------------------------------------------------------------------

    def body(self) -> Steps:
        """Read the whole body; returns the position after its value."""
        at = after_space(self._text, 0)
        if self._is(b"[", at):
            self.many = True
            return (yield from self._rows(at, "$"))
        if self._is(b"{", at):
            if self._explainer.vectors and (value_at := self._features_at(at)):
                return (yield from self._features(value_at))
            return (yield from self._row(at, None, "$"))
        value, _ = self._value(at)
        message = f"the body is {_kind(value)}, expected an object or an array of objects"
        _refuse("wrong_type", "$", message, value)

    def _features_at(self, at: int) -> int:
        """The position of the value of `features` if that is the object's first name, else 0."""
        start = after_space(self._text, at + 1)
        name = STRING.match(self._text, start, start + _SHOWN_BYTES)
        if name is None or self._parsed(start, name.end()) != "features":
            return 0
        return self._after(b":", after_space(self._text, name.end()))

    def _features(self, at: int) -> Steps:
        """Read `{"features": …}` from its value on."""
        path = "$.features"
        if not self._is(b"[", at):
            value, _ = self._value(at)
            _refuse("wrong_type", path, f'"features" is {_kind(value)}, expected an array', value)
        if self._is(b"[", after_space(self._text, at + 1)):
            self.many = True
            at = yield from self._rows(at, path)
        else:
            at = yield from self._row(at, None, path)
        at = after_space(self._text, at)
        if self._is(b",", at):
            name, _ = self._name(after_space(self._text, at + 1))
            if name == "features":
                raise _twice(name)
            _refuse_with_features(name)
        return self._closing(b"}", at)

    def _rows(self, at: int, path: str) -> Steps:
        """Read an array of rows."""
        at = after_space(self._text, at + 1)
        if self._is(b"]", at):
            _refuse("no_rows", path, "the array is empty, expected at least one row", [])
        right_row = self._explainer.right_row
        number = paused_at = 0
        while True:
            if number == self._explainer.max_rows:
                raise too_many_rows(self._explainer.max_rows)
            flat = FLAT.match(self._text, at, at + self._most)
            packed = right_row(flat[0]) if flat else None
            if flat is None or packed is None:
                at = yield from self._row(at, number, f"{path}[{number}]")
            else:
                self._add(packed)
                at = flat.end()
            number += 1
            separator = SEPARATOR.match(self._text, at)
            if separator is None:
                return self._closing(b"]", at)
            if len(self.errors) == MOST_ERRORS:
                raise _Enough
            at = separator.end()
            if at - paused_at >= SLICE_BYTES:
                paused_at = at
                yield

    # -- rows --------------------------------------------------------------------------------------

    def _row(self, at: int, number: int | None, path: str) -> Steps:
        """Read one row, an object or array if it has no number; returns the position after it."""
        flat = FLAT.match(self._text, at, at + self._most)
        if flat is not None:
            value, end = self._parsed(at, flat.end()), flat.end()
        else:
            value, end = self._value(at)
        if end > 0 or not isinstance(value, Unread):
            self._check(value, number, path)
            if end < 0:
                raise _Enough
            return end
        if self._is(b"{", at):
            return (yield from self._long_record(at, number, path))
        return (yield from self._long_vector(at, number, path))

    def _long_record(self, at: int, number: int | None, path: str) -> Steps:
        """Read an object's members one by one."""
        row: dict[str, Any] = {}
        first = ""
        at = paused_at = after_space(self._text, at + 1)
        while not self._is(b"}", at):
            name, at = self._name(at)
            first = first or name
            if name in row:
                raise _twice(name)
            if name == "features" and self._explainer.vectors and number is None:
                _refuse_with_features(first)
            if name not in self._explainer.known:
                self._unknown(name, number, path)
            if at < 0 or len(self.errors) == MOST_ERRORS:
                raise _Enough
            value, at = self._value(
                self._after(b":", at), any_length=name in self._explainer.ignored
            )
            column = self._explainer.column_of.get(name)
            if name in self._explainer.known:
                row[name] = value
            if at < 0:
                if column is not None:
                    self._wrong(column, value, number, f"{path}.{name}")
                self._check_ignored(row, number, path)
                raise _Enough
            at = self._next(at, b"}")
            if at - paused_at >= SLICE_BYTES:
                paused_at = at
                yield
        self._check_record(row, number, path)
        return at + 1

    def _long_vector(self, at: int, number: int | None, path: str) -> Steps:
        """Read an array's values one by one."""
        most = len(self._schema.inputs)
        row: list[Any] = []
        at = paused_at = after_space(self._text, at + 1)
        while not self._is(b"]", at):
            if len(row) == most:
                self._wrong_length(f"more than {most}", most + 1, number, path)
                raise _Enough
            value, at = self._value(at)
            row.append(value)
            if at < 0:
                column = self._explainer.columns[len(row) - 1]
                self._wrong(column, value, number, f"{path}[{len(row) - 1}]")
                raise _Enough
            at = self._next(at, b"]")
            if at - paused_at >= SLICE_BYTES:
                paused_at = at
                yield
        self._check_vector(row, number, path)
        return at + 1

    # -- values ------------------------------------------------------------------------------------

    def _is(self, byte: bytes, at: int) -> bool:
        return self._text[at : at + 1] == byte

    def _closing(self, bracket: bytes, at: int) -> int:
        """The position after this bracket, which has to be the next byte."""
        at = after_space(self._text, at)
        if not self._is(bracket, at):
            raise BrokenText(at)
        return at + 1

    def _after(self, byte: bytes, at: int) -> int:
        """The position of what follows this byte, which has to stand at `at`."""
        if not self._is(byte, at):
            raise BrokenText(at)
        return after_space(self._text, at + 1)

    def _next(self, at: int, closing: bytes) -> int:
        """The position of an array's or object's next element, or of its closing bracket."""
        at = after_space(self._text, at)
        if self._is(closing, at):
            return at
        at = self._after(b",", at)
        if self._is(closing, at):
            raise BrokenText(at)
        return at

    def _name(self, at: int) -> tuple[str, int]:
        """A member's name, and the position of what follows it; -1 if the name is too long."""
        if not self._is(b'"', at):
            raise BrokenText(at)
        name, end = self._value(at)
        return str(name), end if end < 0 else after_space(self._text, end)

    def _value(self, at: int, *, any_length: bool = False) -> tuple[Any, int]:
        """A value and the position after it; -1 if it is too long to be right, or to be parsed."""
        if self._text[at : at + 1] in (b"[", b"{"):
            return self._nested(at)
        end = end_of_scalar(self._text, at, len(self._text) if any_length else self._most)
        return (self._parsed(at, end) if end > 0 else self._beginning(at)), end

    def _nested(self, at: int) -> tuple[Any, int]:
        """An array or object and the position after it; `Unread` and -1 if it is long."""
        beginning = self._text[at : at + NESTED_BYTES]
        try:
            text = beginning.decode()
        except UnicodeDecodeError as error:
            if error.start < NESTED_BYTES - 3:
                raise BrokenText(at + error.start) from None
            text = beginning[: error.start].decode()
        try:
            value, stop = _decode(text)
        except json.JSONDecodeError as error:
            if at + NESTED_BYTES >= len(self._text):
                raise BrokenText(at + len(text[: error.pos].encode()), error.msg) from None
            if _open_at_end(text) > MAX_DEPTH:
                raise _TooDeep from None
            return self._beginning(at), -1
        return value, at + len(text[:stop].encode())

    def _beginning(self, at: int) -> Any:
        """Of a value that is too long to be parsed, as much as an error shows."""
        if not self._is(b'"', at):
            kinds = {b"[": "an array", b"{": "an object"}
            return Unread(kinds.get(self._text[at : at + 1], "a number of too many digits"))
        for cut in range(
            _SHOWN_BYTES, _SHOWN_BYTES - 16, -1
        ):  # not within an escape or a character
            try:
                return str(_decode((self._text[at : at + cut] + b'"').decode())[0]) + "…"
            except ValueError:
                continue
        raise BrokenText(at)

    def _parsed(self, at: int, end: int) -> Any:
        try:
            text = self._text[at:end].decode()
        except UnicodeDecodeError as error:
            raise BrokenText(at + error.start) from None
        try:
            value, stop = _decode(text)
        except json.JSONDecodeError as error:
            position = at + len(text[: error.pos].encode())
            raise BrokenText(position, error.msg) from None
        if stop != len(text):
            raise BrokenText(at + len(text[:stop].encode()))
        return value

    # -- checks ------------------------------------------------------------------------------------

    def _counted(self) -> bool:
        """Count an error; returns whether it is listed, too."""
        self.error_count += 1
        return len(self.errors) < MOST_ERRORS

    def _check(self, row: Any, number: int | None, path: str) -> None:
        """Check a row that was parsed whole."""
        if isinstance(row, dict):
            self._check_names(row, number, path)
            self._check_record(row, number, path)
        elif isinstance(row, list):
            self._check_vector(row, number, path)
        elif self._counted():
            expected = "an array" if path.startswith("$.features") else "an object"
            message = f"row {number} is {_kind(row)}, expected {expected}"
            got = shown(row)
            error = FieldError("wrong_type", path, message, number, got=got, expected=expected)
            self.errors.append(error)

    def _check_names(self, row: dict[str, Any], number: int | None, path: str) -> None:
        if self._explainer.vectors and number is None and "features" in row:
            _refuse_with_features(next(iter(row)))
        for name in row:
            if name not in self._explainer.known:
                self._unknown(name, number, path)

    def _unknown(self, name: str, number: int | None, path: str) -> None:
        """Add the error for a name that is no column."""
        if self._counted():
            names = list(self._schema.names)
            text = shown(name)
            message = (
                f'{_row(number)}"{text}" is not a column of this model, expected {listed(names)}'
            )
            where, expected = f"{path}.{text}", beginning(names)
            error = FieldError("unknown_column", where, message, number, text, expected=expected)
            self.errors.append(error)

    def _missing(self, name: str, number: int | None, path: str) -> None:
        """Add the error for a column that is not there."""
        if self._counted():
            names = list(self._schema.names)
            message = f'{_row(number)}"{name}" is missing, expected {listed(names)}'
            where, expected = f"{path}.{name}", beginning(names)
            error = FieldError("missing_column", where, message, number, name, expected=expected)
            self.errors.append(error)

    def _wrong(self, column: Column, value: Any, number: int | None, path: str) -> None:
        """Add the error for a value that its column does not accept."""
        problem = column.problem(value) if self._counted() else None
        if problem is not None:
            code, expected, wanted = problem
            message = f'{_row(number)}"{column.name}" is {_quoted(value)}, expected {wanted}'
            got = shown(value)
            self.errors.append(FieldError(code, path, message, number, column.name, got, expected))

    def _check_ignored(self, row: dict[str, Any], number: int | None, path: str) -> None:
        """A column that the model does not read may hold any string, number, boolean or null."""
        for name in self._schema.ignored:
            value = row.get(name)
            if isinstance(value, list | dict | Unread) and self._counted():
                text = shown(name)
                message = f'{_row(number)}"{text}" is {_kind(value)}, expected {_SCALAR}'
                where = f"{path}.{text}"
                error = FieldError(
                    "wrong_type", where, message, number, text, shown(value), _SCALAR
                )
                self.errors.append(error)

    def _check_record(self, row: dict[str, Any], number: int | None, path: str) -> None:
        """Check that each column is there or has a default, then the values; pack the row."""
        columns, defaults = self._explainer.columns, self._schema.defaults
        if self._explainer.ignored:
            self._check_ignored(row, number, path)
        for i, column in enumerate(columns):
            if column.name not in row and i not in defaults:
                self._missing(column.name, number, path)
        for column in columns:
            if column.name in row and not column.accepts(row[column.name]):
                self._wrong(column, row[column.name], number, f"{path}.{column.name}")
        if not self.error_count:
            names = enumerate(self._schema.names)
            self._pack([row[name] if name in row else defaults[i] for i, name in names])

    def _wrong_length(self, said: str, got: int, number: int | None, path: str) -> None:
        """Add the error for a vector that has not as many values as there are columns."""
        if self._counted():
            expected = len(self._schema.inputs)
            names = listed(list(self._schema.names))
            message = f"{_row(number)}{said} values were sent, expected {expected}: {names}"
            error = FieldError("wrong_length", path, message, number, None, got, expected)
            self.errors.append(error)

    def _check_vector(self, row: list[Any], number: int | None, path: str) -> None:
        columns = self._explainer.columns
        if len(row) != len(columns):
            self._wrong_length(str(len(row)), len(row), number, path)
            return
        for i, (column, value) in enumerate(zip(columns, row, strict=True)):
            if not column.accepts(value):
                self._wrong(column, value, number, f"{path}[{i}]")
        if not self.error_count:
            self._pack(row)

    def _pack(self, values: list[Any]) -> None:
        self._add(self._schema.pack(values))

    def _add(self, packed: bytes) -> None:
        self.packed += packed
        self.rows += 1


def too_many_rows(max_rows: int) -> Problem:
    """The 413 for a body with more rows than one request may have."""
    message = f"more than {max_rows} rows were sent, expected at most {max_rows} in one request"
    return Problem(413, "too_many_rows", message)


def _open_at_end(text: str) -> int:
    """How many arrays and objects are open at the end of a beginning of a JSON text."""
    outside = _STRINGS.sub("", text)
    return outside.count("[") + outside.count("{") - outside.count("]") - outside.count("}")


def _longest_row(schema: Schema) -> int:
    """Bytes of a row's longest usual spelling: names and texts in escapes, 24 characters a
    number."""
    texts = [str(text) for column in schema.inputs for text in (column.categories or ())]
    names = sum(len(name) for name in schema.names)
    longest_text = max(map(len, texts), default=0)
    return 6 * names + len(schema.names) * (6 * longest_text + 24)


def _not_json(body: bytes, error: BrokenText) -> Problem:
    try:
        body.decode()
    except UnicodeDecodeError as problem:
        return Problem(400, "invalid_utf8", f"byte {problem.start} of the body is not UTF-8")
    if error.position >= len(body):
        return Problem(400, "invalid_json", "the body is not JSON: it ends too early")
    reason = f"{error.reason} at byte {error.position}"
    return Problem(400, "invalid_json", f"the body is not JSON: {reason}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _twice(name)
            seen.add(name)
    return result


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, "invalid_json", f"the body is not JSON: {name} is not a JSON number")


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python refuses them, for their conversion takes quadratic time
        message = "the body holds an integer of more than 4,300 digits"
        raise Problem(400, "invalid_json", message) from None


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer
).raw_decode


def _twice(name: str) -> Problem:
    return Problem(400, "duplicate_key", f'"{shown(name)}" stands twice in one object')


def _refuse_with_features(name: str) -> NoReturn:
    text = shown(name)
    message = f'"{text}" was sent with "features", expected "features" alone'
    _refuse("unknown_column", f"$.{text}", message, text)


def _refuse(code: str, path: str, message: str, got: Any) -> NoReturn:
    raise unprocessable([FieldError(code, path, message, got=shown(got))], 1)


def _kind(value: Any) -> str:
    return str(value) if isinstance(value, Unread) else _TYPES[type(value)]


def _row(number: int | None) -> str:
    return "" if number is None else f"row {number}: "


def _quoted(value: Any) -> str:
    """A client's value as a person would write it, cut short."""
    text = shown(value)
    if isinstance(value, Unread) or not (isinstance(value, str | bool) or value is None):
        return str(text)
    return json.dumps(text, ensure_ascii=False)
