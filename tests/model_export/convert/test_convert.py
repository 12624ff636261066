"""The packed graph answers what the estimator answers, for all kinds of inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()


def bird_pipeline(model: Any, *, scale: bool = False, encoder: Any = None) -> Pipeline:
    """Imputers, perhaps a scaler, an encoder for the names, the rest as it is."""
    numbers = [SimpleImputer(strategy="median"), *([StandardScaler()] if scale else [])]
    names = make_pipeline(
        SimpleImputer(strategy="most_frequent"), encoder or OneHotEncoder(handle_unknown="ignore")
    )
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(*numbers), ["wing", "weight"]),
            ("names", names, ["place", "ring"]),
        ],
        remainder="passthrough",
    )
    return Pipeline([("prepare", prepare), ("model", model)])


@pytest.mark.parametrize(
    "labels",
    [IRIS.target_names[IRIS.target], IRIS.target, IRIS.target * 10 - 10, IRIS.target == 1],
    ids=["strings", "integers", "integers with gaps", "booleans"],
)
@pytest.mark.parametrize(
    "model",
    [RandomForestClassifier(9, random_state=0), LogisticRegression(max_iter=500)],
    ids=["forest", "linear"],
)
def test_labels_come_back_as_they_were_trained(
    model: Any, labels: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Strings, integers and booleans: `classes` holds them, the graph answers their index,
    probabilities in the same order."""
    model = model.fit(IRIS.data, labels)

    bundle = export(save(model, IRIS.data))

    index, probabilities = bundle.session.run(
        None, {"rows": IRIS.data.astype(bundle.manifest["dtype"])}
    )
    assert bundle.manifest["classes"] == model.classes_.tolist()
    assert np.array_equal(model.classes_[index], model.predict(IRIS.data))
    assert np.abs(probabilities - model.predict_proba(IRIS.data)).max() < 1e-5


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        RandomForestRegressor(7, random_state=0),
        SVR(),
        make_pipeline(MinMaxScaler(), Ridge()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_regressor_answers_one_value_per_row(
    model: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """`value` is [N], and within 1e-5 of the model's."""
    x, y = IRIS.data[:, :3], IRIS.data[:, 3]
    model.fit(x, y)

    bundle = export(save(model, x))

    (value,) = bundle.session.run(None, {"rows": x.astype(bundle.manifest["dtype"])})
    assert bundle.manifest["outputs"] == ["value"]
    assert bundle.manifest["classes"] == []
    assert value.shape == (150,)
    assert np.abs(value - model.predict(x)).max() < 1e-5


def test_a_regressor_of_several_targets_answers_a_matrix(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """`value` is [N, K] where the model has K targets."""
    model = LinearRegression().fit(IRIS.data[:, :2], IRIS.data[:, 2:])

    bundle = export(save(model, IRIS.data[:, :2]))

    assert bundle.session.run(None, {"rows": IRIS.data[:9, :2].astype(bundle.manifest["dtype"])})[
        0
    ].shape == (9, 2)
    assert len(bundle.manifest["golden"][0]["prediction"]) == 2


@pytest.mark.parametrize(
    ("model", "scale"),
    [
        (LogisticRegression(max_iter=2000), True),
        (RandomForestClassifier(20, random_state=0), False),
        (GradientBoostingClassifier(n_estimators=5, random_state=0), False),
        (SVC(), True),
        (CalibratedClassifierCV(SVC(), ensemble=False), True),
        (OneVsRestClassifier(LogisticRegression(max_iter=2000)), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_pipeline_with_names_and_missing_values(
    model: Any,
    scale: bool,
    birds: pd.DataFrame,
    species: Any,
    save: Callable[..., Any],
    export: Callable[..., Any],
) -> None:
    """Every bird, missing values and all, gets the pipeline's label."""
    pipeline = bird_pipeline(model, scale=scale).fit(birds, species)

    bundle = export(save(pipeline, birds))

    assert bundle.labels(birds) == pipeline.predict(birds).tolist()
    assert [entry["name"] for entry in bundle.manifest["inputs"]] == list(birds.columns)
    assert [entry["kind"] for entry in bundle.manifest["inputs"]] == [
        "number",
        "number",
        "integer",
        "boolean",
        "category",
        "category",
    ]
    assert [entry["nullable"] for entry in bundle.manifest["inputs"]] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=90),
        OneHotEncoder(drop="first"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ],
    ids=["infrequent", "drop", "ordinal"],
)
def test_any_encoder_is_tabulated(
    encoder: Any,
    birds: pd.DataFrame,
    species: Any,
    save: Callable[..., Any],
    export: Callable[..., Any],
) -> None:
    """What ONNX's operators cannot say about an encoder, a table of its own answers can."""
    pipeline = bird_pipeline(RandomForestClassifier(9, random_state=0), encoder=encoder).fit(
        birds, species
    )

    bundle = export(save(pipeline, birds))

    assert bundle.labels(birds) == pipeline.predict(birds).tolist()


def test_an_encoder_that_learned_nan_makes_its_column_nullable(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """NaN among the categories is null, not a category."""
    frame = pd.DataFrame({"ring": ["red", None, "blue", "red", None, "blue"] * 5})
    model = make_pipeline(OneHotEncoder(), DecisionTreeClassifier(random_state=0)).fit(
        frame, [0, 1, 2] * 10
    )

    bundle = export(save(model, frame))

    assert bundle.inputs("ring")["categories"] == ["blue", "red"]
    assert bundle.inputs("ring")["nullable"] is True
    assert bundle.labels(frame) == model.predict(frame).tolist()


def test_encoded_integers_are_categories(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """An integer column behind an encoder keeps its values as categories; another one stays an
    integer."""
    frame = pd.DataFrame({"zone": [10, 20, 30, 40] * 20, "count": np.arange(80)})
    labels = np.where((frame["zone"] > 20) ^ (frame["count"] > 40), "up", "down")
    prepare = ColumnTransformer([("zone", OneHotEncoder(), ["zone"])], remainder="passthrough")
    model = make_pipeline(prepare, DecisionTreeClassifier(random_state=0)).fit(frame, labels)

    bundle = export(save(model, frame))

    assert bundle.inputs("zone")["categories"] == [10, 20, 30, 40]
    assert bundle.inputs("count")["kind"] == "integer"
    assert bundle.labels(frame) == labels.tolist()


def test_an_encoded_boolean_stays_a_boolean(
    birds: pd.DataFrame, species: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """True and false behind an encoder are sent as true and false."""
    frame = birds[["tame", "eggs"]]
    prepare = ColumnTransformer([("flag", OneHotEncoder(), ["tame"])], remainder="passthrough")
    model = make_pipeline(prepare, DecisionTreeClassifier(random_state=0, max_depth=4)).fit(
        frame, species
    )

    bundle = export(save(model, frame))

    assert bundle.inputs("tame")["kind"] == "boolean"
    assert "categories" not in bundle.inputs("tame")
    assert bundle.labels(frame) == model.predict(frame).tolist()


@pytest.mark.parametrize("place", [0, 2, 6], ids=["first", "between", "last"])
def test_a_text_that_nothing_reads_next_to_categories(
    place: int,
    birds: pd.DataFrame,
    species: Any,
    save: Callable[..., Any],
    export: Callable[..., Any],
) -> None:
    """A table with names or ticket numbers that a ColumnTransformer drops, and encoded columns."""
    frame = birds.copy()
    frame.insert(place, "name", [f"bird {i}" for i in range(len(frame))])
    prepare = ColumnTransformer(
        [
            ("places", OneHotEncoder(handle_unknown="ignore"), ["place", "tame"]),
            ("rings", OrdinalEncoder(), ["ring"]),
            ("numbers", SimpleImputer(), ["weight"]),
        ]
    )
    tree = DecisionTreeClassifier(max_depth=4, random_state=0)
    model = make_pipeline(prepare, SimpleImputer(), tree).fit(frame, species)

    bundle = export(save(model, frame))

    assert bundle.manifest["ignored"] == [{"name": "name", "type": "string"}]
    assert bundle.inputs("place")["categories"] == ["cliff", "marsh", "wood"]
    assert bundle.labels(frame) == model.predict(frame).tolist()


def test_an_encoder_after_bins_reads_numbers(
    birds: pd.DataFrame, species: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """The bins that the encoder has learned are no categories of the column."""
    frame = birds[["wing", "eggs"]]
    bins = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")
    prepare = ColumnTransformer(
        [("bins", make_pipeline(bins, OneHotEncoder(handle_unknown="ignore")), ["wing"])],
        remainder="passthrough",
    )
    model = make_pipeline(prepare, LogisticRegression()).fit(frame, species)

    bundle = export(save(model, frame))

    assert bundle.inputs("wing")["kind"] == "number"
    assert bundle.labels(frame) == model.predict(frame).tolist()


@pytest.mark.parametrize(
    "model", [RidgeClassifier(), LinearSVC(), SVC()], ids=lambda model: type(model).__name__
)
def test_a_classifier_without_probabilities_answers_labels_only(
    model: Any, save: Any, export: Any
) -> None:
    """`outputs` is ["label"], and no golden row has probabilities."""
    model.fit(IRIS.data, IRIS.target)

    bundle = export(save(model, IRIS.data))

    assert bundle.manifest["outputs"] == ["label"]
    assert "probabilities" not in bundle.manifest["golden"][0]
    assert (
        bundle.session.run(None, {"rows": IRIS.data.astype(bundle.manifest["dtype"])})[0].tolist()
        == model.predict(IRIS.data).tolist()
    )


def test_a_model_on_an_unnamed_matrix_gets_names(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """`named` is false and the columns are x0, x1, …; the matrix goes to the model as it is."""
    model = DecisionTreeClassifier(random_state=0).fit(IRIS.data, IRIS.target)

    bundle = export(save(model, IRIS.data))

    assert bundle.manifest["named"] is False
    assert [entry["name"] for entry in bundle.manifest["inputs"]] == ["x0", "x1", "x2", "x3"]


def test_a_model_without_a_signature_is_read_from_its_training(save: Any, export: Any) -> None:
    """Names where it was fitted on a table; every column a number."""
    frame = pd.DataFrame(IRIS.data, columns=["a", "b", "c", "d"])
    model = LogisticRegression(max_iter=500).fit(frame, IRIS.target)

    bundle = export(save(model, frame, signature=False))

    assert [(entry["name"], entry["kind"]) for entry in bundle.manifest["inputs"]] == [
        (name, "number") for name in "abcd"
    ]
    assert bundle.labels(frame) == model.predict(frame).tolist()


def test_the_graph_holds_no_string(
    birds: pd.DataFrame, species: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Neither categories nor labels are strings in the graph: none is made per row."""
    import onnx

    model = bird_pipeline(RandomForestClassifier(3, random_state=0)).fit(birds, species)
    graph = onnx.load(export(save(model, birds)).folder / "model.onnx").graph

    assert not any(tensor.data_type == onnx.TensorProto.STRING for tensor in graph.initializer)
    assert not any(
        attribute.name.endswith("_strings") for node in graph.node for attribute in node.attribute
    )
