"""Inputs that are no usual table, as people log them: each is exported with equal answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_a_vector_is_a_table_of_one_column(
    dtype: str, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """IsotonicRegression takes a vector, which the signature says; a row holds one number."""
    x = np.repeat(np.arange(150.0), 2).astype(dtype)
    model = IsotonicRegression(out_of_bounds="clip").fit(x, np.sqrt(x))

    bundle = export(save(model, x, serialization_format="cloudpickle"))

    (column,) = bundle.manifest["inputs"]
    assert (column["name"], bundle.manifest["task"]) == ("x0", "regression")


@pytest.mark.parametrize(
    "member",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(3, max_depth=3, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_members_that_have_items_are_each_one_member(
    member: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """NumPy takes a Pipeline or a forest for a list of its parts."""
    x, y = load_iris(as_frame=True, return_X_y=True)
    model = BaggingClassifier(member, 3, max_features=0.5, random_state=0).fit(x, y)

    bundle = export(save(model, x))

    assert bundle.manifest["task"] == "classification"


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()])
def test_flags_of_missing_text_are_encoded_with_it(
    encoder: Any,
    birds: pd.DataFrame,
    save: Callable[..., Any],
    export: Callable[..., Any],
) -> None:
    """An imputer with `add_indicator` gives its encoder more columns than the row has."""
    fill = SimpleImputer(strategy="constant", fill_value="none", add_indicator=True)
    label = np.where(birds["ring"].isna(), "none", birds["place"])
    rings = make_column_transformer((make_pipeline(fill, encoder), ["place", "ring"]))
    model = make_pipeline(rings, LogisticRegression()).fit(birds, label)

    bundle = export(save(model, birds))

    inputs = {column["name"]: column for column in bundle.manifest["inputs"]}
    assert inputs["ring"]["nullable"]
    # "none" is what stands for null, so the encoder knows it.
    assert inputs["ring"]["categories"] == ["blue", "none", "red"]
