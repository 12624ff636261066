"""A model's rows as each peer's own protocol asks for them, and what its answers say.

The graph takes numbers, and categories as their index. Peers get these numbers, so that none of
them has to look up a category; halfcore gets what its users send, columns by name and categories as
texts.
"""

import json
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from loadlab.generator import exchange
from loadlab.generator.http import same
from loadlab.target import programs
from loadlab.target.programs import Case

BULK_ROWS = 1000
_SEED = 1


class Rows(NamedTuple):
    """Rows of a model, in both forms, and the right answers."""

    bodies: list[str]
    """Of halfcore, one row each."""
    numbers: list[list[float]]
    """As the graph takes them."""
    labels: list[int]
    """Index of each row's class."""
    probabilities: list[list[float]]


class WrongAnswer(RuntimeError):
    """A peer does not answer as the bundle does; the message shows what it said."""


def golden(case: Case) -> list[Rows]:
    """The bundle's golden rows, one by one, with the registered model's own answers."""
    manifest = programs.manifest(case.bundle)
    bodies = [case.body, *(body for body, _ in case.others)]
    numbers = list(exchange.numbers(manifest, bodies))
    answers = [(each["prediction"], each["probabilities"]) for each in manifest["golden"]]
    return [
        Rows([body], [row], [manifest["classes"].index(label)], [probabilities])
        for body, row, (label, probabilities) in zip(bodies, numbers, answers, strict=True)
    ]


def bulk(case: Case) -> Rows:
    """`BULK_ROWS` rows, golden, real and made ones, with the answers of the bundle's graph."""
    manifest = programs.manifest(case.bundle)
    found = exchange.bodies(case.model, manifest, _SEED)
    bodies = list(islice(cycle(found), BULK_ROWS))
    answers = exchange.expected(case.bundle / "model.onnx", manifest, bodies)
    return Rows(
        bodies,
        list(exchange.numbers(manifest, bodies)),
        [manifest["classes"].index(each["prediction"]) for each in answers],
        [list(each["probabilities"].values()) for each in answers],
    )


def body(form: str, case: Case, rows: Rows) -> str:
    """One request for all of the rows."""
    if form != "own":
        return _compact(_REQUESTS[form](rows.numbers))
    if len(rows.bodies) == 1:
        return rows.bodies[0]
    if programs.manifest(case.bundle)["named"]:
        return f"[{','.join(rows.bodies)}]"
    return _compact({"features": [json.loads(each)["features"] for each in rows.bodies]})


def check(form: str, case: Case, rows: Rows, answer: bytes) -> str:
    """Compare an answer with the right one: labels exactly, probabilities within the lab's
    tolerance; returns how all right answers to these rows begin, the labels included.

    Raises:
        WrongAnswer: it is another one, or no answer of this form.
    """
    manifest = programs.manifest(case.bundle)
    try:
        text = answer.decode()
        labels, probabilities = _ANSWERS[form](json.loads(text), manifest["classes"])
    except (ValueError, LookupError, TypeError) as error:
        said = answer[:200].decode(errors="replace")
        raise WrongAnswer(f"no answer of the form {form}: {said} ({error!r})") from None
    if labels != rows.labels or not same(probabilities, rows.probabilities):
        raise WrongAnswer(f"answers {text[:300]}, expected labels {rows.labels[:5]}…")
    return text.partition("probabilities")[0]


def _v2(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    tensor = {"name": "rows", "shape": shape, "datatype": "FP32", "data": flat}
    # With an id of the client's the server makes none, and its answers are alike.
    return {"id": "1", "inputs": [tensor]}


def _own_answer(answer: Any, classes: list[Any]) -> tuple[list[int], list[list[float]]]:
    labels, scores = answer["prediction"], answer["probabilities"]
    if isinstance(scores, dict):
        labels, scores = [labels], [scores]
    names = [str(each) for each in classes]
    return [classes.index(each) for each in labels], [[row[n] for n in names] for row in scores]


def _v2_answer(answer: Any, classes: list[Any]) -> tuple[list[int], list[list[float]]]:
    found = {each["name"]: each["data"] for each in answer["outputs"]}
    scores, width = found["probabilities"], len(classes)
    return found["label"], [scores[at : at + width] for at in range(0, len(scores), width)]


_REQUESTS: dict[str, Callable[[list[list[float]]], dict[str, Any]]] = {
    "rows": lambda rows: {"rows": rows},
    "listed": lambda rows: {"rows": rows},
    "inputs": lambda rows: {"inputs": rows},
    "v2": _v2,
}
_ANSWERS: dict[str, Callable[[Any, list[Any]], tuple[list[int], list[list[float]]]]] = {
    "own": _own_answer,
    "rows": lambda answer, _: (answer["label"], answer["probabilities"]),
    "listed": lambda answer, _: (
        [each["label"] for each in answer],
        [each["probabilities"] for each in answer],
    ),
    "inputs": lambda answer, _: (
        answer["predictions"]["label"],
        answer["predictions"]["probabilities"],
    ),
    "v2": _v2_answer,
}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
