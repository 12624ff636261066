"""The right answers, computed in the lab's own process from the bundle's graph.

The exporter proved that this graph answers as the registered model does. So a server cannot give
the lab its own answers to compare with: one without a model, or one that knows only the golden
rows, is found before any load.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def expected(graph: Path, manifest: dict[str, Any], bodies: Sequence[str]) -> list[dict[str, Any]]:
    """The graph's answers to request bodies, one row each, in the form of the server's.

    Args:
        graph: the bundle's `model.onnx`.
        manifest: the bundle's; docs/bundle-format.md says how a row is packed.
        bodies: JSON, `{"features": […]}` or a record.
    """
    # Late: 60 MB that the processes of the generators do not need.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    codes = [_codes(column) for column in manifest["inputs"]]
    found = []
    for body in bodies:
        row = np.array([_packed(manifest, codes, json.loads(body))], dtype=manifest["dtype"])
        outputs = session.run(manifest["outputs"], {"rows": row})
        first = (output[0].tolist() for output in outputs)
        found.append(_answer(manifest, dict(zip(manifest["outputs"], first, strict=True))))
    return found


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
