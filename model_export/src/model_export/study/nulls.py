"""Decides in which columns null is a legal value.

A column may be null if the model was evidently made for it: the signature says so, an imputer reads
it, its encoder learned null, or its training data holds nulls. It is nullable if the registered
model then answers; the gate proves that the graph answers the same. So a tree that merely tolerates
NaN gets no nullable column, and one trained on NaN must pass the gate with NaN, or it is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.impute._iterative import IterativeImputer  # the public name needs a switch
from sklearn.preprocessing import FunctionTransformer

from model_export.study.arrays import Matrix
from model_export.study.rows import columns_of, null_of, to_model_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from model_export.registry.client import FetchedModel
    from model_export.study.anatomy import Anatomy, Branch, Step
    from model_export.study.schema import Schema


_IMPUTERS = (IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer)
_PARTIAL = (np.log, np.log10, np.log1p, np.log2, np.sqrt, special.logit)
"""Functions that make NaN of some numbers."""
_MOST_VALUES = 2_000_000
"""Most values in the rows that are asked at once."""


def find_nullable(
    fetched: FetchedModel, schema: Schema, anatomy: Anatomy, frame: pd.DataFrame
) -> Schema:
    """Mark the nullable columns.

    Args:
        fetched: the registered model, which is asked for answers.
        schema: with categories.
        anatomy: of the model.
        frame: the data; only its nulls matter.
    """
    candidates = (
        {i for i, column in enumerate(schema.columns) if column.optional}
        | _imputed(anatomy)
        | _null_in(frame, schema)
    )
    candidates -= {i for i, column in enumerate(schema.columns) if column.kind == "text"}
    asked, most = sorted(candidates), max(1, _MOST_VALUES // len(schema.columns))
    parts = [
        _answering(fetched, schema, asked[start : start + most])
        for start in range(0, len(asked), most)
    ]
    return schema.with_columns(
        {i: replace(schema.columns[i], nullable=True) for part in parts for i in part}
    )


def _imputed(anatomy: Anatomy) -> set[int]:
    if _imputes(anatomy.steps):
        return {i for leaf in anatomy.leaves() for i in leaf.columns}
    found = {i for branch in anatomy.branches for i in _imputed_in(branch)}
    return found.union(*map(_imputed, anatomy.members))


def _imputed_in(branch: Branch) -> set[int]:
    if _imputes(branch.encode + branch.steps):
        return {i for leaf in branch.leaves() for i in leaf.columns}
    return set[int]().union(*map(_imputed_in, branch.parts))


def reach_the_estimator(schema: Schema, anatomy: Anatomy) -> bool:
    """Whether one of the estimator's features may be NaN: a null of the row with no imputer
    between, or what a step makes of a number, as a logarithm of a negative one."""
    return any(schema.columns[i].nullable for i in _not_imputed(anatomy)) or any(
        isinstance(step, FunctionTransformer) and step.func in _PARTIAL
        for _, step in _steps(anatomy)
    )


def _steps(anatomy: Anatomy) -> Iterator[Step]:
    """All steps before the estimators."""
    yield from anatomy.steps
    for branch in anatomy.branches:
        yield from _steps_in(branch)
    for member in anatomy.members:
        yield from _steps(member)


def _steps_in(branch: Branch) -> Iterator[Step]:
    yield from branch.encode + branch.steps
    for part in branch.parts:
        yield from _steps_in(part)


def _not_imputed(anatomy: Anatomy) -> set[int]:
    if anatomy.members:
        return set[int]().union(*map(_not_imputed, anatomy.members))
    if _imputes(anatomy.steps):
        return set()
    return set[int]().union(*map(_not_imputed_in, anatomy.branches))


def _not_imputed_in(branch: Branch) -> set[int]:
    if _imputes(branch.encode + branch.steps):
        return set()
    if branch.parts:
        return set[int]().union(*map(_not_imputed_in, branch.parts))
    return set(branch.columns)


def _imputes(steps: tuple[Step, ...]) -> bool:
    return any(isinstance(step, _IMPUTERS) for _, step in steps)


def _null_in(frame: pd.DataFrame, schema: Schema) -> set[int]:
    found, _ = columns_of(frame, schema)
    return {i for i, series in enumerate(found) if bool(series.isna().any())}


def _answering(fetched: FetchedModel, schema: Schema, positions: list[int]) -> list[int]:
    """Those of the columns in which the registered model accepts null; asks for all together, and
    in halves if that fails."""
    if not positions:
        return []
    rows: Matrix = np.zeros((len(positions), len(schema.columns)))
    for row, i in enumerate(positions):
        rows[row, i] = null_of(schema.columns[i])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # null may be an unknown category, which warns
            fetched.predict(to_model_input(rows, schema))
    except Exception:  # noqa: BLE001
        # MLflow's enforcement and any estimator may raise anything: the model refuses null.
        if len(positions) == 1:
            return []
        middle = len(positions) // 2
        return _answering(fetched, schema, positions[:middle]) + _answering(
            fetched, schema, positions[middle:]
        )
    return positions
