"""Rows of a model in the forms of several protocols, and how each protocol's right answer begins.

The graph takes numbers, and categories as their index. Peers get these numbers, so that none of
them has to look up a category; halfcore gets what its users send, columns by name and categories as
texts.
"""

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from loadlab.bundles import read_manifest
from loadlab.experiments.bench.subjects import Subject
from loadlab.generator import exchange, packing
from loadlab.generator.exchange import compact
from loadlab.generator.http import same
from loadlab.target.programs import Case

LENGTH_HEADER = "inference-header-content-length"
_TENSORS = {"float32": ("FP32", "f"), "float64": ("FP64", "d")}
"""By the model's type: the protocol's name, and how `struct` packs it."""
BULK_ROWS = 1000
_SEED = 1


def asked(subject: Subject, case: Case) -> dict[str, Any]:
    """What a plan of the client says of the request: path, body, and how a right answer begins.

    The forms of other protocols are for classifiers without column names: their rows are vectors.
    """
    make = {"own": _own, "instances": _instances, "tensor": _tensor, "binary": _binary}
    found = make[subject.form](case)
    if subject.prefix:
        found["prefix"] = subject.prefix
    return {"path": subject.path.format(model=case.model)} | found


def _own(case: Case) -> dict[str, Any]:
    return {"body": case.body, "prefix": case.prefix}


def _instances(case: Case) -> dict[str, Any]:
    row, label = _row(case)
    return {
        "body": compact({"instances": [row]}),
        "prefix": compact({"predictions": [label]}),
    }


def _tensor(case: Case) -> dict[str, Any]:
    """As Triton's client sends it if it is asked for JSON."""
    row, label = _row(case)
    datatype, _ = _number(case)
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": datatype, "data": row}
    output = {"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]}
    return {
        "body": compact({"inputs": [tensor]}),
        "prefix": f"{_head(case)}{compact(output)}",
    }


def _binary(case: Case) -> dict[str, Any]:
    """As Triton's client sends it by default."""
    row, label = _row(case)
    datatype, code = _number(case)
    values = struct.pack(f"<{len(row)}{code}", *row)
    size = {"binary_data_size": len(values)}
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": datatype, "parameters": size}
    return {
        "body": compact({"inputs": [tensor], "parameters": {"binary_data_output": True}}),
        "binary": b64encode(values).decode(),
        "length_header": LENGTH_HEADER,
        "prefix": _binary_answer(case, label, datatype, struct.calcsize(f"<{code}")),
    }


def _binary_answer(case: Case, label: str, datatype: str, number_bytes: int) -> str:
    """The answer's JSON, and the label behind it with its length."""
    classes = len(read_manifest(case.bundle)["classes"])
    text = label.encode()
    sizes = {"label": 4 + len(text), "probabilities": number_bytes * classes}
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [1]},
        {"name": "probabilities", "datatype": datatype, "shape": [1, classes]},
    ]
    described = [
        compact(output | {"parameters": {"binary_data_size": sizes[str(output["name"])]}})
        for output in outputs
    ]
    length = struct.pack("<I", len(text)).decode("latin-1")
    return f"{_head(case)}{','.join(described)}]}}{length}{label}"


def _head(case: Case) -> str:
    found = read_manifest(case.bundle)
    named = {"model_name": found["name"], "model_version": found["version"]}
    return f'{compact(named)[:-1]},"outputs":['


def _row(case: Case) -> tuple[list[Any], str]:
    """The case's row and the registered model's label."""
    row: list[Any] = json.loads(case.body)["features"]
    label: str = read_manifest(case.bundle)["golden"][0]["prediction"]
    return row, label


def _number(case: Case) -> tuple[str, str]:
    return _TENSORS[read_manifest(case.bundle)["dtype"]]


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
    manifest = read_manifest(case.bundle)
    bodies = [case.body, *(body for body, _ in case.others)]
    numbers = list(packing.numbers(manifest, bodies))
    answers = [(each["prediction"], each["probabilities"]) for each in manifest["golden"]]
    return [
        Rows([body], [row], [manifest["classes"].index(label)], [probabilities])
        for body, row, (label, probabilities) in zip(bodies, numbers, answers, strict=True)
    ]


def bulk(case: Case) -> Rows:
    """`BULK_ROWS` rows, golden, real and made ones, with the answers of the bundle's graph."""
    manifest = read_manifest(case.bundle)
    found = exchange.bodies(case.model, manifest, _SEED)
    bodies = list(islice(cycle(found), BULK_ROWS))
    answers = exchange.expected(case.bundle / "model.onnx", manifest, bodies)
    return Rows(
        bodies,
        list(packing.numbers(manifest, bodies)),
        [manifest["classes"].index(each["prediction"]) for each in answers],
        [list(each["probabilities"].values()) for each in answers],
    )


def body(form: str, case: Case, rows: Rows) -> str:
    """One request for all of the rows."""
    if form != "own":
        return compact(_REQUESTS[form](rows.numbers))
    if len(rows.bodies) == 1:
        return rows.bodies[0]
    if read_manifest(case.bundle)["named"]:
        return f"[{','.join(rows.bodies)}]"
    return compact({"features": [json.loads(each)["features"] for each in rows.bodies]})


def check(form: str, case: Case, rows: Rows, answer: bytes) -> str:
    """Compare an answer with the right one: labels exactly, probabilities within the lab's
    tolerance; returns how all right answers to these rows begin, the labels included.

    Raises:
        WrongAnswer: it is another one, or no answer of this form.
    """
    manifest = read_manifest(case.bundle)
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
