"""Loads a bundle's graph and asks its golden rows as the server does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Cuts = Mapping[str, Callable[[str], list[str]]]
    """Name of a column of text → what cuts a text into tokens."""

_TENSORS = {"float32": "tensor(float)", "float64": "tensor(double)"}
_CODES = {"float32": "f", "float64": "d"}
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "number": (float, int),
    "integer": (int,),
    "boolean": (bool,),
}
_OUTPUT_TYPES = {
    "label": ("tensor(int64)",),
    "probabilities": tuple(_TENSORS.values()),
    "value": tuple(_TENSORS.values()),
}


def golden_problems(manifest: dict[str, Any], model: bytes, cuts: Cuts) -> Iterator[str]:
    """What the server would find wrong with the graph and its answers to the golden rows."""
    try:
        session = ort.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime's exceptions share no public base
        yield f"ONNX Runtime {ort.__version__} cannot load the graph"
        return
    wrong = list(_tensors(session, manifest))
    yield from wrong
    if wrong:
        return
    rows = []
    for number, golden in enumerate(manifest["golden"]):
        try:
            rows.append(_packed(golden["row"], manifest, cuts))
        except (KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
            yield f"golden[{number}].row cannot be packed: {error!r}"
            return
    yield from _answers(session, manifest, rows)


def _options() -> Any:
    """The server's: one thread, and no memory kept between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4
    return options


def _tensors(session: Any, manifest: dict[str, Any]) -> Iterator[str]:
    inputs = [(node.name, node.type, len(node.shape)) for node in session.get_inputs()]
    if inputs != [("rows", _TENSORS[manifest["dtype"]], 2)]:
        yield f"the graph's input is {inputs}, expected rows of {manifest['dtype']}"
        return
    width, columns = session.get_inputs()[0].shape[1], _width(manifest)
    if width not in (columns, None):
        yield f"the graph takes {width} columns, and the manifest's inputs have {columns}"
    types = {node.name: node.type for node in session.get_outputs()}
    for name in manifest["outputs"]:
        if types.get(name) not in _OUTPUT_TYPES[name]:
            yield f"the graph's output {name} is {types.get(name, 'missing')}"


def _width(manifest: dict[str, Any]) -> int:
    """Columns of the matrix: one for each input, several for a text."""
    texts = (column.get("text") for column in manifest["inputs"])
    return sum(text["slots"] if text else 1 for text in texts)


def _packed(row: dict[str, Any], manifest: dict[str, Any], cuts: Cuts) -> bytes:
    """One golden row as bytes; raises what the server's packing raises."""
    values: list[Any] = []
    for column in manifest["inputs"]:
        value = row[column["name"]]
        if column["kind"] == "text":
            values += _token_numbers(cuts[column["name"]](value), column["text"])
        else:
            values.append(_number(value, column))
    return struct.pack(f"<{len(values)}{_CODES[manifest['dtype']]}", *values)


def _token_numbers(tokens: list[str], text: dict[str, Any]) -> list[float]:
    known = {token: float(i) for i, token in enumerate(text["tokens"], 1)}
    numbers = [known.get(token, 0.0) for token in tokens]
    if len(numbers) > text["slots"]:
        raise ValueError("too many tokens")
    return numbers + [0.0] * (text["slots"] - len(numbers))


def _number(value: Any, column: dict[str, Any]) -> Any:
    if column["kind"] == "category":
        codes = {known: i for i, known in enumerate(column["categories"])}
        if value is None and column["nullable"]:
            return float(len(codes))
        if column.get("accepts_unknown") and value is not None and value not in codes:
            return float(len(codes) + 1)
        return float(codes[value])
    if value is None:
        if not column["nullable"]:
            raise KeyError(column["name"])
        return float("nan")
    if not isinstance(value, _JSON_TYPES[column["kind"]]):
        raise TypeError(column["name"])
    return value  # an integer that is too large raises when it is packed


def _answers(session: Any, manifest: dict[str, Any], rows: list[bytes]) -> Iterator[str]:
    """Compare the graph's answers with the golden ones, all rows together and each alone."""
    dtype = np.dtype("<f4" if manifest["dtype"] == "float32" else "<f8")
    width = _width(manifest)
    for batch in (range(len(rows)), *([i] for i in range(len(rows)))):
        packed = np.frombuffer(b"".join(rows[i] for i in batch), dtype).reshape(-1, width)
        try:
            outputs = session.run(manifest["outputs"], {"rows": packed})
        except Exception:  # noqa: BLE001 - onnxruntime's exceptions share no public base
            yield "the graph fails on golden rows"
            return
        if not np.isfinite(outputs[-1]).all():
            yield "the graph's answer to a golden row is not finite, which JSON cannot hold"
            return
        for place, i in enumerate(batch):
            answer = [output[place].tolist() for output in outputs]
            if problem := _difference(manifest, manifest["golden"][i], answer):
                yield f"golden[{i}]: {problem}"
                return


def _difference(manifest: dict[str, Any], golden: dict[str, Any], answer: list[Any]) -> str | None:
    tolerance = max(manifest["parity"]["tolerance"], manifest["parity"]["accepted"] or 0.0)
    if manifest["task"] == "regression":
        same = _same_values(answer[0], golden["prediction"], tolerance)
        return None if same else "the graph answers another value"
    classes, expected = manifest["classes"], golden.get("probabilities")
    if not 0 <= answer[0] < len(classes) or (len(answer) > 1 and len(answer[1]) != len(classes)):
        return "the graph answers another number of classes"
    if expected is not None and len(answer) > 1:
        if max(abs(a - b) for a, b in zip(answer[1], expected, strict=True)) > tolerance:
            return "the graph answers other probabilities"
        best = sorted(expected)[-2:]
        if best[-1] - best[0] < manifest["parity"]["tie_band"]:
            return None
    if classes[answer[0]] == golden["prediction"]:
        return None
    return "the graph answers another label"


def _same_values(answer: Any, golden: Any, tolerance: float) -> bool:
    try:
        found, expected = (np.atleast_1d(v).astype(np.float64) for v in (answer, golden))
    except ValueError:
        return False  # the golden value is text
    return found.shape == expected.shape and bool(
        (np.abs(found - expected) <= tolerance * np.maximum(1.0, np.abs(expected))).all()
    )
