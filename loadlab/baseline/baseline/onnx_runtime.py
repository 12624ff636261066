"""ONNX Runtime called in the handler: the same graph as halfcore serves, one thread, no thread
switch, no queue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def predictor(bundle: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """From a record to the label and the probabilities, by an exported model."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    session = _session(bundle / "model.onnx")
    dtype, labels = manifest["dtype"], manifest["classes"]
    keys = [str(label) for label in labels]
    codes = [_codes(column) for column in manifest["inputs"]]
    names = [column["name"] for column in manifest["inputs"]]

    def predict(record: dict[str, Any]) -> dict[str, Any]:
        row = [
            code[record[name]] if code else record[name]
            for name, code in zip(names, codes, strict=True)
        ]
        label, probabilities = session.run(None, {"rows": np.array([row], dtype=dtype)})
        return {
            "prediction": labels[int(label[0])],
            "probabilities": dict(zip(keys, probabilities[0].tolist(), strict=True)),
        }

    return predict


def _codes(column: dict[str, Any]) -> dict[Any, int]:
    """Category → index; a null's index follows the last category's."""
    return (
        {value: index for index, value in enumerate([*column["categories"], None])}
        if "categories" in column
        else {}
    )


def _session(file: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
