"""What a row looks like: the columns of the model's signature, in order, as the bundle and the client see them.

Three shapes of the same rows meet here and in `rows`: the client's JSON, the model's DataFrame or ndarray, and the packed matrix
(float64[N, F]; null is NaN, a category is its index, a category's null is `len(categories)`) that the graph takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from model_export.errors import ExportError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

Kind = Literal["number", "integer", "boolean", "category"]
Category = str | int

# MLflow's column types that a row of numbers and categories can hold, with the kind and the dtype of the DataFrame's column.
_COLUMN_TYPES: dict[str, tuple[Kind, str]] = {
    "double": ("number", "float64"),
    "float": ("number", "float32"),
    "integer": ("integer", "int32"),
    "long": ("integer", "int64"),
    "boolean": ("boolean", "bool"),
    "string": ("category", "str"),
}


@dataclass(frozen=True)
class Column:
    """One input of the model."""

    name: str
    kind: Kind
    dtype: str
    """Of the column in the frame that the registered model gets: float64, float32, int64, int32, bool or str."""
    optional: bool = False
    """The signature says required=False."""
    nullable: bool = False
    """Null is a legal value; set only when the registered model answers for it."""
    categories: tuple[Category, ...] = ()
    null: float | None = float("nan")
    """What stands for null in a frame's category column: None where the encoder learned None, else NaN."""

    @property
    def is_index(self) -> bool:
        """True where the packed matrix holds an index into `categories`."""
        return self.kind == "category"


@dataclass(frozen=True)
class Schema:
    """The columns in order, and the container that the registered model takes them in."""

    columns: tuple[Column, ...]
    named: bool
    matrix_dtype: str | None = None
    """Set where the model takes an ndarray (a tensor signature, or none): its dtype."""

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    def with_columns(self, columns: dict[int, Column]) -> Schema:
        """The same schema with some columns replaced, by position."""
        return replace(self, columns=tuple(columns.get(i, column) for i, column in enumerate(self.columns)))


def read_schema(signature: ModelSignature | None, estimator: Any) -> Schema:
    """Read the columns from the model's signature; without one, from what the estimator remembers of its training.

    Raises:
        ExportError: several tensors, a tensor that is not a matrix, or a column type that a row cannot hold (dates, bytes, arrays).
    """
    inputs = None if signature is None else signature.inputs
    if inputs is None:
        return _from_estimator(estimator)
    if inputs.is_tensor_spec():
        return _from_tensors(inputs.inputs)
    return _from_columns(inputs.inputs)


def _from_estimator(estimator: Any) -> Schema:
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return Schema(tuple(Column(str(name), "number", "float64") for name in names), named=True)
    return _matrix(int(estimator.n_features_in_), "float64")


def _from_tensors(tensors: list[Any]) -> Schema:
    if len(tensors) != 1 or len(tensors[0].shape) != 2 or tensors[0].shape[1] < 1:
        raise ExportError(f"the signature takes {tensors}: only one matrix of rows and columns can be exported")
    dtype = np.dtype(tensors[0].type)
    if dtype.kind not in "fiu":
        raise ExportError(f"the signature's tensor holds {dtype}: only numbers can be exported from an unnamed matrix")
    return _matrix(int(tensors[0].shape[1]), dtype.name)


def _matrix(width: int, dtype: str) -> Schema:
    kind: Kind = "number" if np.dtype(dtype).kind == "f" else "integer"
    return Schema(tuple(Column(f"x{i}", kind, dtype) for i in range(width)), named=False, matrix_dtype=dtype)


def _from_columns(specs: list[Any]) -> Schema:
    named = all(spec.name is not None for spec in specs)
    columns = []
    for i, spec in enumerate(specs):
        name = spec.name if named else f"x{i}"
        known = _COLUMN_TYPES.get(getattr(spec.type, "name", ""))
        if known is None:
            raise ExportError(f"column {name!r} has the type {spec.type}: known are {', '.join(_COLUMN_TYPES)}")
        columns.append(Column(name, *known, optional=not spec.required))
    return Schema(tuple(columns), named=named)
