"""The known traps of sklearn-onnx: each is caught by the gate, or mended by float64, and never
served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from model_export.prove.prove import GateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IRIS = load_iris()


def with_gaps(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Two numbers, one missing in a fifth of the rows; a missing one means the second class."""
    frame = pd.DataFrame({"a": rng.normal(size=400), "b": rng.normal(size=400)})
    frame.loc[rng.random(400) < 0.2, "a"] = np.nan
    return frame, np.where(frame["a"].isna() | (frame["a"] < -0.5), 1, 0)


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(random_state=0),
        RandomForestClassifier(20, random_state=0),
        ExtraTreesClassifier(20, random_state=0),
        RandomForestRegressor(20, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(), 5, random_state=0),
        make_pipeline(StandardScaler(), ExtraTreesRegressor(20, random_state=0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_trained_on_nan_send_it_where_they_learned(
    model: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """The converter sends every NaN to the right (sklearn-onnx#1253); the proof, which holds rows
    with null, passes for the sides that the trees learned."""
    frame, labels = with_gaps(np.random.default_rng(1))
    model.fit(frame, labels)
    assert model.predict(pd.DataFrame({"a": [np.nan], "b": [0.0]}))[0] > 0.9

    bundle = export(save(model, frame))

    assert [entry["nullable"] for entry in bundle.manifest["inputs"]] == [True, False]


@pytest.mark.parametrize(
    ("function", "model"),
    [
        (np.log1p, RandomForestClassifier(20, random_state=0)),
        (np.log, DecisionTreeClassifier(random_state=0)),
        (np.sqrt, RandomForestRegressor(20, random_state=0)),
        (np.log2, BaggingClassifier(DecisionTreeClassifier(), 5, random_state=0)),
        (np.log, LogisticRegression()),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_logarithm_of_a_negative_number_reaches_trees_as_nan(
    function: Any, model: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Trees trained on whole numbers answer for it, and the graph as they do; other estimators
    refuse such rows, which the proof then leaves out."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"income": rng.lognormal(3, 1, 400), "age": rng.uniform(18, 90, 400)})
    labels = (np.log(frame["income"]) + frame["age"] / 40 > 4.3).astype(int)
    step = ColumnTransformer(
        [("log", FunctionTransformer(function), ["income"])], remainder="passthrough"
    )

    bundle = export(save(make_pipeline(step, model).fit(frame, labels), frame))

    assert bundle.manifest["parity"]["label_mismatches"] == 0
    assert [entry["nullable"] for entry in bundle.manifest["inputs"]] == [False, False]


def test_trees_that_merely_could_take_nan_get_no_nullable_column(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Trained without a null and signed as required: the model would answer for NaN, but the server
    never lets one in."""
    frame, labels = with_gaps(np.random.default_rng(1))
    whole = frame.dropna()
    model = DecisionTreeClassifier(random_state=0).fit(whole, labels[whole.index])

    bundle = export(save(model, whole))

    assert [entry["nullable"] for entry in bundle.manifest["inputs"]] == [False, False]


def test_a_column_whose_null_the_model_refuses_is_not_nullable(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """required=False in the signature is no proof: where the registered model raises on null, null
    is not legal."""
    frame, labels = with_gaps(np.random.default_rng(1))
    whole = frame.dropna()
    model = LogisticRegression().fit(whole, labels[whole.index])

    bundle = export(save(model, whole, signature=infer_signature(frame, labels)))

    assert bundle.inputs("a")["nullable"] is False


def scaled_forest() -> Any:
    """The trap: float32 scaling moves values across thresholds."""
    return make_pipeline(StandardScaler(), RandomForestClassifier(12, random_state=0)).fit(
        IRIS.data, IRIS.target
    )


def test_a_scaler_before_a_forest_is_refused_in_float32(
    save: Callable[..., Any], export: Callable[..., Any], tmp_path: Path
) -> None:
    """The rows around the thresholds find what float32 loses; the refusal names the scaler."""
    with pytest.raises(GateError, match=r"worst row \(thresholds\)") as refusal:
        export(save(scaled_forest(), IRIS.data), dtype="float32")

    assert "cause: a threshold that float32 cannot hold" in str(refusal.value)
    assert "values first differ at step 'standardscaler'" in str(refusal.value)
    assert not list((tmp_path / "bundles").glob("*/*"))


def test_a_scaler_before_a_forest_passes_in_float64(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """`auto` tries float64, whose arithmetic is scikit-learn's, and says why."""
    bundle = export(save(scaled_forest(), IRIS.data))

    assert bundle.manifest["dtype"] == "float64"
    assert bundle.manifest["parity"]["label_mismatches"] == 0
    assert bundle.manifest["parity"]["threshold_rows"] > 0
    assert "float32 differs" in bundle.output


def test_an_encoder_that_refuses_the_unknown_is_safe_behind_the_door(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """`handle_unknown="error"`: only known categories have an index, and null is not legal, so
    nothing reaches the encoder's error."""
    frame = pd.DataFrame(
        {"place": ["cliff", "marsh", "wood"] * 20, "wing": np.linspace(10, 30, 60)}
    )
    labels = np.where((frame["place"] == "marsh") | (frame["wing"] > 22), "tern", "auk")
    prepare = ColumnTransformer(
        [("names", OneHotEncoder(handle_unknown="error"), ["place"])], remainder="passthrough"
    )
    model = make_pipeline(prepare, DecisionTreeClassifier(random_state=0)).fit(frame, labels)

    bundle = export(save(model, frame))

    assert bundle.inputs("place")["categories"] == ["cliff", "marsh", "wood"]
    assert bundle.inputs("place")["nullable"] is False
    assert bundle.labels(frame) == labels.tolist()
    with pytest.raises(ValueError, match="unknown categories"):
        model.predict(pd.DataFrame({"place": ["moon"], "wing": [20.0]}))


def test_rows_that_the_server_refuses_do_not_reach_the_gate(
    save: Callable[..., Any], export: Callable[..., Any], tmp_path: Path
) -> None:
    """Infinity, a number beyond float32, a fraction in a column of integers, none of them is an
    answer to compare."""
    frame = pd.DataFrame({"a": np.linspace(0, 1, 20), "n": range(20)})
    model = DecisionTreeClassifier(random_state=0).fit(frame, [0, 1] * 10)
    rows = pd.DataFrame({"a": [0.5, np.inf, 1e39, 0.5, 0.25], "n": [1.0, 2.0, 3.0, 4.5, 5.0]})
    rows.to_csv(tmp_path / "rows.csv", index=False)

    bundle = export(save(model, frame), data=tmp_path / "rows.csv")

    assert "2 of them distinct (3 left out" in bundle.output
    assert (bundle.inputs("n")["minimum"], bundle.inputs("n")["maximum"]) == (1, 5)


def test_rows_with_unknown_categories_do_not_reach_the_gate(
    save: Callable[..., Any], export: Callable[..., Any], tmp_path: Path
) -> None:
    """The server refuses such rows, so the gate leaves them out, and says how many."""
    frame = pd.DataFrame({"place": ["cliff", "marsh", "wood"] * 20})
    model = make_pipeline(
        OneHotEncoder(handle_unknown="error"), DecisionTreeClassifier(random_state=0)
    ).fit(frame, [0, 1, 2] * 20)
    pd.DataFrame({"place": ["cliff", "moon", "wood"]}).to_csv(tmp_path / "birds.csv", index=False)

    bundle = export(save(model, frame), data=tmp_path / "birds.csv")

    assert "2 of them distinct (1 left out" in bundle.output


@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize(
    "labels", [IRIS.target == 1, np.where(IRIS.target == 1, 7, 3)], ids=["booleans", "integers"]
)
def test_a_binary_forest_keeps_its_classes_apart(
    kind: Any, labels: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """onnxruntime#28557: a runtime answered the wrong class for binary forests; both columns and
    every label must agree."""
    model = kind(15, random_state=0).fit(IRIS.data, labels)

    bundle = export(save(model, IRIS.data))

    index, probabilities = bundle.session.run(None, {"rows": IRIS.data.astype(np.float32)})
    assert np.array_equal(model.classes_[index], model.predict(IRIS.data))
    assert probabilities.shape == (150, 2)
    assert np.abs(probabilities - model.predict_proba(IRIS.data)).max() <= 1e-6


@pytest.mark.parametrize(
    "labels", [IRIS.target == 1, IRIS.target], ids=["two classes", "three classes"]
)
def test_a_tied_vote_is_decided_as_the_registered_model_decides_it(
    labels: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Leaves of 0.01 added in float32 make half a forest outvote the other half; undivided leaves
    tie, and the first class wins."""
    model = RandomForestClassifier(100, random_state=0).fit(IRIS.data, labels)
    bundle = export(save(model, IRIS.data), gate_rows=30_000)

    assert bundle.manifest["parity"]["ties"] > 50
    assert bundle.manifest["parity"]["tie_mismatches"] == 0
    assert bundle.manifest["parity"]["max_abs_diff"] < 1.5e-7
