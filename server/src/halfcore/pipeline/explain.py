"""The slow decoder: reads a body that the fast one refused, and says exactly what is wrong with it.

It accepts the same bodies as the fast decoder and gives the same rows, but checks every byte:
UTF-8, JSON, no name twice, then each value of each row against its column. The first errors are
listed with their paths, the others are only counted; if many are found, the search ends early.

These bodies are usually wrong, and may be made to be expensive. So time is linear in the length of
the body, and memory a small multiple of it (`just prove-bodies`): rows are found by their ends
(`scan`) and parsed one at a time, and only if they are short; a longer row is read one value at a
time (`json_text`). The work is cut into slices (`yield`), and other requests are answered between
them.
"""

from collections.abc import Callable, Generator
from typing import Any

from halfcore.pipeline.json_text import (
    SHOWN_BYTES,
    JsonText,
    TooDeep,
    Unread,
    duplicate_name,
    not_json,
)
from halfcore.pipeline.row_checks import (
    OTHER_PROTOCOLS,
    ExpectedRow,
    RowChecks,
    kind_of,
    refuse,
    refuse_other_protocol,
    refuse_with_features,
)
from halfcore.pipeline.scan import FLAT, SEPARATOR, STRING, BrokenText, after_space
from halfcore.pipeline.schema import Schema
from halfcore.pipeline.text import MOST_CHARACTERS
from halfcore.problem import Problem, unprocessable

SLICE_BYTES = 8192
"""Of a body that are examined between two pauses: 1 to 4 ms."""
SHORT_ROW_BYTES = 16_384
"""Rows up to this length are parsed whole; a model with many columns has a larger limit."""

Steps = Generator[None, None, int]
"""Work in slices; its result is the position after what was read."""
RightRow = Callable[[bytes], bytes | None]


def _no_right_row(_: bytes) -> bytes | None:
    return None


class _Enough(Exception):
    """The rest of the body need not be read: the list of errors is full, or a value is too long to
    be right."""


class Explainer:
    """Finds what is wrong with the bodies that are sent to one model version.

    Args:
        schema: what a row must look like.
        max_rows: most rows in one request.
        right_row: packs a row that is certainly right, otherwise returns None. The rows before the
            first error are usually right, and this is several times faster than to check each
            value.
    """

    def __init__(
        self, schema: Schema, *, max_rows: int, right_row: RightRow = _no_right_row
    ) -> None:
        self.expected = ExpectedRow(schema)
        self.max_rows = max_rows
        self.right_row = right_row
        self.short_row_bytes = max(SHORT_ROW_BYTES, 4 * _longest_row(schema))

    def steps(self, body: bytes) -> Generator[None, None, tuple[bytes, int, bool]]:
        """Read a body; yields between slices.

        Returns:
            the packed rows, their number, and whether a list of rows was sent.

        Raises:
            Problem: 400, 413 or 422; see `Decoder.decode`.
        """
        reading = _Reading(self, body)
        checks = reading.checks
        more = False
        try:
            at = yield from reading.body()
            at = after_space(body, at)
            if at < len(body):
                raise BrokenText(at)
        except _Enough:
            more = True
        except BrokenText as error:
            raise not_json(body, error) from None
        except (TooDeep, RecursionError):
            message = "the body is nested too deeply, expected at most an array of objects"
            raise Problem(400, "too_deep", message) from None
        if checks.error_count:
            raise unprocessable(checks.errors, checks.error_count, more=more)
        return bytes(checks.packed), checks.rows, reading.many


class _Reading:
    """One body while it is read.

    Attributes:
        checks: the rows and errors until now.
        many: whether a list of rows was sent.
    """

    def __init__(self, explainer: Explainer, text: bytes) -> None:
        self._explainer = explainer
        self._expected = explainer.expected
        self._text = text
        self._most = explainer.short_row_bytes
        self._json = JsonText(text, self._most)
        self.checks = RowChecks(explainer.expected)
        self.many = False

    def body(self) -> Steps:
        """Read the whole body, in any of its four forms; returns the position after its value."""
        at = after_space(self._text, 0)
        if self._json.has(b"[", at):
            self.many = True
            return (yield from self._rows(at, "$"))
        if self._json.has(b"{", at):
            if self._expected.vectors and (value_at := self._features_at(at)):
                return (yield from self._features(value_at))
            return (yield from self._row(at, None, "$"))
        value, _ = self._json.value(at)
        message = f"the body is {kind_of(value)}, expected an object or an array of objects"
        refuse("wrong_type", "$", message, value)

    def _features_at(self, at: int) -> int:
        """The position of the value of `features` if that is the object's first name, otherwise
        0."""
        start = after_space(self._text, at + 1)
        name = STRING.match(self._text, start, start + SHOWN_BYTES)
        if name is None or self._json.parsed(start, name.end()) != "features":
            return 0
        return self._json.after(b":", after_space(self._text, name.end()))

    def _features(self, at: int) -> Steps:
        """Read `{"features": …}`; `at` is the position of the value."""
        path = "$.features"
        if not self._json.has(b"[", at):
            value, _ = self._json.value(at)
            message = f'"features" is {kind_of(value)}, expected an array'
            refuse("wrong_type", path, message, value)
        if self._json.has(b"[", after_space(self._text, at + 1)):
            self.many = True
            at = yield from self._rows(at, path)
        else:
            at = yield from self._row(at, None, path)
        at = after_space(self._text, at)
        if self._json.has(b",", at):
            name, _ = self._json.name(after_space(self._text, at + 1))
            if name == "features":
                raise duplicate_name(name)
            refuse_with_features(name)
        return self._json.closing(b"}", at)

    def _rows(self, at: int, path: str) -> Steps:
        """Read an array of rows."""
        at = after_space(self._text, at + 1)
        if self._json.has(b"]", at):
            refuse("no_rows", path, "the array is empty, expected at least one row", [])
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
                self.checks.add(packed)
                at = flat.end()
            number += 1
            separator = SEPARATOR.match(self._text, at)
            if separator is None:
                return self._json.closing(b"]", at)
            if self.checks.full:
                raise _Enough
            at = separator.end()
            if at - paused_at >= SLICE_BYTES:
                paused_at = at
                yield

    def _row(self, at: int, number: int | None, path: str) -> Steps:
        """Read one row; one without a number is an object or array. Returns the position after
        it."""
        flat = FLAT.match(self._text, at, at + self._most)
        if flat is not None:
            value, end = self._json.parsed(at, flat.end()), flat.end()
        else:
            value, end = self._json.value(at)
        if end > 0 or not isinstance(value, Unread):
            self.checks.check(value, number, path)
            if end < 0:
                raise _Enough
            return end
        kind = _LongRecord if self._json.has(b"{", at) else _LongVector
        return (yield from self._long_row(at, kind(self._json, self.checks, number, path)))

    def _long_row(self, at: int, row: "_LongRecord | _LongVector") -> Steps:
        """Read a row's elements one by one; returns the position after it."""
        at = paused_at = after_space(self._text, at + 1)
        while not self._json.has(row.closing, at):
            at = self._json.next_element(row.read_element(at), row.closing)
            if at - paused_at >= SLICE_BYTES:
                paused_at = at
                yield
        row.check()
        return at + 1


class _LongRecord:
    """An object that is too long to be parsed whole, while its members are read."""

    closing = b"}"

    def __init__(self, text: JsonText, checks: RowChecks, number: int | None, path: str) -> None:
        self._json = text
        self._checks = checks
        self._expected = checks.expected
        self._number = number
        self._path = path
        self._row: dict[str, Any] = {}
        self._first = ""

    def read_element(self, at: int) -> int:
        """Read one member; returns the position after it."""
        expected = self._expected
        name, at = self._json.name(at)
        self._check_name(name)
        if at < 0 or self._checks.full:
            raise _Enough
        any_length = name in expected.ignored
        value, at = self._json.value(self._json.after(b":", at), any_length=any_length)
        if name in expected.known:
            self._row[name] = value
        if at < 0:
            column = expected.column_of.get(name)
            if column is not None:
                self._checks.wrong(column, value, self._number, f"{self._path}.{name}")
            self._checks.check_ignored(self._row, self._number, self._path)
            raise _Enough
        return at

    def check(self) -> None:
        """Check the whole row."""
        self._checks.check_record(self._row, self._number, self._path)

    def _check_name(self, name: str) -> None:
        self._first = self._first or name
        if name in self._row:
            raise duplicate_name(name)
        if name == "features" and self._expected.vectors and self._number is None:
            refuse_with_features(self._first)
        if name not in self._expected.known:
            if self._number is None and name in OTHER_PROTOCOLS:
                refuse_other_protocol(name)
            self._checks.unknown(name, self._number, self._path)


class _LongVector:
    """An array that is too long to be parsed whole, while its values are read."""

    closing = b"]"

    def __init__(self, text: JsonText, checks: RowChecks, number: int | None, path: str) -> None:
        self._json = text
        self._checks = checks
        self._number = number
        self._path = path
        self._row: list[Any] = []

    def read_element(self, at: int) -> int:
        """Read one value; returns the position after it."""
        index, columns = len(self._row), self._checks.expected.columns
        if index == len(columns):
            sent = f"more than {index}"
            self._checks.wrong_length(sent, index + 1, self._number, self._path)
            raise _Enough
        value, at = self._json.value(at)
        self._row.append(value)
        if at < 0:
            self._checks.wrong(columns[index], value, self._number, f"{self._path}[{index}]")
            raise _Enough
        return at

    def check(self) -> None:
        """Check the whole row."""
        self._checks.check_vector(self._row, self._number, self._path)


def too_many_rows(max_rows: int) -> Problem:
    """The 413 for a body with more rows than one request may have."""
    message = f"more than {max_rows} rows were sent, expected at most {max_rows} in one request"
    return Problem(413, "too_many_rows", message)


def _longest_row(schema: Schema) -> int:
    """Bytes of a row's longest usual spelling: names and texts in escapes, 24 characters a
    number."""
    texts = [str(text) for column in schema.inputs for text in (column.categories or ())]
    names = sum(len(name) for name in schema.names)
    longest_text = max(map(len, texts), default=0)
    if any(map(schema.accepts_unknown, schema.names)):
        longest_text = max(longest_text, MOST_CHARACTERS)
    free = sum(12 * column.text.max_length for column in schema.inputs if column.text)
    return 6 * names + len(schema.names) * (6 * longest_text + 24) + free
