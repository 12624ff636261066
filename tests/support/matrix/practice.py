"""Models as people register them: what the exporter met in practice."""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from support.matrix.case import Case, Group, Trained
from support.matrix.data import LABELS, named, numbers, values, with_gaps

_forest = {"n_estimators": 10, "random_state": 0}


def _fitted(model: Any, x: Any, y: Any, **options: Any) -> Trained:
    return Trained(model.fit(x, y), x, options=options)


def _log_with_dataset(name: str, model: Any, x: Any) -> None:
    """With the rows logged as a dataset, which MLflow stores without its values."""
    mlflow.log_input(mlflow.data.from_pandas(x))
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name=name,
        input_example=x,
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )


def logging() -> list[Case]:
    """How a model is logged."""
    group = Group("how a model is logged")

    @group.case
    def dataset_without_source() -> Trained:
        x, y = numbers()
        return Trained(LogisticRegression().fit(x, y), x, _log_with_dataset)

    @group.case
    def pickled_by_skops() -> Trained:
        x, y = numbers()
        return _fitted(LogisticRegression(), x, y, serialization_format="skops")

    @group.case
    def example_of_one_row() -> Trained:
        x, y = numbers()
        return _fitted(LogisticRegression(), x, y, input_example=x.head(1))

    @group.case
    def without_signature() -> Trained:
        x, y = numbers()
        return _fitted(LogisticRegression(), x, y, signature=None)

    @group.case
    def vector() -> Trained:
        x, y = values(columns=1)
        model = IsotonicRegression(out_of_bounds="clip")
        return _fitted(model, x["f0"].to_numpy(), y)

    @group.case
    def matrix() -> Trained:
        x, y = numbers()
        return _fitted(LogisticRegression(), x.to_numpy(), y)

    for function in ("predict_proba", "predict_log_proba", "decision_function"):
        group.add(f"answers-{function.replace('_', '-')}", _answering(function))
    return group.cases


def _answering(function: str) -> Any:
    def train() -> Trained:
        x, y = numbers()
        model = (
            LogisticRegression()
            if function == "decision_function"
            else RandomForestClassifier(**_forest)
        )
        return _fitted(model, x, y, pyfunc_predict_fn=function)

    return train


def labels() -> list[Case]:
    """Labels and names of columns."""
    group = Group("labels and names of columns")
    for kind, classes in LABELS.items():
        group.add(f"labels-{kind}", _labelled(classes))
    for what, names in {
        "quotes": ['screen 15"', "it's", "c", "d", "e", "f"],
        "blanks": ["a b", " c", "d ", "e", "f", "g"],
        "unicode": ["größe", "価格", "ж", "d", "e", "f"],
        "punctuation": ["a.b", "c[0]", "d<1", "e/f", "g\\h", "i,j"],
    }.items():
        group.add(f"columns-{what}", _columns(names))
    group.add("columns-integers", _columns(list(range(6))))

    @group.case
    def three_string_classes() -> Trained:
        x, y = numbers(3)
        return _fitted(RandomForestClassifier(**_forest), x, np.array(["a", "b", "c"])[y])

    @group.case
    def column_that_nothing_reads() -> Trained:
        x, y = numbers()
        x["customer"] = [f"c{i}" for i in range(len(x))]
        first = make_column_transformer((StandardScaler(), ["f0", "f1"]))
        return _fitted(make_pipeline(first, LogisticRegression()), x, y)

    @group.case
    def date_that_nothing_reads() -> Trained:
        x, y = numbers()
        x["day"] = pd.date_range("2020-01-01", periods=len(x))
        first = make_column_transformer((StandardScaler(), ["f0", "f1"]))
        return _fitted(make_pipeline(first, LogisticRegression()), x, y)

    @group.case
    def integers_and_booleans() -> Trained:
        x, y = numbers()
        x["f0"], x["f1"] = (x["f0"] * 3).round().astype(int), x["f1"] > 0
        return _fitted(RandomForestClassifier(**_forest), x, y)

    @group.case
    def five_hundred_columns() -> Trained:
        x = named(np.random.default_rng(0).normal(size=(300, 500)))
        return _fitted(LogisticRegression(), x, (x["f0"] > 0).astype(int))

    return group.cases


def _labelled(classes: Any) -> Any:
    def train() -> Trained:
        x, y = numbers()
        return _fitted(LogisticRegression(), x, classes[y])

    return train


def _columns(names: list[Any]) -> Any:
    def train() -> Trained:
        x, y = numbers()
        x.columns = pd.Index(names)
        return _fitted(LogisticRegression(), x, y)

    return train


def wrapped() -> list[Case]:
    """Models inside models."""
    group = Group("search, thresholds, calibration, voting, stacking")
    x, y = numbers()
    x3, y3 = numbers(3)
    logistic, forest = LogisticRegression, RandomForestClassifier(**_forest)
    pair = [("a", logistic()), ("b", GaussianNB())]
    trees = [("a", DecisionTreeClassifier(max_depth=4)), ("b", ExtraTreesClassifier(**_forest))]
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    grid, soft = {"C": [0.1, 1.0]}, {"voting": "soft"}
    for name, model, three in (
        ("grid-search", GridSearchCV(logistic(), grid, cv=3), False),
        ("random-search", RandomizedSearchCV(logistic(), grid, n_iter=2, cv=3), False),
        ("halving-search", HalvingGridSearchCV(logistic(), grid, cv=3, random_state=0), False),
        ("recursive-elimination", RFE(logistic(), n_features_to_select=3), False),
        ("recursive-elimination-cv", RFECV(logistic(), cv=3), False),
        ("frozen", FrozenEstimator(logistic().fit(x, y)), False),
        ("search-of-pipeline", GridSearchCV(scaled, {"logisticregression__C": [1.0]}), False),
        ("threshold-tuned", TunedThresholdClassifierCV(logistic(), cv=3), False),
        ("threshold-fixed", FixedThresholdClassifier(scaled, threshold=0.3), False),
        ("threshold-of-forest", FixedThresholdClassifier(forest, threshold=0.35), False),
        ("one-versus-one", OneVsOneClassifier(LinearSVC()), True),
        ("one-versus-rest-svc", OneVsRestClassifier(SVC()), True),
        ("calibrated-pipeline", CalibratedClassifierCV(scaled, cv=3), False),
        ("calibrated-svc", CalibratedClassifierCV(LinearSVC(), cv=3), False),
        ("calibrated-three", CalibratedClassifierCV(GaussianNB(), cv=3), True),
        ("calibrated-isotonic", CalibratedClassifierCV(logistic(), method="isotonic"), False),
        ("calibrated-forest", CalibratedClassifierCV(forest, method="isotonic", cv=3), False),
        ("voting-hard", VotingClassifier(pair), True),
        ("voting-soft", VotingClassifier(pair, **soft), True),
        ("voting-soft-weights", VotingClassifier(trees, weights=[1, 3], **soft), True),
        ("voting-hard-trees", VotingClassifier(trees), False),
        ("stacking", StackingClassifier(pair, cv=3), False),
        ("stacking-three", StackingClassifier(pair, cv=3), True),
        ("stacking-passthrough", StackingClassifier(pair, cv=3, passthrough=True), False),
        ("knn-with-ties", KNeighborsClassifier(), False),
        ("forest-with-gaps", RandomForestClassifier(**_forest), False),
        ("tree-with-gaps", DecisionTreeClassifier(max_depth=4), True),
        ("voting-trees-with-gaps", VotingClassifier(trees, **soft), False),
        ("bagging-of-pipelines", BaggingClassifier(scaled, 5, max_features=0.5), False),
    ):
        rows, target = (x3, y3) if three else (x, y)
        rows = (rows * 2).round() if name == "knn-with-ties" else rows
        rows = with_gaps(rows) if name.endswith("with-gaps") else rows
        group.add(name, lambda m=model, r=rows, t=target: _fitted(m, r, t))
    return [*group.cases, *_regressors()]


def _regressors() -> list[Case]:
    group = Group("targets: transformed, several, combined regressors")
    x, y = values()
    positive, (_, two) = np.abs(y) + 0.1, values(targets=2)
    pair = [("a", Ridge()), ("b", RandomForestRegressor(**_forest))]
    log = TransformedTargetRegressor(Ridge(alpha=10), func=np.log1p, inverse_func=np.expm1)
    root = TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square)
    standard = TransformedTargetRegressor(Ridge(), transformer=StandardScaler())
    forests = [("a", RandomForestRegressor(**_forest)), ("b", ExtraTreesRegressor(**_forest))]
    stack = StackingRegressor(forests, final_estimator=RandomForestRegressor(**_forest), cv=3)
    for name, model, target in (
        ("target-log", log, positive),
        ("target-root", root, positive),
        ("target-scaled", standard, y),
        ("voting-regressor", VotingRegressor(pair), y),
        ("stacking-regressor", StackingRegressor(pair, cv=3), y),
        ("stacking-forests", stack, y),
        ("search-of-regressor", GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}), y),
        ("two-targets-ridge", Ridge(), two),
        ("two-targets-forest", RandomForestRegressor(**_forest), two),
        ("two-targets-wrapped", MultiOutputRegressor(Ridge()), two),
        ("partial-least-squares", PLSRegression(), y),
    ):
        group.add(name, lambda m=model, t=target: _fitted(m, x, t))
    return group.cases
