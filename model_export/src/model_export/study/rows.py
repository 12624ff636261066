"""Converts packed rows to the registered model's input and to JSON, and tables to packed rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model_export.errors import ExportError, listed, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_export.study.arrays import Flags, Matrix, Values
    from model_export.study.schema import Column, Schema


def to_model_input(packed: Matrix, schema: Schema) -> pd.DataFrame | np.ndarray[Any, Any]:
    """The rows as the registered model takes them.

    Args:
        packed: float64[N, F].

    Returns:
        an ndarray if the model takes one, otherwise a DataFrame with the signature's names and
        dtypes.

    Raises:
        ValueError: a null in a column of integers or booleans, which have no null.
    """
    if schema.takes_texts:
        return np.asarray(_series(packed[:, 0], schema.columns[0]), dtype=object)
    if schema.matrix_dtype is not None:
        matrix = _checked_cast(_with_values(packed, schema), schema.matrix_dtype)
        return matrix[:, 0] if schema.flat else matrix
    dtypes = {column.dtype for column in schema.columns}
    if len(dtypes) == 1 and not any(c.is_index or c.pandas for c in schema.columns):
        # One block: thousands of columns then take as long as one.
        frame = pd.DataFrame(_checked_cast(packed, dtypes.pop()), copy=False)
    else:
        frame = pd.DataFrame(
            {i: _series(packed[:, i], column) for i, column in enumerate(schema.columns)}
        )
    if schema.named:
        frame.columns = pd.Index([column.frame_label for column in schema.columns])
    for column in schema.ignored:
        values = itertools.islice(itertools.cycle(column.values), len(packed))
        frame.insert(column.position, column.frame_label, list(values))
    return frame


def _with_values(packed: Matrix, schema: Schema) -> Matrix:
    """The rows of a model of a matrix, with each category in place of its index."""
    encoded = [i for i, column in enumerate(schema.columns) if column.is_index]
    if not encoded:
        return packed
    values = packed.copy()
    for i in encoded:
        values[:, i] = _series(packed[:, i], schema.columns[i]).to_numpy(np.float64)
    return values


def _series(values: np.ndarray[Any, Any], column: Column) -> pd.Series:
    if not column.is_index:
        series = pd.Series(_checked_cast(values, column.dtype))
        return series.astype("category") if column.pandas else series
    known = np.empty(len(column.categories) + 2, dtype=object)
    known[:-2] = column.categories
    known[-2] = column.null
    index = values.astype(np.int64)
    chosen = known[index]
    if column.unknown:
        unknown = index == len(column.categories) + 1
        # In turn, because each of them must be answered in the same way.
        chosen[unknown] = list(
            itertools.islice(itertools.cycle(column.unknown), int(unknown.sum()))
        )
    if column.pandas:
        known_ones = pd.Index([*column.categories, *column.unknown], dtype=column.pandas)
        return pd.Series(pd.Categorical(chosen, categories=known_ones))
    # An object column keeps None; every other dtype turns it into NaN, which may be a category.
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
        if index > len(column.categories):
            return column.unknown[0]
        return column.categories[index] if index < len(column.categories) else None
    if np.isnan(value):
        return None
    return {"number": float, "integer": int, "boolean": bool}[column.kind](value)


def expanded(packed: Matrix, schema: Schema) -> Matrix:
    """The rows as the graph takes them: a text as the numbers of its tokens.

    Args:
        packed: float64[N, F].

    Returns:
        float64[N, `schema.width`]; `packed` itself if there is no text.
    """
    if schema.width == len(schema.columns):
        return packed
    parts = [
        packed[:, i : i + 1] if column.text is None else column.text.rows(packed[:, i], column)
        for i, column in enumerate(schema.columns)
    ]
    return np.concatenate(parts, axis=1)


def unknown_of(column: Column) -> float:
    """An unknown category of this column in the packed matrix."""
    return float(len(column.categories) + 1)


def null_of(column: Column) -> float:
    """Null of this column in the packed matrix."""
    return float(len(column.categories)) if column.is_index else float("nan")


def columns_of(frame: pd.DataFrame, schema: Schema) -> tuple[list[pd.Series], bool]:
    """The frame's column for each of the schema's, and whether they were found by name.

    If a name is missing, the columns are the first ones; there may be fewer than in the schema.
    """
    labels = {str(label): label for label in frame.columns}
    if set(schema.names) <= labels.keys():
        return [frame[labels[name]] for name in schema.names], True
    return [frame.iloc[:, i] for i in range(min(frame.shape[1], len(schema.columns)))], False


def from_frame(frame: pd.DataFrame, schema: Schema) -> tuple[Matrix, Flags]:
    """Pack a table of data, column by column, by name (or by position for an unnamed model).

    Returns:
        float64[N, F], and bool[N]: True where every value of the row is legal: a known category, a
        finite number, null only in a nullable column.

    Raises:
        ExportError: a column is missing, or holds text where the model takes numbers.
    """
    packed = np.empty((len(frame), len(schema.columns)), dtype=np.float64)
    known = np.ones(len(frame), dtype=np.bool_)
    found, by_name = columns_of(frame, schema)
    if not by_name and (schema.named or len(found) < len(schema.columns)):
        missing = [name for name in schema.names if name not in map(str, frame.columns)]
        raise ExportError(
            f"the data lacks the columns {listed(missing)}; it has {listed(frame.columns)}"
        )
    for i, (series, column) in enumerate(zip(found, schema.columns, strict=True)):
        packed[:, i], column_known = _pack(series, column)
        known &= column_known
    return packed, known


def refused_values(frame: pd.DataFrame, schema: Schema, made: Mapping[int, str]) -> str:
    """What these rows hold that the server refuses, in words; empty without rows.

    Args:
        frame: rows that `from_frame` does not find legal.
        schema: of the model.
        made: columns of which a function makes the categories → its step.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for i, (series, column) in enumerate(
        zip(columns_of(frame, schema)[0], schema.columns, strict=False)
    ):
        null, illegal = series.isna().to_numpy(), ~_pack(series, column)[1]
        if (illegal & null).any():
            what = _NULL_INTEGERS if column.kind == "integer" else "null in {}"
            found.setdefault((what, ""), []).append(column.name)
        if (illegal & ~null).any():
            what = _ILLEGAL["made" if i in made else column.kind]
            found.setdefault((what, made.get(i, "")), []).append(column.name)
    return "; ".join(
        what.format(listed(names), step=repr(step)) for (what, step), names in found.items()
    )


_NULL_INTEGERS = "null in {}, of the type integer: to allow null, log float64 there"
_ILLEGAL = {
    "made": "values of {} that no encoder learned, because step {step} makes others of them: do "
    "its work before the model is called",
    "category": "values of {} that its encoder did not learn",
    "text": "values of {} that are no texts",
    "number": "numbers in {} that are too large for float32",
    "integer": "numbers in {} that are not whole, or too large for its type",
    "boolean": "values of {} that are neither true nor false",
}
"""By kind of the column: what the server refuses in it."""


def _pack(series: pd.Series, column: Column) -> tuple[Values, Flags]:
    null = series.isna().to_numpy()
    if column.is_index:
        index_of = {value: float(i) for i, value in enumerate(column.categories)}
        index = series.map(index_of).to_numpy(dtype=np.float64)
        unknown = np.isnan(index) & ~null
        packed = np.where(np.isnan(index), null_of(column), index)
        packed[unknown] = unknown_of(column)
        return packed, (~unknown | bool(column.unknown)) & (~null | column.nullable)
    try:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"column {column.name!r} of the data is not numeric{plain(error, 200)}: let a step of "
            "the model encode it (OrdinalEncoder, OneHotEncoder), which knows its categories"
        ) from error
    return values, np.where(null, column.nullable, _is_legal(values, column))


def _is_legal(values: Values, column: Column) -> Flags:
    """True where the server would accept the number: finite as float32, and in a column of integers
    whole and within its type."""
    with np.errstate(invalid="ignore"):
        legal = np.asarray(np.abs(values) <= np.finfo(np.float32).max)
        if column.kind == "number":
            return legal
        bounds = (0, 1) if column.kind == "boolean" else _bounds(column.dtype)
        within = (values >= bounds[0]) & (values <= bounds[1])
        return np.asarray(legal & within & (values == np.rint(values)))


def _bounds(dtype: str) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
