"""Tensors of the Open Inference Protocol: their values, from JSON or from bytes."""

from collections.abc import Generator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from halfcore.pipeline.table import SLICE_VALUES
from halfcore.problem import Problem, shown

DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""NumPy's types of the protocol's; `BYTES` has none."""
BINARY_SIZE = "binary_data_size"
"""The parameter of a binary tensor: its length in bytes."""
SHARED_MEMORY = "shared_memory_"
"""The beginning of the names of Triton's parameters for values that are in shared memory."""
_MOST = 2**63 - 1
"""Of a size: JSON's integers may have thousands of digits, and their product more than Python
writes."""
Parameters = dict[str, str | int | float | bool | None]


class Tensor(msgspec.Struct):
    """One input, as it was sent."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: Parameters | None = None


def with_data(
    tensors: Sequence[Tensor], binary: memoryview
) -> Generator[None, None, list[tuple[Tensor, "NDArray[Any] | list[Any]"]]]:
    """Each tensor with its values, flat and in row order; pauses every `SLICE_VALUES` texts of a
    binary tensor. Raises `Problem`, 400."""
    found: list[tuple[Tensor, NDArray[Any] | list[Any]]] = []
    at = 0
    for tensor in tensors:
        refuse_shared_memory(tensor.parameters, f"input '{shown(tensor.name)}': parameters")
        size = (tensor.parameters or {}).get(BINARY_SIZE)
        if size is not None and tensor.data:
            raise bad(
                f"input '{shown(tensor.name)}' has data and binary_data_size, expected one of them"
            )
        if size is None:
            found.append((tensor, checked(tensor, _flat(tensor))))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - at:
            raise bad(
                f"input '{shown(tensor.name)}': binary_data_size is {shown(size)}, expected at "
                f"most {len(binary) - at}, the bytes that are left behind the JSON, whose length "
                "is Inference-Header-Content-Length"
            )
        values = yield from unpacked(tensor, binary[at : at + size])
        found.append((tensor, checked(tensor, values)))
        at += size
    if at < len(binary):
        raise bad(f"{len(binary) - at} bytes follow the last binary tensor")
    return found


def refuse_shared_memory(parameters: Parameters | None, where: str) -> None:
    """Refuse the parameters of a tensor whose values are in memory that a client shares with
    Triton; raises `Problem`, 400."""
    for name in parameters or ():
        if name.startswith(SHARED_MEMORY):
            raise bad(
                f"{where}.{shown(name)} is not supported: this server shares no memory with its "
                "clients, expected the values in the request and the answer; leave it out"
            )


def _flat(tensor: Tensor) -> list[Any]:
    """The values of a tensor that was sent as JSON, nested as its shape says or flat."""
    if tensor.data is None:
        raise bad(f"input '{shown(tensor.name)}' has neither data nor binary_data_size")
    _dtype(tensor)
    _check_shape(tensor)
    values: list[Any] = tensor.data
    if len(tensor.shape) == 1 or not values or not all(isinstance(row, list) for row in values):
        return values
    width = tensor.shape[1]
    for number, row in enumerate(values):
        if len(row) != width:
            raise bad(
                f"input '{shown(tensor.name)}': data[{number}] has {len(row)} values, expected "
                f"{width} for the shape {tensor.shape}; or send the values without inner arrays"
            )
    return [value for row in values for value in row]


def unpacked(tensor: Tensor, part: memoryview) -> Generator[None, None, "NDArray[Any] | list[Any]"]:
    """The values of a binary tensor, flat; pauses as `with_data`, and raises `Problem`, 400."""
    dtype = _dtype(tensor)
    if dtype is None:
        return (yield from _texts(tensor, part))
    if len(part) % dtype.itemsize:
        raise bad(
            f"input '{shown(tensor.name)}' has {len(part)} bytes, expected a multiple of "
            f"{dtype.itemsize} for {tensor.datatype}"
        )
    return np.frombuffer(part, dtype)


def _dtype(tensor: Tensor) -> "np.dtype[Any] | None":
    """NumPy's type of a tensor; None for texts."""
    if tensor.datatype == "BYTES":
        return None
    if tensor.datatype not in DTYPES:
        raise bad(
            f"input '{shown(tensor.name)}': datatype is '{shown(tensor.datatype)}', expected one "
            f"of BYTES, {', '.join(DTYPES)}"
        )
    return np.dtype(DTYPES[tensor.datatype])


def _texts(tensor: Tensor, part: memoryview) -> Generator[None, None, list[Any]]:
    """A binary tensor of texts: each has its length before it."""
    _check_shape(tensor)
    wanted = _size(tensor)
    texts: list[Any] = []
    at, end = 0, len(part)
    try:
        while at < end:
            if len(texts) == wanted:  # more of them would only take time
                raise bad(
                    f"input '{shown(tensor.name)}' has more than {wanted} texts, expected {wanted} "
                    f"for the shape {tensor.shape}"
                )
            begin = at + 4
            at = begin + int.from_bytes(part[at:begin], "little")
            if at > end:
                raise ValueError
            texts.append(str(part[begin:at], "utf-8"))
            if not len(texts) % SLICE_VALUES:
                yield
    except UnicodeDecodeError:
        raise bad(f"input '{shown(tensor.name)}': a text is not UTF-8") from None
    except ValueError:
        raise bad(
            f"input '{shown(tensor.name)}': a text is longer than the tensor's bytes"
        ) from None
    return texts


def checked(tensor: Tensor, values: "NDArray[Any] | list[Any]") -> "NDArray[Any] | list[Any]":
    """The values, if they are as many as the shape says; raises `Problem`, 400."""
    _check_shape(tensor)
    wanted = _size(tensor)
    if len(values) != wanted:
        raise bad(
            f"input '{shown(tensor.name)}' has {len(values)} values, expected {wanted} for the "
            f"shape {tensor.shape}"
        )
    return values


def _check_shape(tensor: Tensor) -> None:
    if not 1 <= len(tensor.shape) <= 2 or any(not 0 <= size <= _MOST for size in tensor.shape):
        sizes = [shown(size) for size in tensor.shape[:5]]
        raise bad(f"input '{shown(tensor.name)}': shape is {sizes}, expected [N] or [N, F]")


def _size(tensor: Tensor) -> int:
    """How many values a right shape stands for."""
    return tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) == 2 else 1)


def bad(message: str) -> Problem:
    """The protocol's 400."""
    return Problem(400, "bad_request", message)
