"""A request's body becomes packed rows: the fast way, for bodies that are right.

One typed parse by msgspec checks names, types and length in C; packing checks categories and range. Whatever does not come through is
given to `careful`, which reads the body again without hurry and either says what is wrong or finds that nothing is. Both ways accept the
same bodies and give the same rows; tests/server/test_decode.py holds them together.
"""

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from halfcore.codec.careful import CarefulDecoder
from halfcore.errors import Problem
from halfcore.schema import Schema


class Rows(msgspec.Struct, frozen=True, gc=False):
    """A request's rows, packed, and how many; `many` tells whether a list came, and so a list goes back."""

    payload: bytes
    size: int
    many: bool


class Decoder:
    """Decodes the bodies of one model version.

    Four forms: `{"features": [v, …]}`, `{"features": [[v, …], …]}`, `{"name": v, …}` and `[{"name": v, …}, …]`.
    """

    def __init__(self, schema: Schema, *, max_rows: int) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._careful = CarefulDecoder(schema, max_rows=max_rows)
        row: Any = schema.row_type()
        record: Any = schema.record_type()
        # A model may have a column that is called `features`; its records then win over the vector form.
        self._vectors = "features" not in (*schema.names, *schema.ignored)
        self._one_vector = _decoder(msgspec.defstruct("Vector", [("features", row)], forbid_unknown_fields=True, gc=False))
        self._one_record = _decoder(record)
        self._many_vectors = _decoder(msgspec.defstruct("Vectors", [("features", list[row])], forbid_unknown_fields=True))
        self._many_records = _decoder(list[record])
        self._key_quotes = 2 * len(schema.inputs)
        self._text_columns = schema.text_columns
        # Column, its default, and the quotes that an absent one leaves out: its name's, and a text's.
        self._defaults = [(i, value, 4 if isinstance(value, str) else 2) for i, value in schema.defaults.items()]

    def decode(self, body: bytes) -> Rows:
        """Parse, check and pack a body.

        Raises:
            Problem: 400 not JSON or a name twice, 413 too many rows, 422 wrong names, types or values.
        """
        vectors = self._vectors and (body.startswith(_USUAL_START) or b'"features"' in body[:64])
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
        except _REFUSED:
            return self._decode_many(body, vectors=vectors)
        # Parsers keep the last of two equal names silently. Every name and text has two quotes, so a body with more than the
        # values account for has a name twice (or an escaped quote): it is read carefully.
        if body.count(b'"') != quotes + self._text_quotes(values):
            return self._read_carefully(body)
        return Rows(payload, 1, many=False)

    def _decode_many(self, body: bytes, *, vectors: bool) -> Rows:
        try:
            if vectors:
                rows = self._many_vectors(body).features
                quotes = 2
            else:
                rows = [msgspec.structs.astuple(record) for record in self._many_records(body)]
                quotes = self._key_quotes * len(rows)
                if self._defaults:
                    filled = [self._fill(values) for values in rows]
                    rows, quotes = [values for values, _ in filled], sum(quotes for _, quotes in filled)
                if self._schema.ignored:
                    quotes += sum(map(self._schema.ignored_quotes, rows))
            if not 1 <= len(rows) <= self._max_rows:
                return self._read_carefully(body)
            payload = b"".join([self._schema.pack(values) for values in rows])
        except _REFUSED:
            return self._read_carefully(body)
        if body.count(b'"') != quotes + sum(map(self._text_quotes, rows)):
            return self._read_carefully(body)
        return Rows(payload, len(rows), many=True)

    def _fill(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], int]:
        """A record's values with defaults where they are absent, and the quotes that its names and its defaulted texts account for."""
        absent = [default for default in self._defaults if values[default[0]] is msgspec.UNSET]
        if not absent:
            return values, self._key_quotes
        filled, quotes = list(values), self._key_quotes
        for i, value, unsaid in absent:
            filled[i] = value
            quotes -= unsaid
        return tuple(filled), quotes

    def _text_quotes(self, values: tuple[Any, ...]) -> int:
        return 2 * sum([values[i] is not None for i in self._text_columns]) if self._text_columns else 0

    def _read_carefully(self, body: bytes) -> Rows:
        rows, many = self._careful.decode(body)
        return Rows(b"".join(rows), len(rows), many)


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode


_USUAL_START = b'{"features"'
"""Looked for first: a third of the cost of the other look."""
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, OverflowError, struct.error, TypeError)
"""What msgspec raises on a wrong body (the last two of the first three are not its own), and what packing raises on a wrong value."""

__all__ = ["Decoder", "Problem", "Rows"]
