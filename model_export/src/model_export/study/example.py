"""Reads an input example, in every form in which MLflow accepts one, as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from model_export.errors import ExportError, plain
from model_export.study.tables import Table

_BODIES = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""The keys of a request to MLflow's server, in which people copy a request as the example."""


def example_table(example: Any, width: int) -> Table:
    """The example as a table.

    Args:
        example: as it was logged.
        width: columns of the model.

    Raises:
        ExportError: it is none.
    """
    dense = example.toarray() if hasattr(example, "toarray") else example
    try:
        return Table(dense if isinstance(dense, pd.DataFrame) else _frame(dense, width))
    except (TypeError, ValueError) as error:
        raise ExportError(f"it is not a table{plain(error, 200)}") from error


def _frame(example: Any, width: int) -> pd.DataFrame:
    if isinstance(example, dict):
        return _of_dictionary(example, width)
    if isinstance(example, list) and example and isinstance(example[0], dict):
        return pd.DataFrame(example)
    rows = np.asarray(example)
    # A list of texts holds one row each; a list of numbers is one row of a model of several.
    as_rows = rows.reshape(-1, 1) if rows.ndim == width == 1 else np.atleast_2d(rows)
    return pd.DataFrame(as_rows)


def _of_dictionary(example: dict[str, Any], width: int) -> pd.DataFrame:
    keys = set(example)
    if keys - {"index"} == {"columns", "data"} and _is_nested(example["data"]):
        return pd.DataFrame(example["data"], columns=example["columns"])
    if len(keys) == 1:
        ((name, only),) = example.items()
        # A flat list is a column, even if its name is that of a request's key.
        if _is_nested(only) and (name in _BODIES or isinstance(only, np.ndarray)):
            return _frame(only, width)
    is_row = not any(isinstance(value, list | np.ndarray) for value in example.values())
    return pd.DataFrame([example] if is_row else example)


def _is_nested(value: Any) -> bool:
    """True for a dictionary, a list of rows, or a matrix."""
    if isinstance(value, np.ndarray):
        return value.ndim > 1
    inside = value[0] if isinstance(value, list) and value else value
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(inside, list | dict))
