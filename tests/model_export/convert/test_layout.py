"""A large forest is laid out for the cache, and answers as it did before, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from skl2onnx import to_onnx
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from model_export.convert import layout
from model_export.convert.forests import sum_undivided

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

RNG = np.random.default_rng(5)
X = np.vstack([RNG.integers(-3, 4, (400, 5)), RNG.normal(0, 1, (400, 5))]).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X.sum(axis=1) > 1)


def converted(estimator: Any) -> ModelProto:
    """As skl2onnx converts it, without ZipMap."""
    options = {"zipmap": False} if hasattr(estimator, "classes_") else None
    return to_onnx(estimator, X[:1], options=options, target_opset={"": 21, "ai.onnx.ml": 3})


def answers(model: ModelProto, rows: Any) -> list[Any]:
    """Whatever the model answers for these rows, in one batch."""
    return list(
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"X": rows}
        )
    )


def nodes(model: ModelProto) -> int:
    """How many nodes its ensemble has."""
    (ensemble,) = (node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    return next(
        len(helper.get_attribute_value(a)) for a in ensemble.attribute if a.name == "nodes_modes"
    )


def around_thresholds(model: ModelProto) -> Any:
    """Each threshold in each column, and its float32 neighbours, zeros of both signs among them."""
    (ensemble,) = (node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    values = next(
        helper.get_attribute_value(a) for a in ensemble.attribute if a.name == "nodes_values"
    )
    at = np.unique(np.asarray([*values, 0.0, 1e-45, -1e-45], dtype=np.float32))
    at = np.concatenate(
        [
            at,
            [np.float32(-0.0)],
            np.nextafter(at, np.float32(np.inf)),
            np.nextafter(at, np.float32(-np.inf)),
        ]
    )
    return np.ascontiguousarray(np.column_stack([RNG.permutation(at) for _ in range(X.shape[1])]))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        RandomForestClassifier(20, max_leaf_nodes=40, random_state=0),
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        RandomForestRegressor(20, random_state=0),
        ExtraTreesRegressor(20, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_answers_are_the_same_bits(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the data, at every threshold and right next to it, where an inverted comparison could go
    wrong."""
    monkeypatch.setattr(layout, "LARGE", 0)
    plain, laid_out = converted(estimator.fit(X, Y)), converted(estimator)
    layout.lay_out(laid_out)

    assert len(laid_out.graph.node) == len(plain.graph.node) + 2
    for rows in (X, around_thresholds(plain), X[:1]):
        assert all(map(np.array_equal, answers(plain, rows), answers(laid_out, rows)))


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(20, random_state=0), RandomForestRegressor(20, random_state=0)],
    ids=["classes", "values"],
)
def test_a_forest_laid_out_passes_the_gate(
    estimator: Any,
    save: Callable[..., Any],
    export: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a piece of the packed graph, around every threshold, in every batch size."""
    monkeypatch.setattr(layout, "LARGE", 0)

    bundle = export(save(estimator.fit(X, Y), X))

    assert bundle.manifest["parity"]["label_mismatches"] == 0
    names = [node.name for node in onnx.load(bundle.folder / "model.onnx").graph.node]
    assert any(name.endswith("_negate") for name in names)


def test_equal_leaves_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fully grown trees end in leaves of one class: a third of the nodes goes."""
    monkeypatch.setattr(layout, "LARGE", 0)
    model = converted(RandomForestClassifier(20, random_state=0).fit(X, Y))
    sum_undivided(model, 20)
    before = nodes(model)

    layout.lay_out(model)

    assert nodes(model) < 0.75 * before


def test_a_small_forest_stays_as_it_is() -> None:
    """It stays in the cache anyway, and two more operators would cost it more than it gains."""
    model = converted(RandomForestClassifier(20, random_state=0).fit(X, Y))
    before = model.SerializeToString(deterministic=True)

    layout.lay_out(model)

    assert model.SerializeToString(deterministic=True) == before


def test_trees_that_know_missing_values_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN fails every comparison, so a question must not be turned round where NaN may come."""
    monkeypatch.setattr(layout, "LARGE", 0)
    model = converted(RandomForestClassifier(5, random_state=0).fit(X, Y))
    (tracks,) = (
        a
        for node in model.graph.node
        for a in node.attribute
        if a.name == "nodes_missing_value_tracks_true"
    )
    tracks.ints[0] = 1
    before = model.SerializeToString(deterministic=True)

    layout.lay_out(model)

    assert model.SerializeToString(deterministic=True) == before
