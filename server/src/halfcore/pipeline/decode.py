"""The fast decoder: turns a request's body into packed rows, if the body is right.

One typed parse by msgspec checks names, types and length in C; packing checks categories and range.
A body that does not pass goes to the explaining decoder (`explain`), which reads it again and
either says what is wrong or accepts it. Both accept the same bodies and give the same rows;
tests/server/pipeline/test_decode.py compares them.

A long body is decoded in chunks: the parsed values of a chunk are packed and dropped before the
next one is parsed, and between chunks other requests are answered.
"""

import re
import struct
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import msgspec

from halfcore.pipeline.explain import Explainer, too_many_rows
from halfcore.pipeline.schema import Schema
from halfcore.problem import Problem

SHORT_BODY_BYTES = 16_384
"""Bodies up to this length are decoded in one piece: 1 to 6 ms if they are wrong in the most
expensive way."""
CHUNK_BYTES = 32_768
"""Of a long body that are parsed in one piece: 1 to 3 ms."""
_T = TypeVar("_T")


class Rows(msgspec.Struct, frozen=True, gc=False):
    """A request's packed rows and their number; `many`: a list was sent, so the answer is a
    list."""

    payload: bytes
    size: int
    many: bool


class Decoder:
    """Decodes the bodies of one model version.

    Four forms: `{"features": [v, …]}`, `{"features": [[v, …], …]}`, `{"name": v, …}` and `[{"name":
    v, …}, …]`.
    """

    def __init__(self, schema: Schema, *, max_rows: int) -> None:
        self._schema = schema
        self.max_rows = max_rows
        self._explainer = Explainer(schema, max_rows=max_rows, right_row=self._right_row)
        row: Any = schema.row_type()
        record: Any = schema.record_type()
        # If a model has a column that is called `features`, its records take precedence over the
        # vector form.
        self._vectors = "features" not in (*schema.names, *schema.ignored)
        self._one_vector = _decoder(
            msgspec.defstruct("Vector", [("features", row)], forbid_unknown_fields=True, gc=False)
        )
        self._one_record = _decoder(record)
        self._many_vectors = _decoder(
            msgspec.defstruct("Vectors", [("features", list[row])], forbid_unknown_fields=True)
        )
        self._vector_list = _decoder(list[row])
        self._vector = _decoder(row)
        self._many_records = _decoder(list[record])
        self._key_quotes = 2 * len(schema.inputs)
        self._text_columns = schema.text_columns
        # A column's index, its default, and how many quotes a record without it lacks: two for its
        # name, and two if it is a text.
        self._defaults = [
            (i, value, 4 if isinstance(value, str) else 2) for i, value in schema.defaults.items()
        ]
        texts = [
            *schema.names,
            *schema.ignored,
            *(str(text) for column in schema.inputs for text in column.categories or ()),
        ]
        self._can_be_cut = not any(set(text) & _NOT_BETWEEN_ROWS for text in texts)

    def decode(self, body: bytes) -> Rows:
        """Parse, check and pack a body.

        Raises:
            Problem: 400 not JSON or a duplicate name, 413 too many rows, 422 wrong names, types or
                values.
        """
        if len(body) <= SHORT_BODY_BYTES and (rows := self._decode_short(body)) is not None:
            return rows
        return all_at_once(self.steps(body))

    def steps(self, body: bytes) -> Generator[None, None, Rows]:
        """`decode` in slices of a few milliseconds: yields between them."""
        if (
            len(body) > SHORT_BODY_BYTES
            and (rows := (yield from self._decode_long(body))) is not None
        ):
            return rows
        return Rows(*(yield from self._explainer.steps(body)))

    def _decode_short(self, body: bytes) -> Rows | None:
        """The rows of a body that is right; None if it may be wrong."""
        vectors = self._vectors and (body.startswith(_USUAL_START) or b'"features"' in body[:64])
        return self._decode_one(body, vectors=vectors) or self._decode_many(body, vectors=vectors)

    def _decode_one(self, body: bytes, *, vectors: bool) -> Rows | None:
        try:
            if vectors:
                values = self._one_vector(body).features
                quotes = 2
            else:
                values = msgspec.structs.astuple(self._one_record(body))
                quotes = self._key_quotes
                if self._defaults:
                    values, quotes = self._fill(values)
                if self._schema.ignored:
                    quotes += self._schema.ignored_quotes(values)
            payload = self._schema.pack(values)
        except REFUSED:
            return None
        # Parsers silently keep the last of two equal names. Every name and text has two quotes, so
        # a body with more quotes than its values explain has a name twice (or an escaped quote):
        # the explaining decoder decides.
        if body.count(b'"') != quotes + self._text_quotes(values):
            return None
        return Rows(payload, 1, many=False)

    def _decode_many(self, body: bytes, *, vectors: bool) -> Rows | None:
        try:
            rows = self._many_vectors(body).features if vectors else self._many_records(body)
            payload, size, quotes = self._packed(rows, vectors=vectors)
        except REFUSED:
            return None
        if not 1 <= size <= self.max_rows or body.count(b'"') != quotes + 2 * vectors:
            return None
        return Rows(payload, size, many=True)

    def _decode_long(self, body: bytes) -> Generator[None, None, Rows | None]:
        """As `_decode_short`, in chunks that end between two rows; None also if there is no such
        place."""
        vectors = self._vectors and _VECTORS.match(body)
        start = vectors or _RECORDS.match(body)
        if not start:
            return self._decode_long_row(body)
        end = (_VECTORS_END if vectors else _RECORDS_END).search(
            body, max(0, len(body) - _END_BYTES)
        )
        if not end or not self._can_be_cut:
            return None
        parse = self._vector_list if vectors else self._many_records
        chunks: list[bytes] = []
        size = 0
        quotes = 2 if vectors else 0
        for chunk in self.chunks(body, start.end(), end.start()):
            if chunk is None:
                return None
            try:
                payload, chunk_size, chunk_quotes = self._packed(
                    parse(chunk), vectors=bool(vectors)
                )
            except REFUSED:
                return None
            chunks.append(payload)
            size += chunk_size
            quotes += chunk_quotes
            if size > self.max_rows:
                raise too_many_rows(self.max_rows)
            yield
        if not size or body.count(b'"') != quotes:
            return None
        return Rows(b"".join(chunks), size, many=True)

    def chunks(self, body: bytes, at: int, last: int) -> Iterator[bytes | None]:
        """The rows from `at`, where one begins, to `last`, as lists of JSON that are parsed in 1 to
        3 ms each; None at once if there is no place to cut, between two rows. A place in a text is
        no danger: the list ends within that text then, and cannot be parsed."""
        closing = b"]" if body.startswith(b"[", at) else b"}"
        longest = 2 * CHUNK_BYTES + self._explainer.short_row_bytes
        while at < last:
            cut = body.find(closing, min(at + CHUNK_BYTES, last), last) + 1 or last
            yield b"[" + body[at:cut] + b"]" if cut - at <= longest else None
            separator = _SEPARATOR.match(body, cut)
            if cut < last and separator is None:
                yield None
            at = separator.end() if separator else last

    def _decode_long_row(self, body: bytes) -> Rows | None:
        """One row: it has as many values as there are columns, whatever its length."""
        most_quotes = 4 * (len(self._schema.inputs) + len(self._schema.ignored)) + 2
        if body.count(b'"') > most_quotes:  # a name twice, or an escape
            return None
        return self._decode_one(body, vectors=self._vectors and b'"features"' in body[:64])

    def _packed(self, rows: list[Any], *, vectors: bool) -> tuple[bytes, int, int]:
        """Parsed rows as bytes, their number, and how many quotes a body has for them."""
        quotes = 0
        if not vectors:
            rows = list(map(msgspec.structs.astuple, rows))
            quotes = self._key_quotes * len(rows)
            if self._defaults:
                filled = [self._fill(values) for values in rows]
                rows, quotes = [values for values, _ in filled], sum(quotes for _, quotes in filled)
            if self._schema.ignored:
                quotes += sum(map(self._schema.ignored_quotes, rows))
        payload = self._schema.pack_rows(rows)
        for i in self._text_columns:
            quotes += 2 * (len(rows) - [values[i] for values in rows].count(None))
        return payload, len(rows), quotes

    def _right_row(self, row: bytes) -> bytes | None:
        """One row, as an object or an array, packed; None if it may be wrong."""
        try:
            if row.startswith(b"["):
                values, quotes = self._vector(row), 0
            else:
                values, quotes = self._fill(msgspec.structs.astuple(self._one_record(row)))
                if self._schema.ignored:
                    quotes += self._schema.ignored_quotes(values)
            packed = self._schema.pack(values)
        except REFUSED:
            return None
        return packed if row.count(b'"') == quotes + self._text_quotes(values) else None

    def _fill(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], int]:
        """A record's values with defaults where they are absent, and how many quotes a body has for
        its names, less those of the absent columns."""
        absent = [default for default in self._defaults if values[default[0]] is msgspec.UNSET]
        if not absent:
            return values, self._key_quotes
        filled, quotes = list(values), self._key_quotes
        for i, value, lacking in absent:
            filled[i] = value
            quotes -= lacking
        return tuple(filled), quotes

    def _text_quotes(self, values: tuple[Any, ...]) -> int:
        return (
            2 * sum([values[i] is not None for i in self._text_columns])
            if self._text_columns
            else 0
        )


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode


def all_at_once(steps: Generator[None, None, _T]) -> _T:
    """The result of work in slices, done without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


_USUAL_START = b'{"features"'
"""Compared first: this costs a third of the search in the body's beginning."""
REFUSED = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    KeyError,
    OverflowError,
    struct.error,
    TypeError,
)
"""What msgspec raises on a wrong body (the first three, of which the last two are Python's), and
what packing raises on a wrong value."""
_NOT_BETWEEN_ROWS = set('[]{}"\\')
"""A text with one of these could be mistaken for the end of a row."""
_VECTORS = re.compile(
    rb'[ \t\n\r]*+\{[ \t\n\r]*+"features"[ \t\n\r]*+:[ \t\n\r]*+\[[ \t\n\r]*+(?=\[)'
)
_RECORDS = re.compile(rb"[ \t\n\r]*+\[[ \t\n\r]*+(?=\{)")
_VECTORS_END = re.compile(rb"(?<=\])[ \t\n\r]*+\][ \t\n\r]*+\}[ \t\n\r]*+\Z")
_RECORDS_END = re.compile(rb"(?<=\})[ \t\n\r]*+\][ \t\n\r]*+\Z")
_END_BYTES = 256
_SEPARATOR = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")

__all__ = ["REFUSED", "Decoder", "Problem", "Rows", "all_at_once"]
