"""Classifiers that were trained on rows of a single class: exported as a constant with a warning,
or refused where their probabilities are not one per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable

X = pd.DataFrame(np.random.default_rng(3).normal(size=(120, 2)), columns=["wing", "weight"])
ONLY = np.array(["tern"] * len(X))


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3),
        make_pipeline(StandardScaler(), AdaBoostClassifier(n_estimators=2)),
        RidgeClassifier(),
        VotingClassifier(
            [("trees", DecisionTreeClassifier()), ("near", KNeighborsClassifier())], voting="soft"
        ),
    ],
    ids=["forest", "boosted in a pipeline", "without probabilities", "vote"],
)
def test_the_class_is_answered_for_every_row(
    model: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """And the bundle warns of it."""
    folder = save(model.fit(X, ONLY), X, serialization_format="cloudpickle")
    bundle = export(folder, gate_rows=1_000)

    assert bundle.manifest["classes"] == ["tern"]
    assert bundle.labels(X[:3]) == ["tern"] * 3
    assert "a single class and answers 'tern'" in bundle.manifest["parity"]["warnings"][0]
    if hasattr(model, "predict_proba"):
        _, probabilities = bundle.answer({"wing": 1.0, "weight": -1e30})
        assert probabilities.tolist() == [[1.0]]


def test_probabilities_of_classes_that_it_does_not_know_are_refused(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A HistGradientBoostingClassifier of one class answers two of them."""
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, ONLY)
    folder = save(model, X, serialization_format="cloudpickle")
    with pytest.raises(ExportError, match="answers 2 probabilities per row and has 1 class: tra"):
        export(folder, gate_rows=1_000)
