"""Binary tensors of the inference protocol without a Python object per value.

One tensor [N, F] of the model's own type is a batch's bytes already: it is checked as a whole and
passed on. What an answer's JSON says is made once for each shape of an answer, and the values
behind it are packed in C.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from halfcore.bundle import Manifest
from halfcore.pipeline.decode import Rows
from halfcore.pipeline.engine import Result
from halfcore.pipeline.schema import Schema
from halfcore.pipeline.table import Table
from halfcore.predict.admission import BINARY_HEADER
from halfcore.predict.prediction import Headers
from halfcore.predict.protocols.tensors import BINARY_SIZE, DTYPES, Tensor

BINARY_TYPE = "application/octet-stream"
NUMBERS = {"float32": "FP32", "float64": "FP64"}
"""The protocol's names of a manifest's `dtype`."""
_CODES = {"float32": "f", "float64": "d"}
_LABELS = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
_SHAPES = 256
"""Most descriptions of answers that are kept for a model version; each has some hundred bytes."""


class Matrices:
    """Reads the rows of one schema; made once per model version."""

    def __init__(self, schema: Schema) -> None:
        self._table = Table.of(schema)
        self._names = frozenset(schema.names)
        self._width = len(schema.names)
        self._datatype = NUMBERS[schema.dtype]
        self._row_bytes = self._width * np.dtype(DTYPES[self._datatype]).itemsize

    def rows(self, tensors: Sequence[Tensor], payload: bytes, *, max_rows: int) -> Rows | None:
        """The rows of a request.

        Args:
            tensors: the request's inputs.
            payload: the bytes behind its JSON.
            max_rows: most rows in one request.

        Returns:
            None unless it is one tensor [N, F] whose bytes are right as they are.
        """
        tensor, size = tensors[0] if len(tensors) == 1 else None, len(payload)
        count, rest = divmod(size, self._row_bytes)
        if (
            tensor is None
            or rest
            or not 1 <= count <= max_rows
            or tensor.datatype != self._datatype
            or tensor.shape != [count, self._width]
            or tensor.name in self._names
            or not (parameters := tensor.parameters)
            or type(announced := parameters.get(BINARY_SIZE)) is not int
            or announced != size
            or len(parameters) > 1
            or tensor.data
        ):
            return None
        return self._table.pack_bytes(payload, count)


Outputs = tuple[tuple[str, str, bool], ...]
"""The outputs that are asked for: the client's name, the manifest's, and whether it is sent as a
binary tensor."""


class Part(NamedTuple):
    """One output of an answer."""

    values: bytes
    shape: tuple[int, ...]


class Answers:
    """Writes the answers of one model version whose outputs are all binary; made once per
    version."""

    def __init__(self, manifest: Manifest) -> None:
        name, version = orjson.dumps(manifest.name), orjson.dumps(manifest.version)
        self._start = b'{"model_name":' + name + b',"model_version":' + version
        self._number = NUMBERS[manifest.dtype]
        self._dtype = np.dtype(DTYPES[self._number])
        self._label_type = label_type(manifest.classes) if manifest.classes else ""
        self._labels = [element(label) for label in manifest.classes]
        self._width = len(manifest.classes)
        self._pack = struct.Struct(f"<{self._width}{_CODES[manifest.dtype]}").pack
        self._kept = lru_cache(_SHAPES)(self._described)
        self._begun = lru_cache(_SHAPES)(self._one_row)
        outputs = [(name, name) for name in manifest.outputs]
        self.all_json: Outputs = tuple((*names, False) for names in outputs)
        """All outputs, as JSON."""
        self.all_binary: Outputs = tuple((*names, True) for names in outputs)
        """All outputs, as binary tensors."""

    def answer(
        self, request_id: str, outputs: Outputs, results: Sequence[Result]
    ) -> tuple[Headers, bytes]:
        """Headers and body.

        Args:
            request_id: the client's; empty: none.
            outputs: all of them binary.
            results: of all rows.
        """
        if outputs is self.all_binary and self._width and len(results) == 1 and not request_id:
            label, *probabilities = results[0]
            found, begun = self._begun(label, bool(probabilities))
            return found, begun + self._pack(*probabilities[0]) if probabilities else begun
        return self._any_answer(request_id, outputs, results)

    def _one_row(self, label: int, probable: bool) -> tuple[Headers, bytes]:
        """Headers, and body without its probabilities, of the usual answer to one row."""
        zeros = [0.0] * self._width
        result: Result = (label, zeros) if probable else (label,)
        found, body = self._any_answer("", self.all_binary, [result])
        return found, body[: -len(self._pack(*zeros))] if probable else body

    def _any_answer(
        self, request_id: str, outputs: Outputs, results: Sequence[Result]
    ) -> tuple[Headers, bytes]:
        names = tuple([(asked, name) for asked, name, _ in outputs])
        parts = [self.part(name, results) for _, name in names]
        described = self._kept(names, *[(len(part.values), part.shape) for part in parts])
        text = b"".join(
            (self._start, b',"id":' + orjson.dumps(request_id) if request_id else b"", described)
        )
        body = b"".join([text, *[part.values for part in parts]])
        return _headers(len(text), len(body)), body

    def part(self, name: str, results: Sequence[Result]) -> Part:
        """One output as a binary tensor."""
        count = len(results)
        if name == "label":
            return Part(b"".join([self._labels[result[0]] for result in results]), (count,))
        if name == "probabilities":
            packed = b"".join([self._pack(*result[-1]) for result in results])
            return Part(packed, (count, self._width))
        values = np.array([result[-1] for result in results], self._dtype)
        return Part(values.tobytes(), values.shape)

    def _described(
        self, names: tuple[tuple[str, str], ...], *sizes: tuple[int, tuple[int, ...]]
    ) -> bytes:
        """The end of an answer's JSON: its outputs."""
        outputs: list[dict[str, Any]] = [
            {
                "name": asked,
                "datatype": self._label_type if name == "label" else self._number,
                "shape": shape,
                "parameters": {BINARY_SIZE: size},
            }
            for (asked, name), (size, shape) in zip(names, sizes, strict=True)
        ]
        return b',"outputs":' + orjson.dumps(outputs) + b"}"


def label_type(classes: Sequence[Any]) -> str:
    """The protocol's type of a model's labels."""
    return _LABELS[type(classes[0])]


def element(label: Any) -> bytes:
    """A label as an element of a binary tensor; a text has its length before it."""
    if isinstance(label, str):
        text = label.encode()
        return len(text).to_bytes(4, "little") + text
    return np.array(label).tobytes()


@lru_cache(1024)
def _headers(text: int, body: int) -> Headers:
    """Of a 200 whose body has `body` bytes, the first `text` of them JSON; answers of one size
    share them."""
    return [
        ("content-type", BINARY_TYPE),
        ("content-length", str(body)),
        (BINARY_HEADER, str(text)),
    ]
