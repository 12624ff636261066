"""Tensors of a gRPC request and of its answer: raw as over HTTP, or typed contents."""

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halfcore.predict.protocols.tensors import Tensor, bad, checked, unpacked
from halfcore.problem import shown

FIELDS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "<i4"),
    "INT16": ("int_contents", "<i4"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "<u4"),
    "UINT16": ("uint_contents", "<u4"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", ""),
}
"""Datatype → the field of `InferTensorContents` with its values, and their type in NumPy."""
SLICE_VALUES = 4096
"""Values that are read between two pauses; less than a millisecond."""
_MOST_SIZES = 3
"""Sizes of a shape that are read; a right one has at most two."""
Values = NDArray[Any] | list[Any]


def tensors_of(request: Any) -> Generator[None, None, list[tuple[Tensor, Values]]]:
    """Each input of a `ModelInferRequest` with its values, flat; pauses every `SLICE_VALUES`.

    Raises:
        Problem: 400.
    """
    found = []
    raw = iter(request.raw_input_contents)
    for sent in request.inputs:
        tensor = Tensor(sent.name, list(sent.shape[:_MOST_SIZES]), sent.datatype)
        fields = sent.contents.ListFields()
        part = None if fields else next(raw, None)
        if part is None:
            values = yield from _typed(tensor, fields)
        else:
            values = checked(tensor, (yield from unpacked(tensor, memoryview(part))))
        found.append((tensor, values))
    if next(raw, None) is not None:
        raise bad(
            f"the request has {len(request.raw_input_contents)} raw_input_contents, expected one "
            "per input that has no contents"
        )
    return found


def put(contents: Any, datatype: str, values: Values) -> None:
    """Fill an output's `InferTensorContents`."""
    listed = values if isinstance(values, list) else values.tolist()
    if datatype == "BYTES":
        listed = [text.encode() for text in listed]
    getattr(contents, FIELDS[datatype][0]).extend(listed)


def _typed(tensor: Tensor, fields: list[tuple[Any, Any]]) -> Generator[None, None, Values]:
    """The values of typed contents, of which `fields` are set."""
    if tensor.datatype not in FIELDS:
        raise bad(
            f"input '{shown(tensor.name)}': datatype is '{shown(tensor.datatype)}', expected one "
            f"of {', '.join(FIELDS)} in contents, or raw_input_contents"
        )
    name, dtype = FIELDS[tensor.datatype]
    if any(field.name != name for field, _ in fields):
        names = ", ".join(field.name for field, _ in fields)
        raise bad(
            f"input '{shown(tensor.name)}' has {names}, expected {name} for {tensor.datatype}"
        )
    sent = fields[0][1] if fields else []
    checked(tensor, sent)
    return (yield from (_numbers(sent, dtype) if dtype else _texts(tensor, sent)))


def _numbers(sent: Any, dtype: str) -> Generator[None, None, Values]:
    values = np.empty(len(sent), dtype)
    for at in range(0, len(sent), SLICE_VALUES):
        values[at : at + SLICE_VALUES] = sent[at : at + SLICE_VALUES]
        yield
    return values


def _texts(tensor: Tensor, sent: Any) -> Generator[None, None, Values]:
    values: list[Any] = []
    for at in range(0, len(sent), SLICE_VALUES):
        try:
            values += [text.decode() for text in sent[at : at + SLICE_VALUES]]
        except UnicodeDecodeError:
            raise bad(f"input '{shown(tensor.name)}': a text is not UTF-8") from None
        yield
    return values
