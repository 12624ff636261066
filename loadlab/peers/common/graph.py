"""The graph of an exported bundle as every peer runs it: ONNX Runtime on one thread.

The environment says what to serve: `PEER_BUNDLE` (folder of the bundle), `PEER_MODEL` (its name),
`PEER_PORT` (on 127.0.0.1), `PEER_SPARE_PORTS` (for whatever else it listens on) and `PEER_SETTINGS`
(`documented`, `tuned`, or others of one peer).
"""

import os
from pathlib import Path
from typing import Any

# Nothing of a benchmark is reported to a vendor, and no request of the lab waits for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

BUNDLE = Path(os.environ["PEER_BUNDLE"])
MODEL = os.environ["PEER_MODEL"]
PORT = int(os.environ["PEER_PORT"])
SPARE_PORTS = [int(port) for port in os.environ.get("PEER_SPARE_PORTS", "").split(",") if port]
"""Free ones, for whatever else a peer listens on."""
SETTINGS = os.environ["PEER_SETTINGS"]
TUNED = SETTINGS != "documented"
OUTPUTS = ["label", "probabilities"]


class Graph:
    """A session on the bundle's graph. It is loaded where it is used: in the worker's process."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = str(BUNDLE / "model.onnx")
        self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.columns: int = self._session.get_inputs()[0].shape[1]
        self.classes: int = self._session.get_outputs()[1].shape[1]

    def run(self, rows: Any) -> list[Any]:
        """Labels (n) and probabilities (n × classes) of rows (n × columns), as arrays."""
        array = np.asarray(rows, dtype=np.float32)
        found: list[Any] = self._session.run(OUTPUTS, {"rows": array})
        return found

    def answers(self, requests: list[list[list[float]]]) -> list[dict[str, Any]]:
        """The answers to several requests, each a list of rows, from one run of the graph."""
        rows = [row for request in requests for row in request]
        labels, probabilities = (output.tolist() for output in self.run(rows))
        answers, start = [], 0
        for request in requests:
            end = start + len(request)
            answers.append({"label": labels[start:end], "probabilities": probabilities[start:end]})
            start = end
        return answers
