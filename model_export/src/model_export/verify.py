"""Compares a running server's answers with the registered model's, for every row of its data."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from model_export import stages
from model_export.errors import ExportError, sentence, shorten
from model_export.prove.compare import OTHER_TOLERANCE, difference
from model_export.prove.function import predict
from model_export.prove.neighbours import MOST_ANSWERS
from model_export.prove.prove import oracle_of
from model_export.registry.client import fetch
from model_export.study.data import data_summary
from model_export.study.rows import to_json, to_model_input
from model_export.study.study import StudiedModel, study

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.report import Reporter
    from model_export.study.arrays import Matrix

_BATCH_ROWS = 500
_SINGLE_ROWS = 100
_CONNECTIONS = 8
_TIMEOUT_S = 60.0


def verify(uri: str, url: str, data: Path | None, reporter: Reporter) -> int:
    """Post every row in batches, and some one by one; compare the answers with `mlflow.pyfunc`'s.

    Args:
        uri: of the registered model.
        url: of the server.
        data: rows to post; by default those that the model was trained on.
        reporter: gets progress and counts.

    Returns:
        the number of answers that differ: labels at all, values by more than 1e-5 relative to
            max(1, |value|). Where training rows are equally far from a row, each answer that the
            distances allow is right.

    Raises:
        ExportError: the server cannot be reached, or refuses rows that the model knows.
    """
    with stages.while_exporting(uri):
        return _verify(uri, url, data, reporter)


def _verify(uri: str, url: str, data: Path | None, reporter: Reporter) -> int:
    reporter.heading(uri)
    studied = _studied(uri, data, reporter)
    rows = studied.data.packed
    expected = _expected(studied, rows, reporter)
    records = [to_json(row, studied.schema) for row in rows]
    path = f"{urlsplit(url).path.rstrip('/')}/models/{quote(studied.fetched.origin.name)}/predict"
    with closing(_Client(url, path)) as client:
        with reporter.stage(f"ask {url}", len(rows)) as advance:
            many = _in_batches(client, records, advance)
        single = _evenly_spread(len(rows), _SINGLE_ROWS).tolist()
        one_by_one = [client.predict(records[i])["prediction"] for i in single]
    wrong, tied = _wrong(studied, rows, dict(enumerate(many)), expected)
    wrong_single, _ = _wrong(studied, rows, dict(zip(single, one_by_one, strict=True)), expected)
    reporter.note(_counts(studied, len(rows), wrong, len(single), wrong_single) + _of_ties(tied))
    return wrong + wrong_single


def verify_one_by_one(
    uri: str, url: str, data: Path | None, reporter: Reporter, most: int | None = None
) -> int:
    """Post rows one by one to a service that takes one row a request; compare the answers with
    `mlflow.pyfunc`'s.

    Args:
        uri: of the registered model.
        url: where the model answers, for instance http://127.0.0.1:8000/predict.
        data: rows to post; by default those that the model was trained on.
        reporter: gets progress and counts.
        most: post at most so many rows, evenly spread; None: all.

    Returns, raises:
        as `verify`.
    """
    with stages.while_exporting(uri):
        return _verify_one_by_one(uri, url, data, reporter, most)


def _verify_one_by_one(
    uri: str, url: str, data: Path | None, reporter: Reporter, most: int | None
) -> int:
    reporter.heading(f"{uri} at {url}")
    studied = _studied(uri, data, reporter)
    rows = studied.data.packed
    rows = rows[_evenly_spread(len(rows), min(most or len(rows), len(rows)))]
    expected = _expected(studied, rows, reporter)
    bodies = [_body(to_json(row, studied.schema), named=studied.schema.named) for row in rows]
    with reporter.stage(f"ask {url}", len(rows)) as advance:
        answers = _in_parallel(url, bodies, advance)
    wrong, tied = _wrong(studied, rows, answers, expected)
    reporter.note(f"{len(rows):,} rows one by one: {wrong} differ{_of_ties(tied)}")
    return wrong


def _studied(uri: str, data: Path | None, reporter: Reporter) -> StudiedModel:
    with reporter.stage("fetch"):
        studied = study(fetch(uri), data)
    reporter.note(data_summary(studied.data))
    return studied


def _expected(studied: StudiedModel, rows: Matrix, reporter: Reporter) -> list[Any]:
    """The registered model's label or value for each row."""
    with reporter.stage("ask the registered model", len(rows)):
        answers: list[Any] = predict(studied.fetched, to_model_input(rows, studied.schema)).tolist()
    return answers


def _evenly_spread(count: int, most: int) -> np.ndarray[Any, Any]:
    """At most so many of the indices below `count`."""
    return np.unique(np.linspace(0, count - 1, most, dtype=int))


def _in_parallel(url: str, bodies: list[dict[str, Any]], advance: Any) -> dict[int, Any]:
    """The answer to each body, by its position."""
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        shares = threads.map(
            lambda share: _answers(url, share, advance),
            [bodies[n::_CONNECTIONS] for n in range(_CONNECTIONS)],
        )
        return {
            n + _CONNECTIONS * place: answer
            for n, share in enumerate(shares)
            for place, answer in enumerate(share)
        }


def _body(record: dict[str, Any], *, named: bool) -> dict[str, Any]:
    return record if named else {"features": list(record.values())}


def _answers(url: str, bodies: list[dict[str, Any]], advance: Any) -> list[Any]:
    path = urlsplit(url).path
    answers = []
    with closing(_Client(url.removesuffix(path), path)) as client:
        for body in bodies:
            answers.append(client.predict(body)["prediction"])
            advance(1)
    return answers


def _in_batches(client: _Client, records: list[dict[str, Any]], advance: Any) -> list[Any]:
    answers: list[Any] = []
    for start in range(0, len(records), _BATCH_ROWS):
        batch = records[start : start + _BATCH_ROWS]
        answers += client.predict(batch)["prediction"]
        advance(len(batch))
    return answers


def _wrong(
    studied: StudiedModel, rows: Matrix, served: dict[int, Any], expected: list[Any]
) -> tuple[int, int]:
    """How many of the served answers, by the row's place, differ from the expected ones; and how
    many differ because training rows are equally far from the row, and are right as well."""
    places = np.asarray(
        [i for i, answer in served.items() if _differs(studied, answer, expected[i])],
        dtype=np.int64,
    )
    if not len(places):
        return 0, 0
    owners, answers = oracle_of(studied).alternatives(rows[places], MOST_ANSWERS)
    right: set[int] = set()
    for number, owner in enumerate(owners.tolist()):
        assert answers is not None  # noqa: S101  it has the answers of the owners
        one: Any = answers.scores[number].tolist()
        if studied.answers.task == "classification":
            one = studied.answers.classes[int(answers.label[number])]
        if not _differs(studied, served[int(places[owner])], one):
            right.add(owner)
    return len(places) - len(right), len(right)


def _of_ties(count: int) -> str:
    both = "; {} more differ where training rows are equally far, and are right as well"
    return both.format(f"{count:,}") if count else ""


def _differs(studied: StudiedModel, served: Any, expected: Any) -> bool:
    if studied.answers.task == "classification":
        return bool(served != expected)
    a, b = (np.asarray(v, dtype=np.float64).reshape(1, -1) for v in (served, expected))
    return bool(difference(a, b, relative=True)[0] > OTHER_TOLERANCE)


def _counts(studied: StudiedModel, rows: int, wrong: int, single: int, wrong_single: int) -> str:
    unknown = studied.data.unknown_rows
    left_out = (
        f"; {unknown} rows left out: they hold a value that the model does not take"
        if unknown
        else ""
    )
    return (
        f"{rows:,} rows in batches: {wrong} differ; {single} rows one by one: {wrong_single} "
        f"differ{left_out}"
    )


class _Client:
    """One connection to one model's route."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ExportError(f"--url {url!r} is no http:// or https:// address: give one")
        connection = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._url = url
        self._connection = connection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
        self._path = path

    def predict(self, body: Any) -> dict[str, Any]:
        """Post one record or a list of them; returns the decoded answer."""
        status, content = self._post(json.dumps(body))
        if status != 200:
            raise ExportError(
                f"{self._url}{self._path} answers {status}: "
                f"{content[:300].decode(errors='replace')}; serve the bundle of this model there"
            )
        try:
            answer: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise ExportError(
                f"{self._url}{self._path} answers no JSON: "
                f"{shorten(content[:200].decode(errors='replace'))}; give --url of the server"
            ) from error
        return answer

    def _post(self, body: str) -> tuple[int, bytes]:
        try:
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ExportError(
                f"{self._url} does not answer: {sentence(error)}; start the server, or give --url"
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
