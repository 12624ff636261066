"""From the packed matrix to what the registered model takes, to JSON, and back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model_export.errors import ExportError, sentence

if TYPE_CHECKING:
    from model_export.study.schema import Column, Schema

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def to_model_input(packed: Matrix, schema: Schema) -> pd.DataFrame | np.ndarray[Any, Any]:
    """The rows as the registered model takes them.

    Args:
        packed: float64[N, F].

    Returns:
        an ndarray where the model takes one, else a DataFrame with the signature's names and
        dtypes.

    Raises:
        ValueError: a null in a column of integers or booleans, which have no null.
    """
    if schema.matrix_dtype is not None:
        return _checked_cast(packed, schema.matrix_dtype)
    labels = [column.name if column.label is None else column.label for column in schema.columns]
    dtypes = {column.dtype for column in schema.columns}
    if len(dtypes) == 1 and not any(
        column.is_index for column in schema.columns
    ):  # one block: thousands of columns take as long as one
        frame = pd.DataFrame(_checked_cast(packed, dtypes.pop()), copy=False)
    else:
        frame = pd.DataFrame(
            {i: _series(packed[:, i], column) for i, column in enumerate(schema.columns)}
        )
    if schema.named:
        frame.columns = pd.Index(labels)
    for column in schema.ignored:
        values = itertools.islice(itertools.cycle(column.values), len(packed))
        frame.insert(
            column.position, column.name if column.label is None else column.label, list(values)
        )
    return frame


def _series(values: np.ndarray[Any, Any], column: Column) -> pd.Series:
    if not column.is_index:
        return pd.Series(_checked_cast(values, column.dtype))
    known = np.empty(len(column.categories) + 1, dtype=object)
    known[:-1] = column.categories
    known[-1] = column.null
    chosen = known[values.astype(np.int64)]
    # An object column keeps None as None; every other dtype turns it into NaN, which another
    # category may be.
    return pd.Series(chosen, dtype=object if column.null is None else column.dtype)


def _checked_cast(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    if np.dtype(dtype).kind != "f" and np.isnan(values).any():
        raise ValueError(f"null in a column of {dtype}")
    return values.astype(dtype)


def to_json(packed_row: np.ndarray[Any, Any], schema: Schema) -> dict[str, Any]:
    """One packed row as the client would write it."""
    return {
        c.name: to_json_value(float(v), c) for v, c in zip(packed_row, schema.columns, strict=True)
    }


def to_json_value(value: float, column: Column) -> Any:
    """One packed value as the client would write it; null is None."""
    if column.is_index:
        index = int(value)
        return column.categories[index] if index < len(column.categories) else None
    if np.isnan(value):
        return None
    return {"number": float, "integer": int, "boolean": bool}[column.kind](value)


def null_of(column: Column) -> float:
    """How the packed matrix writes null in this column."""
    return float(len(column.categories)) if column.is_index else float("nan")


def from_frame(
    frame: pd.DataFrame, schema: Schema
) -> tuple[Matrix, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Pack a table of data, column by column, by name (or by position for an unnamed model).

    Returns:
        float64[N, F], and bool[N]: True where every value of the row is legal: a known category, a
        finite number, null only where it may be.

    Raises:
        ExportError: a column is missing, or holds text where the model takes numbers.
    """
    packed = np.empty((len(frame), len(schema.columns)), dtype=np.float64)
    known = np.ones(len(frame), dtype=np.bool_)
    labels = {str(label): label for label in frame.columns}
    by_name = set(schema.names) <= labels.keys()
    if not by_name and (schema.named or frame.shape[1] < len(schema.columns)):
        missing = [name for name in schema.names if name not in labels]
        raise ExportError(f"the data lacks the columns {missing}; it has {list(frame.columns)}")
    for i, column in enumerate(schema.columns):
        packed[:, i], column_known = _pack(
            frame[labels[column.name]] if by_name else frame.iloc[:, i], column
        )
        known &= column_known
    return packed, known


def _pack(series: pd.Series, column: Column) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    null = series.isna().to_numpy()
    if column.is_index:
        index_of = {value: float(i) for i, value in enumerate(column.categories)}
        index = series.map(index_of).to_numpy(dtype=np.float64)
        unknown = np.isnan(index) & ~null
        return np.where(np.isnan(index), null_of(column), index), ~unknown & (
            ~null | column.nullable
        )
    try:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"column {column.name!r} of the data is not numeric: {sentence(error, 200)}"
        ) from error
    return values, np.where(null, column.nullable, _is_legal(values, column))


def _is_legal(values: np.ndarray[Any, Any], column: Column) -> np.ndarray[Any, Any]:
    """True where the server would take the number: finite even as float32, and whole where the
    column is."""
    with np.errstate(invalid="ignore"):
        legal = np.abs(values) <= np.finfo(np.float32).max
        return np.asarray(legal if column.kind == "number" else legal & (values == np.rint(values)))
