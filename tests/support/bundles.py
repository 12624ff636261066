"""Small bundles made by hand, so that the server's tests need neither scikit-learn nor the
exporter.

The classifier's graph is softmax(rows · W): a row's answer can be told from the row, so a mix-up
shows.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

NUMBERS: list[dict[str, Any]] = [
    {
        "name": f"x{i}",
        "kind": "number",
        "nullable": False,
        "example": float(i),
        "minimum": 0.0,
        "maximum": 9.0,
    }
    for i in range(4)
]
MIXED: list[dict[str, Any]] = [
    {
        "name": "island",
        "kind": "category",
        "nullable": False,
        "categories": ["Biscoe", "Dream", "Torgersen"],
        "example": "Biscoe",
    },
    {
        "name": "mass",
        "kind": "number",
        "nullable": True,
        "example": 4000.0,
        "minimum": 2700.0,
        "maximum": 6300.0,
    },
    {
        "name": "count",
        "kind": "integer",
        "nullable": False,
        "example": 3,
        "minimum": 0.0,
        "maximum": 9.0,
    },
    {
        "name": "sex",
        "kind": "category",
        "nullable": True,
        "categories": ["FEMALE", "MALE"],
        "example": "MALE",
    },
    {"name": "zone", "kind": "category", "nullable": False, "categories": [10, 20], "example": 10},
    {"name": "wet", "kind": "boolean", "nullable": False, "example": True},
]


def classifier(columns: int, classes: int, dtype: str) -> onnx.ModelProto:
    """A graph `rows` → `label`, `probabilities`; NaN counts as 0."""
    weights = np.array(
        [[((i + 1) * (j + 2)) % 5 - 2.0 for j in range(classes)] for i in range(columns)], dtype
    )
    zero = np.array(0, dtype)
    nodes = [
        helper.make_node("IsNaN", ["rows"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "rows"], ["clean"]),
        helper.make_node("MatMul", ["clean", "weights"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    constants = {"weights": weights, "zero": zero, "scale": np.array(0.01, dtype)}
    outputs = [
        ("label", TensorProto.INT64, ["N"]),
        ("probabilities", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["N", classes]),
    ]
    return graph(nodes, constants, columns, dtype, outputs)


def expensive(columns: int, width: int = 1024, layers: int = 48) -> onnx.ModelProto:
    """A graph like `classifier`'s with three classes, whose rows cost milliseconds each: it
    multiplies them by the same large unit matrix again and again."""
    spread = np.eye(columns, width, dtype=np.float32)
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]] + [[0, 0, 0]] * (width - 3), np.float32)
    names = ["rows", *(f"layer{i}" for i in range(layers + 1)), "scores"]
    constants = ["spread", *["unit"] * layers, "weights"]
    nodes = [
        helper.make_node("MatMul", [before, constant], [after])
        for before, constant, after in zip(names, constants, names[1:], strict=False)
    ]
    nodes += [
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    values = {"spread": spread, "unit": np.eye(width, dtype=np.float32), "weights": weights}
    outputs = [
        ("label", TensorProto.INT64, ["N"]),
        ("probabilities", TensorProto.FLOAT, ["N", 3]),
    ]
    return graph(nodes, values, columns, "float32", outputs)


def regressor(columns: int, dtype: str) -> onnx.ModelProto:
    """A graph `rows` → `value`, the sum of a row."""
    nodes = [helper.make_node("ReduceSum", ["rows", "axis"], ["value"], keepdims=0)]
    return graph(
        nodes,
        {"axis": np.array([1], np.int64)},
        columns,
        dtype,
        [("value", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["N"])],
    )


def graph(
    nodes: list[Any],
    constants: dict[str, Any],
    columns: int,
    dtype: str,
    outputs: list[Any],
    opset: int = 21,
) -> onnx.ModelProto:
    """A model with the input `rows` [N, columns]."""
    rows = helper.make_tensor_value_info(
        "rows", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["N", columns]
    )
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(
        nodes,
        "test",
        [rows],
        [helper.make_tensor_value_info(*output) for output in outputs],
        initializers,
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def write_bundle(
    root: Path,
    name: str = "numbers",
    *,
    version: str = "1",
    inputs: list[dict[str, Any]] | None = None,
    classes: list[Any] | None = None,
    task: str = "classification",
    dtype: str = "float32",
    created_at: str = "2026-01-01T00:00:00Z",
    model: onnx.ModelProto | None = None,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a bundle that the server takes, then overwrite manifest fields with `changes`; return
    its directory."""
    inputs = NUMBERS if inputs is None else inputs
    classes = (["a", "b", "c"] if classes is None else classes) if task == "classification" else []
    if model is None:
        model = (
            classifier(len(inputs), len(classes), dtype)
            if task == "classification"
            else regressor(len(inputs), dtype)
        )
    content = model.SerializeToString()
    sha256 = hashlib.sha256(content).hexdigest()
    path = root / name / f"{version}-{sha256[:8]}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.onnx").write_bytes(content)
    manifest = {
        "format": 1,
        "name": name,
        "version": version,
        "created_at": created_at,
        "task": task,
        "source": {
            "uri": f"models:/{name}@champion",
            "resolved": f"models:/{name}/{version}",
            "flavor": "skops",
            "model_class": "Test",
            "run_id": None,
            "model_id": None,
        },
        "inputs": inputs,
        "named": not inputs[0]["name"].startswith("x"),
        "dtype": dtype,
        "classes": classes,
        "outputs": ["label", "probabilities"] if task == "classification" else ["value"],
        "onnx": {
            "file": "model.onnx",
            "sha256": sha256,
            "size_bytes": len(content),
            "ir_version": 10,
            "opset": {"ai.onnx": 21},
        },
        "tools": {},
        "parity": PARITY,
        "golden": [golden(content, inputs, classes, dtype)],
    }
    (path / "manifest.json").write_text(json.dumps(manifest | (changes or {})))
    return path


PARITY: dict[str, Any] = {
    "passed": True,
    "rows": 1,
    "threshold_rows": 0,
    "batch_sizes": [1, 128],
    "label_mismatches": 0,
    "ties": 0,
    "tie_band": 1e-6,
    "max_abs_diff": 0.0,
    "tolerance": 1e-6,
    "accepted": None,
    "seconds": 0.1,
    "reference": "itself",
}


def golden(
    content: bytes, inputs: list[dict[str, Any]], classes: list[Any], dtype: str
) -> dict[str, Any]:
    """The example row with the graph's own answer."""
    codes = [
        column["categories"].index(column["example"])
        if "categories" in column
        else column["example"]
        for column in inputs
    ]
    outputs = ort.InferenceSession(content).run(None, {"rows": np.array([codes], dtype)})
    row = {column["name"]: column["example"] for column in inputs}
    if not classes:
        return {"row": row, "prediction": outputs[0][0].tolist()}
    return {
        "row": row,
        "prediction": classes[int(outputs[0][0])],
        "probabilities": outputs[1][0].tolist(),
    }
