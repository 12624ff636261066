"""One row in the forms of several protocols, and how each protocol's right answer begins."""

import json
import struct
from base64 import b64encode
from typing import Any

from loadlab.experiments.bench.subjects import Subject
from loadlab.target import programs
from loadlab.target.programs import Case

LENGTH_HEADER = "inference-header-content-length"
_TENSORS = {"float32": ("FP32", "f"), "float64": ("FP64", "d")}
"""By the model's type: the protocol's name, and how `struct` packs it."""


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
        "body": _compact({"instances": [row]}),
        "prefix": _compact({"predictions": [label]}),
    }


def _tensor(case: Case) -> dict[str, Any]:
    """As Triton's client sends it if it is asked for JSON."""
    row, label = _row(case)
    datatype, _ = _number(case)
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": datatype, "data": row}
    output = {"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]}
    return {
        "body": _compact({"inputs": [tensor]}),
        "prefix": f"{_head(case)}{_compact(output)}",
    }


def _binary(case: Case) -> dict[str, Any]:
    """As Triton's client sends it by default."""
    row, label = _row(case)
    datatype, code = _number(case)
    values = struct.pack(f"<{len(row)}{code}", *row)
    size = {"binary_data_size": len(values)}
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": datatype, "parameters": size}
    return {
        "body": _compact({"inputs": [tensor], "parameters": {"binary_data_output": True}}),
        "binary": b64encode(values).decode(),
        "length_header": LENGTH_HEADER,
        "prefix": _binary_answer(case, label, datatype, struct.calcsize(f"<{code}")),
    }


def _binary_answer(case: Case, label: str, datatype: str, number_bytes: int) -> str:
    """The answer's JSON, and the label behind it with its length."""
    classes = len(programs.manifest(case.bundle)["classes"])
    text = label.encode()
    sizes = {"label": 4 + len(text), "probabilities": number_bytes * classes}
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [1]},
        {"name": "probabilities", "datatype": datatype, "shape": [1, classes]},
    ]
    described = [
        _compact(output | {"parameters": {"binary_data_size": sizes[str(output["name"])]}})
        for output in outputs
    ]
    length = struct.pack("<I", len(text)).decode("latin-1")
    return f"{_head(case)}{','.join(described)}]}}{length}{label}"


def _head(case: Case) -> str:
    found = programs.manifest(case.bundle)
    named = {"model_name": found["name"], "model_version": found["version"]}
    return f'{_compact(named)[:-1]},"outputs":['


def _row(case: Case) -> tuple[list[Any], str]:
    """The case's row and the registered model's label."""
    row: list[Any] = json.loads(case.body)["features"]
    label: str = programs.manifest(case.bundle)["golden"][0]["prediction"]
    return row, label


def _number(case: Case) -> tuple[str, str]:
    return _TENSORS[programs.manifest(case.bundle)["dtype"]]


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
