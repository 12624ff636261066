"""A model's inputs: what a row must look like, and how it becomes bytes.

A row is packed at the door: the client's values, in the manifest's order, become the little-endian numbers of one matrix row. What
cannot be packed is refused there, so no bad row reaches a batch; and a batch is `b"".join(rows)`, for nothing is left to convert.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from halfcore.bundle import Input, Manifest

NAN = float("nan")
NUMPY_TYPES = {"float32": "<f4", "float64": "<f8"}
_STRUCT_CODES = {"float32": "f", "float64": "d"}
_JSON_TYPES = {"number": float, "integer": int, "boolean": bool}
LARGEST = {"float32": 3.4028235e38, "float64": 1.7976931348623157e308}


class Schema:
    """The inputs of one model version; immutable.

    Attributes:
        inputs: the columns in order.
        dtype: `float32` or `float64`, the type of the packed values.
        row_bytes: length of a packed row.
    """

    def __init__(self, inputs: Sequence[Input], dtype: str) -> None:
        self.inputs = tuple(inputs)
        self.names = tuple(column.name for column in inputs)
        self.dtype = dtype
        self._number = struct.Struct("<" + _STRUCT_CODES[dtype])
        self._packer = struct.Struct(f"<{len(inputs)}{_STRUCT_CODES[dtype]}")
        self.row_bytes = self._packer.size
        self.largest = LARGEST[dtype]
        self.codes: tuple[dict[Any, float] | None, ...] = tuple(_codes(column) for column in inputs)
        self._plain = not any(codes is not None for codes in self.codes)
        self.text_columns = tuple(i for i, column in enumerate(inputs) if _is_text(column))

    @classmethod
    def of(cls, manifest: Manifest) -> "Schema":
        """The schema that a manifest describes."""
        return cls(manifest.inputs, manifest.dtype)

    def pack(self, values: Sequence[Any]) -> bytes:
        """Turn one row of JSON values into matrix bytes.

        Args:
            values: one value per column, in order, already of its JSON type.

        Returns:
            `row_bytes` bytes: a category as its index, null as NaN or as the index after the last category.

        Raises:
            KeyError: an unknown category, or null where it is not allowed.
            struct.error, TypeError: not a number, or the wrong count.
            OverflowError: too large for the dtype.
        """
        if self._plain:
            return self._packer.pack(*values)
        return self._packer.pack(*[value if codes is None else codes[value] for codes, value in zip(self.codes, values, strict=True)])

    def fits(self, value: float) -> bool:
        """Whether a number is finite in the dtype; Python reads 1e999 as infinity, and `struct` packs that."""
        try:
            self._number.pack(value)
        except (OverflowError, struct.error):  # the first for a float, the second for an integer
            return False
        return math.isfinite(value)

    def json_type(self, index: int) -> Any:
        """The Python type that msgspec decodes column `index` as."""
        column = self.inputs[index]
        kind: Any = str if _is_text(column) else _JSON_TYPES.get(column.kind, int)
        return kind | None if column.nullable else kind

    def row_type(self) -> Any:
        """The msgspec type of one features vector: a tuple with one type per column."""
        return tuple[tuple(self.json_type(i) for i in range(len(self.inputs)))]  # type: ignore[misc]

    def record_type(self) -> type[msgspec.Struct]:
        """The msgspec type of one named record; unknown and missing names are errors."""
        fields = [(f"f{i}", self.json_type(i)) for i in range(len(self.inputs))]
        rename: Callable[[str], str] = {f"f{i}": name for i, name in enumerate(self.names)}.__getitem__
        return msgspec.defstruct("Record", fields, rename=rename, forbid_unknown_fields=True, gc=False)


class _NullOrNumber(dict[Any, Any]):
    """Codes of a nullable number: null is NaN, anything else is itself."""

    def __missing__(self, value: Any) -> Any:
        return value


def _codes(column: Input) -> dict[Any, float] | None:
    if column.categories is not None:
        codes: dict[Any, float] = {value: float(i) for i, value in enumerate(column.categories)}
        return codes | {None: float(len(codes))} if column.nullable else codes
    return _NullOrNumber({None: NAN}) if column.nullable else None


def _is_text(column: Input) -> bool:
    return column.categories is not None and isinstance(column.categories[0], str)
