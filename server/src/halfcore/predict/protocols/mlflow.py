"""MLflow's scoring protocol: `POST /invocations`, as `mlflow models serve` and SageMaker have it.

A usual JSON body is read by one typed parse, as for `POST /predict`. Any other is parsed without
types, and its values are converted as MLflow converts them (docs/protocols.md).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import REFUSED, SHORT_BODY_BYTES, Rows
from halfcore.pipeline.engine import Result
from halfcore.pipeline.explain import too_many_rows
from halfcore.pipeline.schema import Schema
from halfcore.pipeline.table import Table
from halfcore.predict.admission import Head, check_length, check_not_encoded, is_plain
from halfcore.predict.prediction import Answer, Headers, json_headers
from halfcore.predict.protocols.csv_answers import CSV_ANSWER, as_csv, prefers_csv
from halfcore.predict.protocols.forms import (
    INVALID_PARAMETER,
    OTHER_COLUMNS,
    Columns,
    from_csv,
    invalid,
    parsed,
    table_of,
)
from halfcore.predict.protocols.protocol import JSON_TYPE, Call, Reserve, headers
from halfcore.problem import FieldError, Problem, shown

CSV_TYPE = "text/csv"
_USUAL_BYTES = 256 << 10
"""Longest body that one typed parse reads: some milliseconds. A longer one is read in chunks, or,
if it needs a conversion, in slices."""


def _spaced(pattern: bytes) -> re.Pattern[bytes]:
    """A pattern in which a space stands for any white space of JSON."""
    return re.compile(pattern.replace(b" ", rb"[ \t\n\r]*+"))


_ROWS_START = _spaced(
    rb' \{ "(?:dataframe_split" : \{ (?:"(?:index|columns)" : \[[^\[\]]*+\] , )*"data'
    rb'|dataframe_records|instances|inputs)" : \[ (?=[\[{])'
)
"""Where a body's rows begin. A text with a bracket before them ends the search."""
_ROWS_END = _spaced(rb"(?<=[\]}]) \](?: \}){1,2} \Z")
_END_BYTES = 256
_INSTANCES = 2
"""Their place among the forms."""
Chunks = Callable[[bytes, int, int], Iterator[bytes | None]]
"""See `pipeline.decode.Decoder.chunks`."""
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    408: "DEADLINE_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""MLflow's name of an error by its status; all others are `BAD_REQUEST`."""


class Wanted(NamedTuple):
    """What the answer must hold."""

    probabilities: bool | None = None
    """None: if the registered pyfunc answers them."""
    csv: bool = False


class Scoring:
    """See `protocol.Wire`."""

    offers_csv = True
    """Whether the answer is CSV for a client that prefers it."""
    answers_as_logged = True
    """Whether a model that was logged with `pyfunc_predict_fn="predict_proba"` answers so."""

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Accept JSON and CSV in UTF-8."""
        kind, _, parameters = (head.content_type or "none").lower().partition(";")
        names = [part.partition("=")[0].strip() for part in parameters.split(";") if part.strip()]
        if kind.strip() not in (JSON_TYPE, CSV_TYPE):
            raise _wrong_type(
                "This predictor only supports the following content types: Types: "
                f"['{CSV_TYPE}', '{JSON_TYPE}']. Got '{(head.content_type or 'none')[:80]}'."
            )
        if any(name != "charset" for name in names):
            raise _wrong_type(f"Unrecognized content type parameters: {', '.join(names)[:80]}.")
        charset = parameters.replace(" ", "").replace('"', "")
        if charset not in ("", "charset=utf-8", "charset=utf8"):
            raise _wrong_type("The scoring server only supports UTF-8")
        check_not_encoded(head)
        check_length(head, max_body_bytes=max_body_bytes)

    def is_plain(self, get: Callable[[str], str | None], *, max_body_bytes: int) -> bool:
        """JSON of a known length, whose answer is JSON."""
        return (
            is_plain(get, max_body_bytes=max_body_bytes)
            and "csv" not in (get("accept") or "").lower()
        )

    def quick(self, model: LoadedModel, body: bytes, head: Head) -> Call | None:
        """Read JSON by one typed parse."""
        if _is_csv(head) or prefers_csv(head.accept):
            return None
        return model.schema.derived(Decoder).usual(body, max_rows=model.decoder.max_rows)

    def read(
        self, model: LoadedModel, body: bytes, head: Head, reserve: Reserve
    ) -> Generator[None, None, Call]:
        """Read one of the four JSON forms, or CSV with a header."""
        call = yield from self._read(model, body, head, reserve)
        if self.offers_csv and prefers_csv(head.accept):
            return call._replace(wanted=call.wanted._replace(csv=True))
        return call

    def _read(
        self, model: LoadedModel, body: bytes, head: Head, reserve: Reserve
    ) -> Generator[None, None, Call]:
        decoder = model.schema.derived(Decoder)
        most = model.decoder.max_rows
        if _is_csv(head):
            table = from_csv(body, most_columns=decoder.most_columns)
            return Call((yield from decoder.rows(table, max_rows=most)), Wanted())
        # A short body was already tried.
        if SHORT_BODY_BYTES < len(body) <= _USUAL_BYTES:
            call = decoder.usual(body, max_rows=most)
        elif len(body) > _USUAL_BYTES:
            call = yield from decoder.usual_in_chunks(body, model.decoder.chunks, max_rows=most)
        else:
            call = None
        if call is not None:
            return call
        document, strict = yield from parsed(body, max_rows=most, reserve=reserve)
        table = table_of(document, most_columns=decoder.most_columns, strict=strict)
        rows = yield from decoder.rows(table, max_rows=most)
        return Call(rows, _wanted(document.get("params")))

    def answer(
        self, model: LoadedModel, results: Sequence[Result], call: Call
    ) -> tuple[Headers, bytes]:
        """`{"predictions": […]}`: a label, a value, or with `predict_proba` a list of
        probabilities per row; or CSV."""
        probabilities = call.wanted.probabilities
        if probabilities is None:
            probabilities = self.answers_as_logged and model.manifest.source.answers_probabilities
        if call.wanted.csv:
            body = as_csv(model.manifest, results, probabilities=probabilities)
            return headers(CSV_ANSWER, body), body
        body = b'{"predictions":' + predictions(model, results, probabilities) + b"}"
        return json_headers(len(body)), body

    def refusal(self, problem: Problem) -> Answer:
        """MLflow's error; a wrong value is 400 there, and a wrong content type plain text."""
        if problem.status == 415:
            text = problem.detail.encode()
            more = problem.headers.items()
            return Answer(415, headers("text/plain; charset=utf-8", text, *more), text)
        status = 400 if problem.status == 422 else problem.status
        parameter = problem.code in (INVALID_PARAMETER, "wrong_length")
        code = INVALID_PARAMETER if parameter else _CODES.get(status, "BAD_REQUEST")
        document = {"error_code": code, "message": _message(problem, status)}
        body = orjson.dumps(document)
        return Answer(status, headers(JSON_TYPE, body, *problem.headers.items()), body)


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
        self._parsers = {(0, b"["): rows, (1, b"{"): records}
        self._parsers |= {(_INSTANCES, b"["): rows, (_INSTANCES, b"{"): records, (3, b"["): rows}
        """By the place among the forms and the bracket of the first row."""
        self._names = list(schema.names)
        self.most_columns = len(schema.names) + len(schema.ignored) + OTHER_COLUMNS
        """Most columns that a table may have."""

    def usual(self, body: bytes, *, max_rows: int) -> Call | None:
        """The rows of a body that is right and needs no conversion; None for any other.

        Raises:
            Problem: 400 wrong `params`.
        """
        try:
            found = self._table_in(body)
            if found is None or not 1 <= len(found.rows) <= max_rows:
                return None
            payload = self._schema.pack_rows([self._values(row) for row in found.rows])
        except REFUSED:
            return None
        return Call(Rows(payload, len(found.rows), many=True), _wanted(found.params))

    def usual_in_chunks(
        self, body: bytes, chunks: Chunks, *, max_rows: int
    ) -> Generator[None, None, Call | None]:
        """`usual` for a long body with its rows at the end; raises also 413, too many rows."""
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
        return Call(Rows(b"".join(packed), size, many=True), _wanted(around.params))

    def _table_in(self, body: bytes) -> "_Table | None":
        """What a body with exactly one of the forms, and the model's columns, holds; else None.
        Raises one of `REFUSED`."""
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
            rows = self._in_order(table.names, rows)
        packing = self._table.pack(
            rows, table.coerce, max_rows=max_rows, path=table.path, quick=table.quick
        )
        return (yield from packing)

    def _in_order(self, names: Sequence[str], rows: Iterator[Any]) -> Iterator[Sequence[Any]]:
        """The rows, sequences or records, with the model's columns in its order, and its default or
        null for what a record lacks; raises `Problem` if a column is in none of them, or named
        twice."""
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


def predictions(model: LoadedModel, results: Sequence[Result], probabilities: bool) -> bytes:
    """The JSON array of predictions: of probabilities, if the model has some, or of labels."""
    manifest = model.manifest
    if not manifest.classes:
        return orjson.dumps([value for (value,) in results], option=orjson.OPT_SERIALIZE_NUMPY)
    if probabilities and "probabilities" in manifest.outputs:
        return orjson.dumps([[float(f"{p:.7g}") for p in result[1]] for result in results])
    return b"[" + b",".join([model.encoder.labels[result[0]] for result in results]) + b"]"


def _wanted(params: Any) -> Wanted:
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


def _is_csv(head: Head) -> bool:
    return head.content_type is not None and head.content_type.lower().startswith(CSV_TYPE)


def _message(problem: Problem, status: int) -> str:
    invalid = status == 400 and problem.status == 422
    return f"Invalid input. {problem.detail}" if invalid else problem.detail


def _missing(missing: Sequence[str], extra: Sequence[str]) -> Problem:
    also = f" Note that there were extra inputs: {shown_list(extra)}." if extra else ""
    message = f"Model is missing inputs {shown_list(missing)}.{also}"
    return Problem(
        400,
        INVALID_PARAMETER,
        message,
        errors=[FieldError("missing_column", "$", message)],
    )


def shown_list(names: Sequence[str]) -> str:
    """Names as MLflow lists them, cut to a readable number."""
    listed = ", ".join(f"'{shown(name)}'" for name in names[:20])
    return f"[{listed}{', …' if len(names) > 20 else ''}]"


def _wrong_type(message: str) -> Problem:
    return Problem(415, "unsupported_media_type", message, headers={"connection": "close"})
