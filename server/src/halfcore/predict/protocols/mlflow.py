"""MLflow's scoring protocol: `POST /invocations`, as `mlflow models serve` and SageMaker have it.

A usual JSON body is read by one typed parse, as for `POST /predict`. Any other is parsed without
types, and its values are converted as MLflow converts them (docs/protocols.md).
"""

from collections.abc import Callable, Generator, Sequence

import orjson

from halfcore.models.served import LoadedModel
from halfcore.pipeline.decode import SHORT_BODY_BYTES
from halfcore.pipeline.engine import Result
from halfcore.predict.admission import Head, check_length, check_not_encoded, is_plain
from halfcore.predict.prediction import Answer, Headers, json_headers
from halfcore.predict.protocols.csv_answers import CSV_ANSWER, as_csv, prefers_csv
from halfcore.predict.protocols.forms import INVALID_PARAMETER, from_csv, parsed, table_of
from halfcore.predict.protocols.mlflow_rows import USUAL_BYTES, Decoder, Wanted, wanted_of
from halfcore.predict.protocols.protocol import JSON_TYPE, Call, Reserve, headers
from halfcore.problem import Problem

CSV_TYPE = "text/csv"
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
        if SHORT_BODY_BYTES < len(body) <= USUAL_BYTES:
            call = decoder.usual(body, max_rows=most)
        elif len(body) > USUAL_BYTES:
            call = yield from decoder.usual_in_chunks(body, model.decoder.chunks, max_rows=most)
        else:
            call = None
        if call is not None:
            return call
        document, strict = yield from parsed(body, max_rows=most, reserve=reserve)
        table = table_of(
            document,
            most_columns=decoder.most_columns,
            strict=strict,
            optional=decoder.optional,
        )
        rows = yield from decoder.rows(table, max_rows=most)
        return Call(rows, wanted_of(document.get("params")))

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


def predictions(model: LoadedModel, results: Sequence[Result], probabilities: bool) -> bytes:
    """The JSON array of predictions: of probabilities, if the model has some, or of labels."""
    manifest = model.manifest
    if not manifest.classes:
        return orjson.dumps([value for (value,) in results], option=orjson.OPT_SERIALIZE_NUMPY)
    if probabilities and "probabilities" in manifest.outputs:
        return orjson.dumps([[float(f"{p:.7g}") for p in result[1]] for result in results])
    return b"[" + b",".join([model.encoder.labels[result[0]] for result in results]) + b"]"


def _is_csv(head: Head) -> bool:
    return head.content_type is not None and head.content_type.lower().startswith(CSV_TYPE)


def _message(problem: Problem, status: int) -> str:
    invalid = status == 400 and problem.status == 422
    return f"Invalid input. {problem.detail}" if invalid else problem.detail


def _wrong_type(message: str) -> Problem:
    return Problem(415, "unsupported_media_type", message, headers={"connection": "close"})
