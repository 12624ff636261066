"""The columns of a row, in the order of the model's signature, as the bundle and the client see
them.

This module and `rows` know three forms of the same rows: the client's JSON, the model's DataFrame
or ndarray, and the packed matrix that the graph takes (float64[N, F]; null is NaN, a category is
its index, a category's null is `len(categories)`, an unknown category is one more).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline

from model_export.errors import ExportError
from model_export.study.members import members, unwrapped

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from model_export.study.anatomy import Anatomy
    from model_export.study.texts import Tokens

Kind = Literal["number", "integer", "boolean", "category", "text", "other"]
Category = str | int

# MLflow's column types that a row of numbers and categories can hold → kind and dtype of the
# DataFrame's column.
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
    """Of the column in the DataFrame for the registered model: float64, float32, int64, int32, bool
    or str."""
    optional: bool = False
    """The signature says required=False."""
    nullable: bool = False
    """Null is a legal value; set only if the registered model answers for it."""
    categories: tuple[Category, ...] = ()
    null: float | None = float("nan")
    """Null in a frame's category column: None if the encoder learned None, otherwise NaN."""
    text: Tokens | None = None
    """Kind `text`: how it becomes numbers. `categories` are then the texts that the rows of the
    proof hold."""
    unknown: tuple[Category, ...] = ()
    """Values outside `categories`, all of which the registered model answers in the same way; empty
    if the server refuses unknown categories."""
    pandas: str | None = None
    """Type of the categories, if the registered model takes a column of the pandas type `category`
    (str, int64, bool, …)."""
    label: Any = None
    """What the frame's column is called if not `name`: MLflow keeps the integers of unnamed
    frames."""
    type: str = ""
    """MLflow's type of the column, if a signature gives it."""

    @property
    def is_index(self) -> bool:
        """True if the packed matrix holds an index into `categories`."""
        return self.kind in ("category", "text")

    @property
    def slots(self) -> int:
        """Columns of the graph's matrix that it takes."""
        return self.text.slots if self.text else 1

    @property
    def is_numeric(self) -> bool:
        """True for numbers and integers, false for booleans and categories."""
        return self.kind in ("number", "integer")

    @property
    def choices(self) -> int:
        """How many values a category or a boolean has, without null."""
        return len(self.categories) if self.is_index else 2

    @property
    def frame_label(self) -> Any:
        """What the frame's column is called."""
        return self.name if self.label is None else self.label


@dataclass(frozen=True)
class Ignored:
    """A column of the signature that no step reads: the registered model requires it, the graph has
    no input for it."""

    name: str
    label: Any
    """As in `Column`."""
    type: str
    """MLflow's type."""
    position: int
    """In the signature."""
    values: tuple[Any, ...] = ()
    """Values that the rows for the registered model hold in turn: its answers must not depend on
    them."""

    @property
    def frame_label(self) -> Any:
        """What the frame's column is called."""
        return self.name if self.label is None else self.label


@dataclass(frozen=True)
class Schema:
    """The columns in order, and whether the registered model takes a DataFrame or an ndarray."""

    columns: tuple[Column, ...]
    named: bool
    matrix_dtype: str | None = None
    """The dtype of the ndarray, if the model takes one (a tensor signature, or no signature)."""
    takes_texts: bool = False
    """The model takes a list of texts: those of the only column."""
    flat: bool = False
    """The ndarray has one dimension: the numbers of the only column."""
    ignored: tuple[Ignored, ...] = ()
    """In the order of their positions."""

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    @property
    def width(self) -> int:
        """Columns of the graph's matrix."""
        return sum(column.slots for column in self.columns)

    def with_columns(self, columns: dict[int, Column]) -> Schema:
        """The same schema with some columns replaced, by position."""
        return replace(
            self, columns=tuple(columns.get(i, column) for i, column in enumerate(self.columns))
        )


def read_schema(signature: ModelSignature | None, estimator: Any, example: Any = None) -> Schema:
    """Read the columns from the model's signature; without one, from the fitted estimator.

    Args:
        signature: as it was logged.
        estimator: fitted.
        example: the input example. Without a signature it says which columns hold texts or
            booleans.

    Raises:
        ExportError: several tensors, or a tensor that is not a matrix.
    """
    inputs = None if signature is None else signature.inputs
    if inputs is None:
        return _with_types_of(example, _from_estimator(estimator))
    if inputs.is_tensor_spec():
        return _from_tensors(inputs.inputs)
    return _from_columns(inputs.inputs)


def _from_estimator(estimator: Any) -> Schema:
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and type(estimator).__module__.startswith("catboost"):
        names = estimator.feature_names_  # `n_features_in_` is 0 in a model that was loaded
        if list(names) == [str(i) for i in range(len(names))]:
            return _matrix(len(names), "float64")
    if names is not None:
        for name in names:
            _check_name(name)
        return Schema(tuple(Column(str(name), "number", "float64") for name in names), named=True)
    first = _first_step(estimator)
    if isinstance(first, DictVectorizer):
        raise ExportError(
            "the model reads dictionaries (DictVectorizer), which a bundle cannot hold: train it "
            "on a table, with a OneHotEncoder in a ColumnTransformer for the columns of text"
        )
    if hasattr(first, "build_analyzer"):
        return Schema((Column("x0", "category", "str"),), named=False)
    if not getattr(estimator, "n_features_in_", 0):
        raise ExportError(
            f"the model has no signature, and {type(estimator).__name__} does not say how many "
            "columns it reads: log it with signature=infer_signature(X, model.predict(X))"
        )
    return _matrix(int(estimator.n_features_in_), "float64")


def _with_types_of(example: Any, schema: Schema) -> Schema:
    """The schema of an estimator, in which all columns are numbers, with the example's texts and
    booleans."""
    if not schema.named or not isinstance(example, pd.DataFrame):
        return schema
    typed = {}
    for i, column in enumerate(schema.columns):
        if column.name not in example.columns:
            continue
        if not _is_numeric(example[column.name]):
            typed[i] = replace(column, kind="category", dtype="str", type="string")
        elif example[column.name].dtype == np.bool_:
            typed[i] = replace(column, kind="boolean", dtype="bool", type="boolean")
    return schema.with_columns(typed)


def _is_numeric(series: pd.Series) -> bool:
    try:
        series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return False
    return True


def _first_step(estimator: Any) -> Any:
    """What reads the model's input: of a model of a list of texts, what cuts them into tokens."""
    while True:
        inner = unwrapped(estimator)
        if isinstance(inner, Pipeline):
            inner = inner.steps[0][1]
        elif isinstance(inner, FeatureUnion):
            inner = inner.transformer_list[0][1]
        elif inside := members(inner):
            inner = inside[0][1]
        if inner is estimator:
            return estimator
        estimator = inner


def _described(tensors: list[Any]) -> str:
    return " and ".join(
        f"a tensor of {np.dtype(tensor.type)} with the shape {list(tensor.shape)}"
        for tensor in tensors
    )


def _from_tensors(tensors: list[Any]) -> Schema:
    if len(tensors) == 1 and np.dtype(tensors[0].type).kind in "OU" and len(tensors[0].shape) == 1:
        return Schema((Column("x0", "category", "str"),), named=False)  # a list of texts
    flat = len(tensors) == 1 and len(tensors[0].shape) == 1 and tensors[0].shape[0] == -1
    if len(tensors) != 1 or not (flat or _is_matrix(tensors[0])):
        raise ExportError(
            f"the signature takes {_described(tensors)}, expected one matrix of rows and columns: "
            "log the model with signature=infer_signature(X, model.predict(X)) of one table X"
        )
    dtype = np.dtype(tensors[0].type)
    if dtype.kind not in "fiu":
        raise ExportError(
            f"the signature's tensor holds {dtype}, expected numbers: log the model with a table "
            "whose columns have names, so that each has its own type"
        )
    width = 1 if flat else int(tensors[0].shape[1])
    return replace(_matrix(width, dtype.name), flat=flat)


def _is_matrix(tensor: Any) -> bool:
    return len(tensor.shape) == 2 and tensor.shape[1] >= 1


def _matrix(width: int, dtype: str) -> Schema:
    kind: Kind = "number" if np.dtype(dtype).kind == "f" else "integer"
    return Schema(
        tuple(Column(f"x{i}", kind, dtype) for i in range(width)), named=False, matrix_dtype=dtype
    )


def _from_columns(specs: list[Any]) -> Schema:
    if [str(spec.type) for spec in specs if spec.name is None] == ["Any"]:
        raise ExportError(
            "the signature names no columns, because MLflow could not infer them, such as of a "
            "column that holds values of several types: give each column one type, and log the "
            "model with signature=infer_signature(X, model.predict(X))"
        )
    named = all(spec.name is not None for spec in specs)
    for spec in specs:
        _check_name(spec.name)
    columns = []
    for i, spec in enumerate(specs):
        name = str(spec.name) if named else f"x{i}"
        label = spec.name if named and not isinstance(spec.name, str) else None
        kind, dtype = _COLUMN_TYPES.get(getattr(spec.type, "name", ""), ("other", "object"))
        columns.append(
            Column(
                name,
                kind,
                dtype,
                optional=not spec.required,
                label=label,
                type=str(spec.type).removeprefix("DataType."),
            )
        )
    return Schema(tuple(columns), named=named)


def _check_name(name: Any) -> None:
    """Refuse a name that a record cannot hold; MLflow keeps it in a signature."""
    if isinstance(name, list | tuple):
        raise ExportError(
            f"the column {tuple(name)} has a name of several levels, expected one text: train the "
            "model on a table with frame.columns = ['_'.join(map(str, c)) for c in frame.columns]"
        )
    if name == "":
        raise ExportError(
            "a column has an empty name, and a record cannot hold it: name the column, and train "
            "the model again"
        )


def ignore_unread_columns(schema: Schema, anatomy: Anatomy) -> tuple[Schema, Anatomy]:
    """Remove the columns from the schema that no step reads and that no matrix of numbers can hold:
    text, dates and the like.

    Numbers and booleans that no step reads stay: clients send them already, and the server checks
    them.

    Returns:
        the schema with these columns as `ignored`, and the anatomy with the new positions.

    Raises:
        ExportError: a step reads a column of a type that a row cannot hold.
    """
    unread = {i for i in anatomy.unused if schema.columns[i].kind in ("category", "other")}
    for i, column in enumerate(schema.columns):
        if column.kind == "other" and i not in unread:
            raise ExportError(
                f"column {column.name!r} has the type {column.type}, and the model reads it, "
                f"expected {', '.join(_COLUMN_TYPES)}: compute a column of such a type before the "
                "model is called"
            )
    if not unread:
        return schema, anatomy
    if len(unread) == len(schema.columns):
        raise ExportError(
            "the model reads none of its columns: train it with the columns that it needs"
        )
    ignored = tuple(
        Ignored(c.name, c.label, c.type, i) for i, c in enumerate(schema.columns) if i in unread
    )
    kept = [i for i in range(len(schema.columns)) if i not in unread]
    columns = tuple(schema.columns[i] for i in kept)
    return replace(schema, columns=columns, ignored=ignored), anatomy.with_positions(
        {old: new for new, old in enumerate(kept)}
    )


_MOST_VALUES = 50
_INVENTED: dict[str, tuple[Any, ...]] = {
    "string": ("", "a", "B 2", "é"),
    "datetime": tuple(np.array(["1970-01-01", "2026-06-15T12:30:00"], dtype="datetime64[ns]")),
    "binary": (b"", b"a"),
}
"""By type: values for a column that the data may lack."""


def with_ignored_values(schema: Schema, frame: pd.DataFrame) -> Schema:
    """Choose values for every ignored column in the rows for the registered model.

    Args:
        schema: with `ignored`.
        frame: the data.

    Raises:
        ExportError: the data lacks the column, and no values can be invented for its type.
    """
    by_name = {str(label): label for label in frame.columns}
    return replace(
        schema, ignored=tuple(replace(c, values=_values(c, frame, by_name)) for c in schema.ignored)
    )


def _values(column: Ignored, frame: pd.DataFrame, by_name: dict[str, Any]) -> tuple[Any, ...]:
    invented = _INVENTED.get(column.type, ())
    seen = (
        frame[by_name[column.name]].dropna()[:_MOST_VALUES].tolist()
        if column.name in by_name
        else []
    )
    if column.type == "datetime":
        seen = [np.datetime64(value, "ns") for value in seen]
    if not seen and not invented:
        raise ExportError(
            f"column {column.name!r} has the type {column.type}, and no data shows its values: "
            "give --data with this column"
        )
    return (*seen, *invented)
