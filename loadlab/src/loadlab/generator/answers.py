"""The right answers, computed in the lab's own process from the bundle's graph.

The exporter proved that this graph answers as the registered model does. So a server cannot give
the lab its own answers to compare with: one without a model, or one that knows only the golden
rows, is found before any load.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

_TIMED = 200
"""Rows of each kind whose inference is timed: their mean is known within some per cent."""


def expected(graph: Path, manifest: dict[str, Any], bodies: Sequence[str]) -> list[dict[str, Any]]:
    """The graph's answers to request bodies, one row each, in the form of the server's.

    Args:
        graph: the bundle's `model.onnx`.
        manifest: the bundle's; docs/bundle-format.md says how a row is packed.
        bodies: JSON, `{"features": […]}` or a record.
    """
    infer, found = _session(graph, manifest), []
    for row in _rows(manifest, bodies):
        first = (output[0].tolist() for output in infer(row))
        found.append(_answer(manifest, dict(zip(manifest["outputs"], first, strict=True))))
    return found


def inference_us(
    graph: Path, manifest: dict[str, Any], groups: Sequence[Sequence[str]]
) -> list[float]:
    """CPU time of one inference of one row, microseconds: the mean over each group of bodies. The
    groups take turns row by row, so that a machine that is slower for a while is so for all, and a
    first round fills the caches."""
    infer = _session(graph, manifest)
    by_row = list(zip(*(_rows(manifest, bodies[:_TIMED]) for bodies in groups), strict=False))
    for _ in range(2):
        spent_s = [0.0 for _ in groups]
        for rows in by_row:
            for group, row in enumerate(rows):
                began = time.thread_time()
                infer(row)
                spent_s[group] += time.thread_time() - began
    return [spent / len(by_row) * 1e6 for spent in spent_s]


def _session(graph: Path, manifest: dict[str, Any]) -> Callable[[Any], list[Any]]:
    """Runs the graph on rows, on one thread."""
    # Late: 60 MB that the processes of the generators do not need.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda rows: list(session.run(manifest["outputs"], {"rows": rows}))


def _rows(manifest: dict[str, Any], bodies: Sequence[str]) -> Iterator[Any]:
    """Each body as an array of one row."""
    import numpy as np

    codes = [_codes(column) for column in manifest["inputs"]]
    for body in bodies:
        yield np.array([_packed(manifest, codes, json.loads(body))], dtype=manifest["dtype"])


def _packed(
    manifest: dict[str, Any], codes: Sequence[dict[Any, int]], body: dict[str, Any]
) -> list[float]:
    """A row as the graph takes it: numbers as they are, null as NaN, categories as their index."""
    names = [column["name"] for column in manifest["inputs"]]
    values = body["features"] if not manifest["named"] else [body[name] for name in names]
    return [
        float(code[value]) if code else float("nan") if value is None else float(value)
        for value, code in zip(values, codes, strict=True)
    ]


def _codes(column: dict[str, Any]) -> dict[Any, int]:
    """Category → index; a null's index follows the last category's. Empty for numbers."""
    if "categories" not in column:
        return {}
    return {value: index for index, value in enumerate([*column["categories"], None])}


def _answer(manifest: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """One row's outputs as the server writes them."""
    if "value" in outputs:
        return {"prediction": outputs["value"]}
    classes = manifest["classes"]
    answer = {"prediction": classes[outputs["label"]]}
    if "probabilities" in outputs:
        keys = map(str, classes)
        answer["probabilities"] = dict(zip(keys, outputs["probabilities"], strict=True))
    return answer
