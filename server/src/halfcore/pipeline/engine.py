"""ONNX Runtime behind one call: a batch's bytes in, one result per row out.

One thread, no spinning, no telemetry: the runtime sizes its pool from the host, not from the
container's quota, and spinning threads burn a quota that the request needs.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Read at import. Since 1.29 the runtime sends telemetry on Linux unless this disables it; NumPy's
# linear algebra, which nothing here uses, would start a thread per core.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from halfcore.pipeline.schema import NUMPY_TYPES

ORT_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)"}
_OUTPUT_TYPES = {
    "label": {"tensor(int64)"},
    "probabilities": set(ORT_TYPES.values()),
    "value": set(ORT_TYPES.values()),
}

Result = tuple[Any, ...]
"""One row's outputs in the manifest's order: (label index, probabilities) or (value,)."""


class EngineError(Exception):
    """The runtime cannot load the model, its graph differs from the manifest, or its answer is not
    finite."""


class NotFiniteError(EngineError):
    """The model answered NaN or infinity, which JSON cannot express: the request's values are
    legal, but too large for this model."""


class Engine:
    """A loaded model. `infer` may be called from any one thread at a time.

    Args:
        model_file: the ONNX file.
        dtype: type of the input matrix, `float32` or `float64`.
        columns: F, the number of input columns.
        outputs: the graph's output names in order.

    Raises:
        EngineError: the runtime cannot read the file, or inputs and outputs are not as given.
    """

    def __init__(
        self, model_file: Path, *, dtype: str, columns: int, outputs: Sequence[str]
    ) -> None:
        try:
            self._session = ort.InferenceSession(
                str(model_file), _options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # The runtime has one exception class per status code, with no common base except
            # Exception; its messages quote paths.
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot load it: {type(error).__name__}"
            ) from error
        _check_graph(self._session, dtype=dtype, columns=columns, outputs=outputs)
        self._outputs = list(outputs)
        types = {node.name: node.type for node in self._session.get_outputs()}
        numbers = {name: kind for kind, name in ORT_TYPES.items()}
        self.number_dtype = numbers.get(types[self._outputs[-1]], dtype)
        """Type of the probabilities or values."""
        self._columns = columns
        self._dtype = np.dtype(NUMPY_TYPES[dtype])

    def infer(self, payload: bytes, rows: int) -> Sequence[Result]:
        """Run the model.

        Args:
            payload: little-endian matrix [rows, F] in row order.
            rows: at least 1.

        Returns:
            One tuple of Python values per row.

        Raises:
            NotFiniteError: an answer is not finite.
            Exception: whatever the runtime raises.
        """
        matrix = np.ndarray((rows, self._columns), self._dtype, payload)
        outputs = self._session.run(self._outputs, {"rows": matrix})
        # Regression values stay NumPy scalars: orjson then writes the shortest text of a float32.
        lists = outputs if self._outputs[0] == "value" else [output.tolist() for output in outputs]
        if not _finite(outputs[-1], lists[-1]):
            raise NotFiniteError("the model's answer is not finite")
        return list(zip(*lists, strict=True))

    def arrays(self, matrix: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the model; several threads may call it at once.

        Args:
            matrix: [rows, F] of the model's type, in row order, at least one row.

        Returns:
            The outputs in the manifest's order, as the runtime made them.

        Raises:
            Exception: whatever the runtime raises.
        """
        outputs: list[NDArray[Any]] = self._session.run(self._outputs, {"rows": matrix})
        return outputs


def _finite(values: Any, rows: Any) -> bool:
    """Whether an output, given as array and as list, holds neither NaN nor infinity: a sum with one
    of them is not finite either.

    Few rows are summed as Python floats, which costs less than one call into NumPy; many rows by
    one reduction, which costs a third of `isfinite().all()`. Both add in float64, where many large
    float32 do not overflow.
    """
    if values.dtype.kind != "f":
        return True
    if values.ndim == 2 and len(rows) <= 8 and isinstance(rows, list):
        return math.isfinite(sum(map(sum, rows)))
    return math.isfinite(np.add.reduce(values, axis=None, dtype=np.float64))


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Batch sizes vary from call to call: an arena would keep the largest of each shape without end,
    # and a memory pattern would never match.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Errors are raised; the runtime's own log lines quote the inside of the model.
    options.log_severity_level = 4
    return options


def _check_graph(
    session: ort.InferenceSession, *, dtype: str, columns: int, outputs: Sequence[str]
) -> None:
    inputs = session.get_inputs()
    found = [(node.name, node.type, len(node.shape)) for node in inputs]
    if found != [("rows", ORT_TYPES[dtype], 2)] or inputs[0].shape[1] not in (columns, None):
        raise EngineError(
            f"the graph's input is {found} of width {inputs[0].shape[-1]}, expected rows, "
            f"{ORT_TYPES[dtype]}, [N, {columns}]"
        )
    types = {node.name: node.type for node in session.get_outputs()}
    for name in outputs:
        if types.get(name) not in _OUTPUT_TYPES[name]:
            raise EngineError(
                f"the graph's output {name} is {types.get(name, 'missing')}, expected "
                f"{' or '.join(sorted(_OUTPUT_TYPES[name]))}"
            )
