"""Reads the categories that XGBoost, LightGBM and HistGradientBoosting learned from columns of the
pandas type `category`, as an encoder in front of the booster.

They number a column's values by the categories of the training table, and their trees split on
these numbers. A bundle's graph reads numbers as well, so an encoder of the same numbers
takes the place of the pandas type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OrdinalEncoder

from model_export.errors import ExportError, NoSuchRowError, listed
from model_export.registry.native import NativeBooster
from model_export.study.rows import columns_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_export.study.anatomy import Anatomy
    from model_export.study.schema import Schema


class PandasCategories(OrdinalEncoder):
    """Numbers one column by its categories, in the training table's order; null is NaN.

    Args:
        feature: what the booster calls the column.
        values: the categories.
        lenient: an unknown category counts as null; otherwise it is an error.
        seen: the numbers that were learned, if `wrong_for` is to compare with them.
    """

    def __init__(
        self, feature: str, values: Any, *, lenient: bool, seen: frozenset[int] = frozenset()
    ) -> None:
        unknown = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan}
        super().__init__(**(unknown if lenient else {}))  # type: ignore[no-untyped-call]  # no types
        self.feature, self.values, self.lenient, self.seen = feature, values, lenient, seen
        self.categories_ = [np.asarray(values)]

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """One name: of the numbers."""
        return np.asarray(["x0"] if input_features is None else input_features, dtype=object)

    def transform(self, rows: Any) -> Any:
        """float64[N, 1]: the numbers.

        Raises:
            ValueError: an unknown category, unless `lenient`.
        """
        column = np.asarray(rows, dtype=object)[:, 0]
        codes = pd.Index(self.values).get_indexer(pd.Index(column)).astype(np.float64)
        unknown = (codes < 0) & ~pd.isna(column)
        if unknown.any() and not self.lenient:
            raise ValueError(f"unknown category {column[unknown][0]!r}")
        codes[codes < 0] = np.nan
        return codes.reshape(-1, 1)

    def wrong_for(self, column: pd.Series) -> bool:
        """Whether values of the data are themselves the numbers that were learned, rather than
        categories with such numbers: then the categories are those of another column."""
        if not self.seen or is_text(self.values):
            return False
        known = column.dropna()
        numbers = pd.Index(self.values).get_indexer(pd.Index(known))
        itself, numbered = known.isin(self.seen).mean(), np.isin(numbers, list(self.seen)).mean()
        return bool(itself > numbered)


def is_text(values: Any) -> bool:
    """Whether these categories are text."""
    return any(isinstance(value, str) for value in values)


@dataclass(frozen=True)
class _Learned:
    by_position: Mapping[int, pd.Index]
    """Position of the feature → its categories, in the order of their numbers."""
    names: list[str]
    """Of all features."""
    lenient: bool
    """An unknown category counts as null."""
    seen: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Position → the numbers that were learned, where it is not sure whether they are categories'
    numbers."""


def encoder_of(estimator: Any) -> ColumnTransformer | None:
    """An encoder of the columns of the pandas type `category` that a booster was trained on, which
    passes on its other columns; None if there are none.

    Raises:
        ExportError: the booster does not hold all that is needed.
    """
    model = estimator.booster if isinstance(estimator, NativeBooster) else estimator
    package = type(model).__module__.partition(".")[0]
    learned = None
    if package == "xgboost":
        learned = _of_xgboost(model)
    elif package == "lightgbm":
        learned = _of_lightgbm(model)
    if learned is None or not learned.by_position:
        return None
    steps: list[tuple[str, Any, list[int]]] = []
    for i in range(len(learned.names)):
        values = learned.by_position.get(i)
        if values is not None:
            seen = learned.seen.get(i, frozenset())
            encoder = PandasCategories(learned.names[i], values, lenient=learned.lenient, seen=seen)
            steps.append((str(i), encoder, [i]))
        elif steps and isinstance(steps[-1][1], str):
            steps[-1][2].append(i)
        else:
            steps.append((str(i), "passthrough", [i]))
    found = ColumnTransformer(steps)
    found.transformers_ = steps  # what `fit` would set, which needs rows
    return found


class HistCategories(ColumnTransformer):
    """The step in which HistGradientBoosting encodes its categories, and puts them before the
    numbers, which it only checks.

    Args:
        transformers: of the fitted step: the encoder with its mask of features, and the numbers.
    """

    def __init__(self, transformers: Any) -> None:
        super().__init__(transformers)  # type: ignore[no-untyped-call]  # no types
        self.transformers_ = [
            (name, "passthrough" if name == "numerical" else child, features)
            for name, child, features in transformers
        ]

    def encoders(self) -> dict[int, OrdinalEncoder]:
        """Feature → an encoder of this one alone."""
        encoder: Any
        (_, encoder, mask), *_ = self.transformers_
        learned = zip(np.flatnonzero(mask).tolist(), encoder.categories_, strict=True)
        return {feature: _encoder_of_one(encoder, values) for feature, values in learned}

    def without(self, encoded: set[int]) -> ColumnTransformer:
        """The same step behind encoders of these features."""
        (name, _, _), *others = self.transformers_
        steps: list[tuple[str, Any, Any]] = [
            (f"{name}-{i}", "passthrough" if i in encoded else encoder, [i])
            for i, encoder in self.encoders().items()
        ]
        rest = ColumnTransformer(self.transformers)
        rest.transformers_ = [*steps, *others]
        return rest


def _encoder_of_one(encoder: OrdinalEncoder, values: Any) -> OrdinalEncoder:
    settings = {**encoder.get_params(deep=False), "categories": [values]}
    found = OrdinalEncoder(**settings)
    found.fit(np.asarray(values).reshape(-1, 1))
    return found


def encoders_in(step: Any) -> dict[int, OrdinalEncoder]:
    """Feature → its encoder, of what `encoder_of` answers, and of the texts that
    HistGradientBoosting encodes; empty for any other step."""
    if isinstance(step, HistCategories):
        # Numbers are encoded where they reach the estimator, whatever has been made of them.
        return {
            feature: encoder
            for feature, encoder in step.encoders().items()
            if any(isinstance(value, str) for value in encoder.categories_[0])
        }
    found = step.transformers_ if isinstance(step, ColumnTransformer) else []
    return {at[0]: each for _, each, at in found if isinstance(each, PandasCategories)}


def _of_xgboost(model: Any) -> _Learned | None:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if "c" not in (booster.feature_types or ()):
        return None
    # (name, Arrow array) of each feature; None for one without names of categories.
    arrays = booster.get_categories(export_to_arrow=True).to_arrow()
    found = {
        i: _names(name, values) for i, (name, values) in enumerate(arrays) if values is not None
    }
    return _Learned(found, [name for name, _ in arrays], lenient=False)


def _names(feature: str, values: Any) -> pd.Index:
    """The categories of one feature of XGBoost, which stores as many bytes of each name as it has
    letters: names outside ASCII are cut, and in tables of fewer categories it mixes them up."""
    try:
        names = values.to_pylist()
        is_whole = all(name.isascii() for name in names if isinstance(name, str))
    except UnicodeDecodeError:
        is_whole = False
    if not is_whole:
        raise ExportError(
            f"column {feature!r} has categories with letters outside ASCII, of which XGBoost "
            "stores only a part: give the categories names of ASCII letters, or encode the column "
            "before it in a Pipeline, with an OrdinalEncoder or OneHotEncoder"
        )
    return pd.Index(names, dtype="str" if isinstance(names[0], str) else str(values.type))


def _of_lightgbm(model: Any) -> _Learned | None:
    """LightGBM keeps the categories of its columns of the pandas type in the columns' order, but
    not which columns they are of; it splits these by category, and others that it was asked to."""
    booster = getattr(model, "booster_", model)
    categories = booster.pandas_categorical or []
    if not categories:
        return None
    infos, names = booster.dump_model(num_iteration=1)["feature_infos"], booster.feature_name()
    split = _categorical_features(booster)
    ranges = {i: infos.get(names[i], _CONSTANT) for i in range(len(names))}
    found = _in_order(split, categories, ranges)
    others = [ranges[i] for i in range(len(names)) if i not in split]
    if found is None or any(_may_be_of(values, others) for values in categories):
        raise not_known_which([names[i] for i in split], len(categories))
    return _Learned(
        {i: pd.Index(values) for i, values in found.items()},
        names,
        lenient=True,
        seen={i: frozenset(ranges[i]["values"]) - {-1} for i in found},
    )


_CONSTANT: dict[str, Any] = {"min_value": 0, "max_value": 0, "values": []}
"""Of a feature that has one value, of which LightGBM says nothing."""


_ADVICE = (
    "train it without categorical_feature, on columns of the pandas type category that are not "
    "ordered (X[column].astype('category')), or encode the columns before it in a Pipeline, with "
    "an OrdinalEncoder"
)
_NOT_STORED = "and it does not store which values belong to which column"


def not_known_which(split: list[str], count: int) -> ExportError:
    """The error that the columns of LightGBM's categories are not known.

    Args:
        split: the columns that it splits by category.
        count: how many columns of the pandas type it was trained on.
    """
    what = "column" if count == 1 else "columns"
    return ExportError(
        f"LightGBM was trained on {count} {what} of the pandas type category and splits "
        f"{listed(split) or 'none'} by category, {_NOT_STORED}: {_ADVICE}"
    )


def of_another_column(column: str, values: Any) -> NoSuchRowError:
    """The error that LightGBM's categories are not those of this column."""
    return NoSuchRowError(
        f"column {column!r} does not hold the categories "
        f"{listed([str(value) for value in values])}, which LightGBM learned from a column "
        f"of the pandas type category, {_NOT_STORED}: {_ADVICE}"
    )


def check_columns(anatomy: Anatomy, schema: Schema, frame: pd.DataFrame) -> None:
    """Check against the data that a booster's categories are those of the columns that they were
    given to.

    Raises:
        NoSuchRowError: they are those of another column.
    """
    found, _ = columns_of(frame, schema)
    for branch in anatomy.leaves():
        encoder = branch.encoder
        if not isinstance(encoder, PandasCategories) or branch.columns[0] >= len(found):
            continue
        if encoder.wrong_for(found[branch.columns[0]]):
            raise of_another_column(schema.columns[branch.columns[0]].name, encoder.values)


def _in_order(
    split: list[int], categories: list[Any], ranges: Mapping[int, Any]
) -> dict[int, Any] | None:
    """Position → its categories; None unless there is exactly one way to give each list of
    categories to one of the columns that are split by category, in their order."""
    ways = []
    for columns, lists in ((split, categories), (split[::-1], categories[::-1])):
        left, found = iter(columns), []
        for values in lists:
            at = next((i for i in left if ranges[i]["max_value"] < len(values)), None)
            if at is None:
                return None
            found.append(at)
        ways.append(found)
    first, last = ways[0], ways[1][::-1]
    return dict(zip(first, categories, strict=True)) if first == last else None


def _may_be_of(values: Any, others: list[Any]) -> bool:
    """Whether these categories, in another order, are the numbers that stand for them, so that no
    data shows it if they are those of one of the columns that are not split by category."""
    count = len(values)
    if list(values) == list(range(count)) or set(values) != set(range(count)):
        return False
    return any(
        one["min_value"] >= 0 and one["max_value"] < count and one["max_value"] % 1 == 0
        for one in others
    )


def _categorical_features(booster: Any) -> list[int]:
    """Positions of the features that are split by category, from the model's saved parameters."""
    prefix = "[categorical_feature:"
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith(prefix):
            return sorted(int(i) for i in line.removeprefix(prefix).rstrip("]").split(",") if i)
    return []
