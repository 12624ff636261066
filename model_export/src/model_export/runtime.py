"""A graph in the runtime that will serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from model_export.errors import ExportError, sentence
from model_export.oracle import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_export.block import Dtype
    from model_export.rows import Matrix


class Runtime:
    """A graph in ONNX Runtime, set as the server sets it: one thread, no spinning."""

    def __init__(self, model: bytes, dtype: Dtype) -> None:
        """Load the graph.

        Raises:
            ExportError: ONNX Runtime has no kernel for it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ExportError(f"ONNX Runtime cannot load the {dtype} graph: {sentence(error, 300)}") from error
        self._dtype = dtype
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, packed: Matrix) -> list[np.ndarray[Any, Any]]:
        """Answer packed rows: the doubles of the client's JSON, rounded to the graph's dtype as the server rounds them."""
        with np.errstate(over="ignore"):
            return list(self._session.run(None, {"rows": packed.astype(self._dtype)}))

    def run_all(self, packed: Matrix, advance: Callable[[int], None]) -> list[np.ndarray[Any, Any]]:
        """Answer many rows, in chunks."""
        parts = []
        for start in range(0, len(packed), CHUNK):
            parts.append(self.run(packed[start : start + CHUNK]))
            advance(len(packed[start : start + CHUNK]))
        return [np.concatenate([part[i] for part in parts]) for i in range(len(self.outputs))]
