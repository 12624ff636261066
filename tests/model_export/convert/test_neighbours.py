"""Nearest neighbours answer as scikit-learn's, also between two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnxruntime import InferenceSession
from sklearn.datasets import make_classification
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from model_export.convert import neighbours
from model_export.convert.block import ELEMENT, Block
from model_export.convert.graph import GraphBuilder

X, Y = make_classification(
    200, 6, n_informative=5, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=1
)
BETWEEN = X[:-1] * (0.5 + 1e-12) + X[1:] * (0.5 - 1e-12)
ROWS = np.vstack([X, BETWEEN, X * 30.0])
"""Rows of the training, at distance 0; rows between two of them, a very little nearer to one; far
ones."""


def answers(convert: Any, estimator: Any) -> Any:
    """Of the graph, for `ROWS`."""
    builder = GraphBuilder()
    found = convert(Block(builder, "rows", 6, "float64"), estimator)
    builder.node("Identity", found.name, output="found")
    element = ELEMENT["float64"]
    rows = helper.make_tensor_value_info("rows", element, ["N", 6])
    output = helper.make_tensor_value_info("found", element, ["N", found.width])
    model = builder.build([rows], [output]).SerializeToString()
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"rows": ROWS})[0]


SETTINGS: dict[str, Any] = {
    "default": {},
    "by distance": {"weights": "distance"},
    "manhattan": {"p": 1, "weights": "distance"},
    "chebyshev": {"metric": "chebyshev", "weights": "distance"},
    "one": {"n_neighbors": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_shares_of_the_classes_are_scikit_learns(name: str) -> None:
    """The same neighbours: with another one a share would differ by a fifth."""
    model = KNeighborsClassifier(**SETTINGS[name]).fit(X, Y)
    assert neighbours.is_known(model)
    expected = model.predict_proba(ROWS)
    np.testing.assert_allclose(answers(neighbours.shares, model), expected, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_values_are_scikit_learns(name: str) -> None:
    """Of one target, and of two."""
    for targets in (X[:, 0], X[:, :2]):
        model = KNeighborsRegressor(**SETTINGS[name]).fit(X, targets)
        assert neighbours.is_known(model)
        expected = model.predict(ROWS).reshape(len(ROWS), -1)
        np.testing.assert_allclose(answers(neighbours.values, model), expected, atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(metric="cosine").fit(X, Y),
        KNeighborsClassifier(weights=lambda distance: 1.0 / (1.0 + distance)).fit(X, Y),
        KNeighborsClassifier().fit(X, np.column_stack([Y, Y])),
        KNeighborsRegressor().fit(np.zeros((6_000, 2)), np.zeros(6_000)),
        KNeighborsRegressor().fit(np.zeros((9, 80)), np.zeros(9)),
    ],
    ids=["metric", "weights", "targets", "rows", "columns"],
)
def test_others_are_left_to_skl2onnx(model: Any) -> None:
    """Or to its refusal."""
    assert not neighbours.is_known(model)
