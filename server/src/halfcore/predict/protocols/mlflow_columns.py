"""MLflow's `inputs` by column, `{"inputs": {"a": [1, 2], "b": ["x", "y"]}}`, read quickly: typed
parses of some thousand values, each packed before the next, as for rows in `mlflow_rows`.

A body whose values need no conversion gets the same rows as in `mlflow_rows.Decoder.rows`, which
reads all others; a test compares them on damaged bodies.
"""

import re
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from halfcore.pipeline.decode import Rows
from halfcore.pipeline.schema import NUMPY_TYPES, Schema

_CHUNK_BYTES = 32_768
"""Of a column that are parsed in one piece: about a millisecond."""


def spaced(pattern: bytes) -> re.Pattern[bytes]:
    """A pattern in which a space stands for any white space of JSON."""
    return re.compile(pattern.replace(b" ", rb"[ \t\n\r]*+"))


_START = spaced(rb' \{ "inputs" : \{ (?=")')
_COLUMN = spaced(rb'"([^"\\\x00-\x1f]*+)" : \[')
_NEXT = spaced(rb' (?:, (?=")|(\}))')
_EMPTY = spaced(rb" \Z")
_OTHER: Callable[[bytes], list[Any]] = msgspec.json.Decoder(
    list[str | int | float | bool | None]
).decode
"""Of a column that the model does not have."""


class Found(NamedTuple):
    """What a body holds."""

    rows: Rows
    end: int
    """Where the object of the columns ends: what follows was not read."""


class ColumnDecoder:
    """Reads such bodies for one schema.

    Args:
        schema: of one model version.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._dtype = np.dtype(NUMPY_TYPES[schema.dtype])
        self._columns: dict[str, tuple[int, Callable[[bytes], list[Any]]]] = {}
        for i, name in enumerate(schema.names):
            kind: Any = schema.json_type(i)
            self._columns[name] = i, msgspec.json.Decoder(list[kind]).decode

    def read(
        self, body: bytes, *, max_rows: int, max_columns: int
    ) -> Generator[None, None, Found | None]:
        """The rows of a body; None if it may need a conversion or be wrong, and so also if one of
        `pipeline.decode.REFUSED` is raised. Yields between parses."""
        start = _START.match(body)
        if start is None:
            return None
        at = start.end()
        packed: dict[int, bytes] = {}
        names: set[str] = set()
        sizes: set[int] = set()
        while True:
            column = _COLUMN.match(body, at)
            name = column and column[1].decode()
            if column is None or name is None or name in names or len(names) == max_columns:
                return None
            names.add(name)
            index, parse = self._columns.get(name, (-1, _OTHER))
            values, size, at = yield from self._column(body, column.end(), index, parse, max_rows)
            if not size:
                return None
            sizes.add(size)
            if index >= 0:
                packed[index] = values
            following = _NEXT.match(body, at)
            if following is None or len(sizes) > 1:
                return None
            at = following.end()
            if following[1]:
                break
        (size,) = sizes
        payload = self._joined(packed, size)
        return None if payload is None else Found(Rows(payload, size, many=True), at)

    def _column(
        self,
        body: bytes,
        at: int,
        index: int,
        parse: Callable[[bytes], list[Any]],
        max_rows: int,
    ) -> Generator[None, None, tuple[bytes, int, int]]:
        """A column's packed values, their number, which is 0 if it may be wrong, and where it
        ends.

        A place to cut that is in a text is no danger: the list ends within that text then, and
        cannot be parsed.
        """
        chunks, size = [], 0
        while True:
            most = at + _CHUNK_BYTES
            end = body.find(b"]", at, most)
            cut = end
            if end < 0:  # a comma behind a quote, if there is one, as texts may hold commas
                cut = body.rfind(b'",', at, most) + 1 or body.rfind(b",", at, most)
            part = body[at:cut] if cut >= 0 else b""
            if _EMPTY.match(part):  # a chunk without a value, between or behind commas
                return b"", 0, at
            values = parse(b"[" + part + b"]")
            size += len(values)
            if size > max_rows:
                return b"", 0, at
            if index >= 0:
                chunks.append(self._schema.pack_column(index, values))
            at = cut + 1
            yield
            if end >= 0:
                return b"".join(chunks), size, at

    def _joined(self, packed: dict[int, bytes], size: int) -> bytes | None:
        """The columns as packed rows, with the default of an absent one; None if one is missing."""
        defaults = self._schema.defaults
        if not all(i in packed or i in defaults for i in range(len(self._columns))):
            return None
        matrix = np.empty((size, len(self._columns)), self._dtype)
        for i in range(len(self._columns)):
            values = packed.pop(i, None)  # taken out, so that its memory is free again
            if values is None:
                values = self._schema.pack_column(i, [defaults[i]]) * size
            matrix[:, i] = np.frombuffer(values, self._dtype)
        return matrix.tobytes()
