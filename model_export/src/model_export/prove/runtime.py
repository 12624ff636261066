"""Runs a graph in ONNX Runtime as the server does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from model_export.errors import ExportError, plain
from model_export.study.rows import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_export.convert.block import Dtype
    from model_export.study.arrays import Matrix
    from model_export.study.schema import Schema


_TEXT_ROWS = 500
"""Most texts that run at once: each has a number for every term of the vocabulary."""


class Runtime:
    """A graph in ONNX Runtime, with the server's options: one thread, no spinning."""

    def __init__(self, model: bytes, dtype: Dtype, schema: Schema | None = None) -> None:
        """Load the graph. The schema is needed only if it has a column of text.

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
            raise ExportError(
                f"ONNX Runtime cannot load the {dtype} graph{plain(error, 300)}: use other "
                "settings of the last step, or another estimator"
            ) from error
        self._dtype = dtype
        self._schema = schema
        is_wide = schema is not None and schema.width > len(schema.columns)
        self._most = _TEXT_ROWS if is_wide else sys.maxsize
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, packed: Matrix) -> list[np.ndarray[Any, Any]]:
        """Answer packed rows: the doubles of the client's JSON, rounded to the graph's dtype as the
        server rounds them.

        Raises:
            ExportError: the graph fails, or does not answer one label, one set of probabilities or
                one value per row.
        """
        if len(packed) > self._most:
            parts = [
                self.run(packed[start : start + self._most])
                for start in range(0, len(packed), self._most)
            ]
            return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
        if self._schema is not None:
            packed = expanded(packed, self._schema)
        with np.errstate(over="ignore"):
            rows = packed.astype(self._dtype)
        try:
            outputs = list(self._session.run(None, {"rows": rows}))
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ExportError(
                f"the {self._dtype} graph cannot answer{_short(error)}: use other settings of the "
                "last step, or another estimator"
            ) from error
        for name, output in zip(self.outputs, outputs, strict=True):
            if (
                output.shape[:1] != (len(rows),)
                or output.ndim > 2
                or (name == "label" and output.ndim != 1)
            ):
                raise ExportError(
                    f"the {self._dtype} graph answers {name} of shape {list(output.shape)} for "
                    f"{len(rows)} rows, expected one answer per row: use another estimator"
                )
        return outputs

    def run_all(
        self, chunks: Iterable[Matrix], advance: Callable[[int], None]
    ) -> list[np.ndarray[Any, Any]]:
        """Answer many rows, in chunks."""
        parts = []
        for rows in chunks:
            parts.append(self.run(rows))
            advance(len(rows))
        return [np.concatenate([part[i] for part in parts]) for i in range(len(self.outputs))]


def _short(error: BaseException) -> str:
    """The runtime's message, without the paths of its source files."""
    said = str(error).splitlines()[0].rpartition("Status Message: ")[2]
    where, _, rest = said.rpartition(") ")
    return plain(RuntimeError(rest if where.startswith("/") else said), 200)
