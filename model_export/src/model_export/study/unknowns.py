"""Decides in which columns an unknown category is a legal value.

An encoder may be made to accept categories that it did not learn: as zeros, as the group of the
rare ones, as a fixed number. Such a column accepts them if the user asked for it and the registered
model answers for each of a list of invented values; the gate proves that the graph answers the
same. The server accepts them for these columns only, because otherwise a misspelt category gets an
answer in place of an error.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from model_export.study.rows import to_model_input, unknown_of

if TYPE_CHECKING:
    from model_export.registry.client import FetchedModel
    from model_export.study.anatomy import Anatomy, Branch
    from model_export.study.schema import Category, Column, Schema

_LARGEST = 2**31 - 1
"""Unknown integers are accepted up to this: they fit every integer type of a signature."""
_TEXTS = ("", " ", "?", "0", "nan", "None", "unknown", "Unbekannt 7", "é", "未知", "x" * 1000)
_LENIENT = ("ignore", "infrequent_if_exist", "use_encoded_value", "warn")


def accept_unknown(fetched: FetchedModel, schema: Schema, anatomy: Anatomy) -> Schema:
    """Mark the columns in which unknown categories are accepted.

    Args:
        fetched: the registered model, which is asked for answers.
        schema: with categories.
        anatomy: of the model.
    """
    readers: dict[int, list[Branch]] = {}
    for branch in anatomy.leaves():
        for i in branch.columns:
            readers.setdefault(i, []).append(branch)
    for i, branches in readers.items():
        column = schema.columns[i]
        if column.is_index and all(map(_is_lenient, branches)):
            marked = schema.with_columns({i: replace(column, unknown=_invented(column))})
            if _answers(fetched, marked, i):
                schema = marked
    return schema


def _is_lenient(branch: Branch) -> bool:
    """True if the branch treats all unknown values alike: an imputer of null may run before the
    encoder, but no step that may turn one text into another."""
    steps = [step for _, step in branch.encode]
    return (
        bool(steps)
        and all(isinstance(step, SimpleImputer) and _fills_null(step) for step in steps[:-1])
        and _accepts_unknown(steps[-1])
    )


def _fills_null(imputer: SimpleImputer) -> bool:
    return bool(pd.isna(imputer.missing_values))


def _accepts_unknown(encoder: Any) -> bool:
    if isinstance(encoder, OneHotEncoder | OrdinalEncoder):
        return encoder.handle_unknown in _LENIENT
    return isinstance(encoder, TargetEncoder)


def _invented(column: Column) -> tuple[Category, ...]:
    """Values that are not among the column's categories."""
    known = column.categories
    invented: list[Category] = []
    if isinstance(known[0], str):
        first = str(known[0])
        invented += [*_TEXTS, first + " ", first.upper(), first.lower(), first[:-1]]
    else:
        numbers = [int(value) for value in known]
        invented += [max(numbers) + 1, min(numbers) - 1, 0, -1, 1_234_567, _LARGEST, -_LARGEST - 1]
    kept = [v for v in dict.fromkeys(invented) if v not in known]
    return tuple(v for v in kept if isinstance(v, str) or -_LARGEST - 1 <= v <= _LARGEST)


def _answers(fetched: FetchedModel, schema: Schema, position: int) -> bool:
    column = schema.columns[position]
    rows = np.zeros((len(column.unknown), len(schema.columns)))
    rows[:, position] = unknown_of(column)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # encoders warn of unknown categories
            fetched.predict(to_model_input(rows, schema))
    except Exception:  # noqa: BLE001
        return False  # MLflow's enforcement and any estimator may raise anything
    return True
