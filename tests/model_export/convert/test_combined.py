"""Estimators that combine others, and wrappers, answer as scikit-learn's: over Pipelines with text,
over forests, and inside one another."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_sampling_pipeline
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_export.convert.model import convert_model
from model_export.errors import ExportError
from model_export.study.anatomy import dissect
from model_export.study.answers import describe_answers
from model_export.study.categories import find_categories
from model_export.study.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 300
X, TWO = make_classification(ROWS, 6, n_informative=5, n_redundant=0, random_state=1)
_, THREE = make_classification(
    ROWS, 6, n_informative=5, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=1
)
NAMES = np.array(["auk", "gull", "tern"])[THREE]
VALUES = np.abs(X[:, 0]) * 2.0 + np.abs(X[:, 1]) + 0.5
WIDER = np.vstack([X, X[::-1] * 2.0 + 0.1])
LINEAR = LogisticRegression()
SCALED = make_pipeline(StandardScaler(), LogisticRegression())
FOREST = RandomForestClassifier(15, random_state=0)
FRAME = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)]).assign(
    place=np.array(["cliff", "marsh", "wood"])[np.arange(ROWS) % 3]
)


def session_of(model: Any, schema: Schema, dtype: Any = "float64") -> ort.InferenceSession:
    """The converted model."""
    anatomy = dissect(model, schema.names)
    schema = find_categories(schema, anatomy)
    graph = convert_model(anatomy, schema, describe_answers(model), dtype)
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def numbers(width: int) -> Schema:
    """A schema of an unnamed matrix."""
    columns = tuple(Column(f"x{i}", "number", "float64") for i in range(width))
    return Schema(columns, named=False, matrix_dtype="float64")


def check(model: Any, rows: Any = WIDER, *, dtype: str = "float64", atol: float = 1e-9) -> None:
    """Labels are equal, and numbers close."""
    found = session_of(model, numbers(rows.shape[1]), dtype).run(None, {"rows": rows.astype(dtype)})
    compare(model, rows.astype(dtype).astype(float), found, atol)


def compare(model: Any, rows: Any, found: list[Any], atol: float) -> None:
    """The graph's answers with the model's."""
    expected = np.asarray(model.predict(rows))
    if not hasattr(model, "classes_"):
        values = found[0].reshape(len(rows), -1)
        np.testing.assert_allclose(values, expected.reshape(len(rows), -1), rtol=atol, atol=atol)
        return
    assert np.array_equal(np.asarray(model.classes_)[found[0]], expected)
    assert len(found) == 1 + hasattr(model, "predict_proba")
    if len(found) == 2:
        np.testing.assert_allclose(found[1], model.predict_proba(rows), atol=atol)


CLASSIFIERS = {
    "grid": (GridSearchCV(LINEAR, {"C": [0.1, 1.0]}, cv=2), TWO),
    "random": (RandomizedSearchCV(SCALED, {"logisticregression__C": [1.0]}, n_iter=1, cv=2), NAMES),
    "halving": (HalvingGridSearchCV(LINEAR, {"C": [0.1, 1.0]}, cv=2, random_state=0), TWO),
    "sampler": (
        make_sampling_pipeline(StandardScaler(), RandomOverSampler(random_state=0), LINEAR),
        NAMES,
    ),
    "search of a sampler": (
        GridSearchCV(
            make_sampling_pipeline(RandomOverSampler(random_state=0), LINEAR),
            {"logisticregression__C": [1.0]},
            cv=2,
        ),
        TWO,
    ),
    "calibrated": (CalibratedClassifierCV(LINEAR, cv=2), TWO),
    "calibrated pipelines": (CalibratedClassifierCV(SCALED, cv=3), NAMES),
    "calibrated decisions": (CalibratedClassifierCV(LinearSVC(), cv=2), NAMES),
    "isotonic": (CalibratedClassifierCV(SCALED, method="isotonic", cv=2), TWO),
    "isotonic of three": (CalibratedClassifierCV(LINEAR, method="isotonic", cv=2), THREE),
    "isotonic forest": (CalibratedClassifierCV(FOREST, method="isotonic", cv=2), TWO),
    "isotonic forest of three": (CalibratedClassifierCV(FOREST, method="isotonic", cv=2), NAMES),
    "temperature": (CalibratedClassifierCV(LINEAR, method="temperature", cv=2), THREE),
    "temperature of two": (CalibratedClassifierCV(GaussianNB(), method="temperature", cv=2), TWO),
    "one each": (OneVsRestClassifier(LINEAR), NAMES),
    "one each of two": (OneVsRestClassifier(LinearSVC()), TWO),
    "one each of pipelines": (OneVsRestClassifier(SCALED), THREE),
    "one each of forests": (OneVsRestClassifier(FOREST), THREE),
    "pairs": (OneVsOneClassifier(LinearSVC()), NAMES),
    "pairs of pipelines": (OneVsOneClassifier(SCALED), THREE),
    "pairs of trees": (OneVsOneClassifier(DecisionTreeClassifier(max_depth=3)), THREE),
    "pairs of two": (OneVsOneClassifier(LINEAR), TWO),
    "codes": (OutputCodeClassifier(LINEAR, random_state=0), NAMES),
    "soft": (VotingClassifier([("a", SCALED), ("b", GaussianNB())], voting="soft"), NAMES),
    "soft weighted": (
        VotingClassifier([("a", LINEAR), ("b", FOREST)], voting="soft", weights=[2, 1]),
        TWO,
    ),
    "hard": (
        VotingClassifier([("a", LINEAR), ("b", RidgeClassifier()), ("c", SCALED), ("d", "drop")]),
        NAMES,
    ),
    "hard weighted": (
        VotingClassifier([("a", LINEAR), ("b", RidgeClassifier())], weights=[1, 3]),
        THREE,
    ),
    "stacked": (StackingClassifier([("a", SCALED), ("b", FOREST)], cv=2), TWO),
    "stacked through": (
        StackingClassifier([("a", LinearSVC()), ("b", LINEAR)], cv=2, passthrough=True),
        NAMES,
    ),
    "stacked labels": (
        StackingClassifier([("a", LINEAR)], stack_method="predict", cv=2),
        THREE,
    ),
    "bagged": (BaggingClassifier(SCALED, 4, random_state=0), NAMES),
    "bagged columns": (BaggingClassifier(LINEAR, 4, max_features=0.5, random_state=0), NAMES),
    "bagged labels": (BaggingClassifier(LinearSVC(), 4, random_state=0), NAMES),
    "threshold": (FixedThresholdClassifier(SCALED, threshold=0.3), TWO),
    "threshold in votes": (
        VotingClassifier([("a", FixedThresholdClassifier(LINEAR, threshold=0.2)), ("b", SCALED)]),
        TWO,
    ),
    "self-trained": (SelfTrainingClassifier(LINEAR), np.where(np.arange(ROWS) % 4, TWO, -1)),
    "eliminated": (RFE(LINEAR, n_features_to_select=3), NAMES),
    "float labels": (VotingClassifier([("a", LINEAR)], voting="soft"), TWO.astype(float)),
    "bool labels": (CalibratedClassifierCV(LINEAR, cv=2), TWO == 1),
    "balanced forest": (
        BalancedRandomForestClassifier(8, sampling_strategy="all", random_state=0),
        NAMES,
    ),
    "votes in a calibration": (
        CalibratedClassifierCV(
            VotingClassifier([("a", SCALED), ("b", LINEAR)], voting="soft"), cv=2
        ),
        TWO,
    ),
    "boosted": (
        CalibratedClassifierCV(
            make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=4)), cv=2
        ),
        TWO,
    ),
}
CLASSIFIERS |= {
    "adaptive": (AdaBoostClassifier(LINEAR, n_estimators=4), TWO),
    "adaptive of three": (AdaBoostClassifier(LINEAR, n_estimators=4), NAMES),
    "adaptive of boosted": (
        AdaBoostClassifier(HistGradientBoostingClassifier(max_iter=2), n_estimators=3),
        THREE,
    ),
    "adaptive of trees": (make_pipeline(StandardScaler(), AdaBoostClassifier()), NAMES),
    "adaptive, stacked": (
        StackingClassifier([("a", AdaBoostClassifier(LINEAR, n_estimators=3))], cv=2),
        NAMES,
    ),
}
EXACT = {"isotonic forest", "isotonic forest of three", "one each of forests", "soft weighted"}
"""They read a forest's probabilities, which are exact to 1e-14 there."""
LOOSE = {"balanced forest", "boosted", "soft", "temperature of two"}
"""They read what the runtime adds in float32."""


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier(name: str) -> None:
    """On the data and beyond it."""
    model, labels = CLASSIFIERS[name]
    tolerance = 1e-14 if name in EXACT else 2e-6 if name in LOOSE else 1e-9
    check(model.fit(X, labels), atol=tolerance)


PAIR = np.column_stack([VALUES, VALUES**2])
REGRESSORS = {
    "support vectors": (SVR(), 1),
    "cubic support vectors": (SVR(kernel="poly", coef0=0.5), 1),
    "linear support vectors": (NuSVR(kernel="linear"), 1),
    "sigmoid support vectors": (NuSVR(kernel="sigmoid"), 1),
    "support vectors, voting": (VotingRegressor([("a", SVR(kernel="poly"))]), 1),
    "transformed": (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), 1),
    "transformed pipeline": (
        TransformedTargetRegressor(
            make_pipeline(StandardScaler(), Ridge()), transformer=PowerTransformer()
        ),
        1,
    ),
    "transformed targets": (
        TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
        2,
    ),
    "mean": (VotingRegressor([("a", Ridge()), ("b", make_pipeline(StandardScaler(), Ridge()))]), 1),
    "weighted": (
        VotingRegressor(
            [("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))], weights=[1, 2]
        ),
        1,
    ),
    "stacked": (StackingRegressor([("a", Ridge()), ("b", LinearRegression())], cv=2), 1),
    "stacked trees": (
        StackingRegressor(
            [("a", RandomForestRegressor(30, random_state=0)), ("b", DecisionTreeRegressor())],
            final_estimator=RandomForestRegressor(10, random_state=0),
            cv=2,
        ),
        1,
    ),
    "several forests": (MultiOutputRegressor(RandomForestRegressor(7, random_state=0)), 2),
    "bagged forests of two targets": (
        BaggingRegressor(RandomForestRegressor(5, random_state=0), 2, random_state=0),
        2,
    ),
    "several targets": (MultiOutputRegressor(make_pipeline(StandardScaler(), Ridge())), 2),
    "chain": (RegressorChain(Ridge(), order=[1, 0]), 2),
    "bagged": (BaggingRegressor(make_pipeline(StandardScaler(), Ridge()), 4, random_state=0), 1),
    "consensus": (RANSACRegressor(Ridge(), min_samples=50, random_state=0), 1),
    "least squares": (PLSRegression(2), 1),
    "least squares of two": (PLSRegression(2), 2),
    "search": (GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2), 1),
    "function": (
        make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.log1p), Ridge()),
        1,
    ),
}


LOOSE_VALUES = {"stacked trees": 2e-6}


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(max_depth=5, random_state=0),
        RandomForestRegressor(9, max_depth=5, random_state=0),
    ],
    ids=["tree", "forest"],
)
def test_trees_of_two_targets(model: Any) -> None:
    """A value for each, in the runtime's float32."""
    targets = np.column_stack([VALUES, VALUES * 2.0 + 1.0])
    check(model.fit(X, targets), dtype="float32", atol=1e-6)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor(name: str) -> None:
    """One target or two."""
    model, targets = REGRESSORS[name]
    # The runtime itself adds the leaves of a forest that answers.
    check(model.fit(X, VALUES if targets == 1 else PAIR), atol=LOOSE_VALUES.get(name, 1e-9))


def encoding(model: Any, encoder: Any = None) -> Any:
    """A Pipeline that encodes the place."""
    prepare = make_column_transformer(
        (encoder or OneHotEncoder(handle_unknown="ignore"), ["place"]),
        (StandardScaler(), ["f0", "f2"]),
        ("passthrough", ["f1"]),
    )
    return make_pipeline(prepare, model)


TEXT = {
    "calibrated": CalibratedClassifierCV(encoding(LINEAR), cv=2),
    "soft": VotingClassifier(
        [("a", encoding(LINEAR)), ("b", encoding(LINEAR, OrdinalEncoder()))], voting="soft"
    ),
    "stacked": StackingClassifier([("a", encoding(LINEAR)), ("b", encoding(SCALED))], cv=2),
    "stacked through, encoded before": encoding(
        StackingClassifier([("a", LINEAR), ("b", SCALED)], cv=2, passthrough=True)
    ),
    "one each": OneVsRestClassifier(encoding(LINEAR)),
    "calibrated votes": CalibratedClassifierCV(
        VotingClassifier([("a", encoding(LINEAR))], voting="soft"), cv=2
    ),
    "union": make_pipeline(
        FeatureUnion(
            [
                ("a", make_column_transformer((OneHotEncoder(), ["place"]))),
                ("b", make_column_transformer((StandardScaler(), ["f0", "f3"]))),
            ],
            transformer_weights={"b": 0.5},
        ),
        LINEAR,
    ),
    "columns in columns": make_pipeline(
        make_column_transformer(
            (
                make_pipeline(
                    make_column_transformer(
                        (OneHotEncoder(), ["place"]), ("passthrough", ["f1", "f2"])
                    ),
                    StandardScaler(),
                ),
                ["f1", "f2", "place"],
            ),
            ("passthrough", ["f0"]),
        ),
        LINEAR,
    ),
    "search": GridSearchCV(encoding(LINEAR), {"logisticregression__C": [1.0]}, cv=2),
}


@pytest.mark.parametrize("name", TEXT)
def test_pipelines_that_encode_text_inside_other_estimators(name: str) -> None:
    """Each member has its own encoder; a category is an index in the request."""
    model = TEXT[name].fit(FRAME, NAMES)
    columns = [Column(f"f{i}", "number", "float64") for i in range(6)]
    schema = Schema((*columns, Column("place", "category", "str")), named=True)
    packed = np.column_stack([X, np.arange(ROWS) % 3]).astype(float)

    found = session_of(model, schema).run(None, {"rows": packed})

    compare(model, FRAME, found, 1e-9)


def test_a_target_transformed_around_text() -> None:
    """The Pipeline is inside the TransformedTargetRegressor, as scikit-learn's guide shows it."""
    model = TransformedTargetRegressor(encoding(Ridge()), func=np.log1p, inverse_func=np.expm1)
    model.fit(FRAME, VALUES)
    columns = [Column(f"f{i}", "number", "float64") for i in range(6)]
    schema = Schema((*columns, Column("place", "category", "str")), named=True)
    packed = np.column_stack([X, np.arange(ROWS) % 3]).astype(float)

    (found,) = session_of(model, schema).run(None, {"rows": packed})

    np.testing.assert_allclose(found, model.predict(FRAME), rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "labels", "named"),
    [
        (
            TransformedTargetRegressor(Ridge(), func=lambda y: y + 1, inverse_func=lambda y: y - 1),
            VALUES,
            "a function of your own cannot be converted",
        ),
        (
            MultiOutputClassifier(LINEAR),
            np.column_stack([TWO, THREE]),
            "train and register one model per target",
        ),
        (
            OneVsRestClassifier(LINEAR),
            np.column_stack([TWO, 1 - TWO]),
            "train and register one model per target",
        ),
    ],
    ids=["inverse", "several targets", "several labels"],
)
def test_what_cannot_be_combined_is_refused_with_what_to_do(
    model: Any, labels: Any, named: str
) -> None:
    """Not a traceback, and not another answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, labels)
    with pytest.raises(ExportError, match=named):
        session_of(model, numbers(6))


def test_an_estimator_that_combines_no_others_keeps_its_own_converter() -> None:
    """As before."""
    check(KNeighborsClassifier(5).fit(X, TWO), X, atol=1e-6)
    check(SVC().fit(X, NAMES), X)


def exported_as_the_model(
    name: str, model: Any, x: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> Any:
    """The bundle of a fitted model."""
    return export(save(model, x, name, serialization_format="cloudpickle"))


def test_a_model_that_overflows_far_from_the_data(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """exp(1e6) is infinite in both, and JSON has no infinity: no golden row holds it."""
    frame = FRAME.drop(columns="place")
    model = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)

    bundle = exported_as_the_model("far", model.fit(frame, VALUES), frame, save, export)

    assert all(np.isfinite(row["prediction"]) for row in bundle.manifest["golden"])


def test_the_whole_way_with_proof(save: Callable[..., Any], export: Callable[..., Any]) -> None:
    """Voting over Pipelines with text, in a calibration: the gate passes, and null stays legal."""
    frame = FRAME.copy()
    model = CalibratedClassifierCV(
        VotingClassifier([("a", encoding(LINEAR)), ("b", encoding(SCALED))], voting="soft"), cv=2
    ).fit(frame, NAMES)

    bundle = exported_as_the_model("whole", model, frame, save, export)

    assert bundle.labels(frame) == model.predict(frame).tolist()
    assert bundle.manifest["source"]["model_class"] == "CalibratedClassifierCV"
