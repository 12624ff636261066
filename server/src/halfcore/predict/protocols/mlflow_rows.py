"""The rows of MLflow's JSON forms: `dataframe_split`, `dataframe_records`, `instances`, `inputs`.

A body whose values need no conversion is read by typed parses, a long one in chunks; any other
table is packed value by value.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from halfcore.pipeline.decode import REFUSED, Rows, all_at_once
from halfcore.pipeline.explain import too_many_rows
from halfcore.pipeline.schema import Schema
from halfcore.pipeline.table import Table
from halfcore.predict.protocols.forms import INVALID_PARAMETER, OTHER_COLUMNS, Columns, invalid
from halfcore.predict.protocols.mlflow_columns import ColumnDecoder, spaced
from halfcore.predict.protocols.protocol import Call
from halfcore.problem import FieldError, Problem, shown

USUAL_BYTES = 256 << 10
"""Longest body that one typed parse reads: some milliseconds. A longer one is read in chunks, or,
if it needs a conversion, in slices."""

_ROWS_START = spaced(
    rb' \{ "(?:dataframe_split" : \{ (?:"(?:index|columns)" : \[[^\[\]]*+\] , )*"data'
    rb'|dataframe_records|instances|inputs)" : \[ (?=[\[{])'
)
"""Where a body's rows begin. A text with a bracket before them ends the search."""
_ROWS_END = spaced(rb"(?<=[\]}]) \](?: \}){1,2} \Z")
_END_BYTES = 256
_NO_ROWS = b'{"inputs":[]'
_INPUTS_AGAIN = re.compile(rb"inputs|\\")
"""The name, or an escape, in which it may hide."""
_SPLIT, _RECORDS, _INSTANCES, _INPUTS = range(4)
"""Places of the forms in a parsed body."""
Chunks = Callable[[bytes, int, int], Iterator[bytes | None]]
"""See `pipeline.decode.Decoder.chunks`."""


class Wanted(NamedTuple):
    """What the answer must hold."""

    probabilities: bool | None = None
    """None: if the registered pyfunc answers them."""
    csv: bool = False


class _Table(NamedTuple):
    """What a usual body holds."""

    form: int
    """Place among the forms."""
    rows: list[Any]
    params: dict[str, Any] | None


class Decoder:
    """Reads the JSON forms for one schema.

    Args:
        schema: of one model version.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._table = Table.of(schema)
        row: Any = schema.row_type()
        record: Any = schema.record_type()
        split = msgspec.defstruct(
            "Split",
            [("data", list[row]), ("columns", list[str] | None, None), ("index", Any, None)],
            forbid_unknown_fields=True,
        )
        fields: list[Any] = [
            ("dataframe_split", split | UnsetType, UNSET),
            ("dataframe_records", list[record] | UnsetType, UNSET),
            ("instances", list[row | record] | UnsetType, UNSET),
            ("inputs", list[row] | UnsetType, UNSET),
            ("params", dict[str, Any] | None, None),
        ]
        self._usual = msgspec.json.Decoder(msgspec.defstruct("Body", fields)).decode
        rows, records = (msgspec.json.Decoder(kind).decode for kind in (list[row], list[record]))
        self._parsers = {
            (_SPLIT, b"["): rows,
            (_RECORDS, b"{"): records,
            (_INSTANCES, b"["): rows,
            (_INSTANCES, b"{"): records,
            (_INPUTS, b"["): rows,
        }
        """By the form and the bracket of the first row."""
        self._columns = ColumnDecoder(schema)
        self._names = list(schema.names)
        self.most_columns = len(schema.names) + len(schema.ignored) + OTHER_COLUMNS
        """Most columns that a table may have."""
        self.optional = {*schema.ignored, *(self._names[i] for i in schema.defaults)}
        """Columns that a record may lack."""

    def usual(self, body: bytes, *, max_rows: int) -> Call | None:
        """The rows of a body that is right and needs no conversion; None for any other.

        Raises:
            Problem: 400 wrong `params`.
        """
        try:
            if by_column := all_at_once(self._by_column(body, max_rows)):
                return by_column
            found = self._table_in(body)
            if found is None or not 1 <= len(found.rows) <= max_rows:
                return None
            payload = self._schema.pack_rows([self._values(row) for row in found.rows])
        except REFUSED:
            return None
        return Call(Rows(payload, len(found.rows), many=True), wanted_of(found.params))

    def usual_in_chunks(
        self, body: bytes, chunks: Chunks, *, max_rows: int
    ) -> Generator[None, None, Call | None]:
        """`usual` for a long body with its rows at the end; raises also 413, too many rows."""
        try:
            if by_column := (yield from self._by_column(body, max_rows)):
                return by_column
        except REFUSED:
            return None
        start = _ROWS_START.match(body)
        end = _ROWS_END.search(body, max(0, len(body) - _END_BYTES))
        if not start or not end or end.start() < start.end():
            return None
        packed: list[bytes] = []
        size = 0
        try:
            # All but the rows: the same checks as those of a short body
            around = self._table_in(body[: start.end()] + end.group())
            if around is None:
                return None
            parse = self._parsers[around.form, body[start.end() : start.end() + 1]]
            for chunk in chunks(body, start.end(), end.start()):
                if chunk is None:
                    return None
                rows = parse(chunk)
                size += len(rows)
                if size > max_rows:
                    raise too_many_rows(max_rows)
                packed.append(self._schema.pack_rows([self._values(row) for row in rows]))
                yield
        except REFUSED:
            return None
        return Call(Rows(b"".join(packed), size, many=True), wanted_of(around.params))

    def _by_column(self, body: bytes, max_rows: int) -> Generator[None, None, Call | None]:
        """The rows of a body with `inputs` by column, if it needs no conversion."""
        steps = self._columns.read(body, max_rows=max_rows, max_columns=self.most_columns)
        found = yield from steps
        if found is None or len(body) - found.end > _END_BYTES:
            return None
        if _INPUTS_AGAIN.search(body, found.end):  # the last of two equal names counts
            return None
        # What follows has the same checks as in a body of another form
        around = self._table_in(_NO_ROWS + body[found.end :])
        return None if around is None else Call(found.rows, wanted_of(around.params))

    def _table_in(self, body: bytes) -> "_Table | None":
        """What a body with exactly one of the forms, and the model's columns, holds; else None.
        Raises one of `REFUSED`."""
        if not body.isascii():
            body.decode()  # msgspec does not look at texts in fields that it skips
        *forms, params = msgspec.structs.astuple(self._usual(body))
        found = [(number, form) for number, form in enumerate(forms) if form is not UNSET]
        if len(found) != 1:
            return None
        ((number, rows),) = found
        if not isinstance(rows, list):
            if rows.columns is not None and rows.columns != self._names:
                return None
            rows = rows.data
        if number == _INSTANCES and len({*map(type, rows)}) > 1:
            return None  # vectors and records, which is refused
        return _Table(number, rows, params)

    def _values(self, row: Any) -> tuple[Any, ...]:
        """A row's values in the schema's order."""
        if isinstance(row, tuple):
            return row
        values = msgspec.structs.astuple(row)
        defaults = self._schema.defaults
        if defaults:
            values = tuple(
                defaults[i] if value is UNSET and i in defaults else value
                for i, value in enumerate(values)
            )
        return values

    def rows(self, table: Columns, *, max_rows: int) -> Generator[None, None, Rows]:
        """Pack a table; raises `Problem`."""
        rows = table.rows
        if table.names is not None:
            rows = self._in_order(table.names, rows, table.columns)
        packing = self._table.pack(
            rows, table.coerce, max_rows=max_rows, path=table.path, quick=table.quick
        )
        return (yield from packing)

    def _in_order(
        self, names: Sequence[str], rows: Iterator[Any], columns: Sequence[list[Any]] | None
    ) -> Iterator[Sequence[Any]]:
        """The rows, sequences or records, with the model's columns in its order, and its default or
        null for what a record lacks; raises `Problem` if a column is in none of them, or named
        twice. If the columns are there, the rows are made of them, in a fraction of the time."""
        at = {name: i for i, name in enumerate(names)}
        if len(at) < len(names):
            self._check_once(names)
        defaults = self._schema.defaults
        missing = [
            name for i, name in enumerate(self._names) if name not in at and i not in defaults
        ]
        if missing:
            known = {*self._schema.names, *self._schema.ignored}
            raise _missing(missing, [name for name in at if name not in known])
        wanted = [(name, at.get(name), defaults.get(i)) for i, name in enumerate(self._names)]
        width = len(names)
        if columns is not None:
            size = len(columns[0]) if columns else 0
            return zip(
                *[
                    repeat(default, size) if place is None else columns[place]
                    for _, place, default in wanted
                ],
                strict=True,
            )

        def picked() -> Iterator[Sequence[Any]]:
            for number, row in enumerate(rows):
                if isinstance(row, dict):
                    yield [row.get(name, default) for name, _, default in wanted]
                    continue
                if len(row) != width:
                    raise invalid(
                        f"row {number} has {len(row)} values, expected {width}, one per column"
                    )
                yield [default if place is None else row[place] for _, place, default in wanted]

        return picked()

    def _check_once(self, names: Sequence[str]) -> None:
        """Refuse a column of the model that is named twice: its values may differ."""
        times = Counter(names)
        for name in self._names:
            if times[name] > 1:
                raise Problem(
                    400,
                    INVALID_PARAMETER,
                    f"the column '{shown(name)}' is named {times[name]} times, expected it once",
                )


def wanted_of(params: Any) -> Wanted:
    """What `params` asks for; as MLflow does, it ignores what a model does not know."""
    if not isinstance(params, dict) or "predict_method" not in params:
        return Wanted()
    method = params["predict_method"]
    if method not in ("predict", "predict_proba"):
        raise Problem(
            400,
            INVALID_PARAMETER,
            f"params.predict_method is {json.dumps(shown(method))}, expected predict or "
            "predict_proba",
        )
    return Wanted(method == "predict_proba")


def _missing(missing: Sequence[str], extra: Sequence[str]) -> Problem:
    also = f" Note that there were extra inputs: {_listed_as_mlflow(extra)}." if extra else ""
    message = f"Model is missing inputs {_listed_as_mlflow(missing)}.{also}"
    return Problem(
        400,
        INVALID_PARAMETER,
        message,
        errors=[FieldError("missing_column", "$", message)],
    )


def _listed_as_mlflow(names: Sequence[str]) -> str:
    """Names as MLflow lists them, cut to a readable number."""
    listed = ", ".join(f"'{shown(name)}'" for name in names[:20])
    return f"[{listed}{', …' if len(names) > 20 else ''}]"
