"""Variant `onnx`: FastAPI with ONNX Runtime called in the handler, the best that a FastAPI service does without an architecture.

The same graph as halfcore serves, one thread, no thread switch, no queue, no log line per request, uvicorn with httptools and uvloop.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI

from rival.bodies import BODIES, columns

UVICORN = {"http": "httptools", "loop": "uvloop", "access_log": False}


def create(model: str, bundle: Path) -> FastAPI:
    """The app for one exported model."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    session = _session(bundle / "model.onnx")
    inputs, dtype = manifest["inputs"], manifest["dtype"]
    codes = [{value: index for index, value in enumerate(column.get("categories", ()))} for column in inputs]
    names = [column["name"] for column in inputs]
    labels = manifest["classes"]
    keys = [str(label) for label in labels]
    app = FastAPI()
    body_type = BODIES[model]

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(body: body_type) -> dict[str, Any]:  # type: ignore[valid-type]
        record = columns(body)
        row = [code[record[name]] if code else record[name] for name, code in zip(names, codes, strict=True)]
        label, probabilities = session.run(None, {"rows": np.array([row], dtype=dtype)})
        return {"prediction": labels[int(label[0])], "probabilities": dict(zip(keys, probabilities[0].tolist(), strict=True))}

    return app


def _session(file: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
