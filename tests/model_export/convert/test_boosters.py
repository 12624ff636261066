"""Boosted trees answer as the library that trained them: every objective and form of tree, missing
values, categories, early stopping, and inside other estimators."""

import copy
import warnings

import catboost as cb
import lightgbm as lgb
import mlflow
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
import xgboost as xgb
from mlflow.models import infer_signature
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from model_export.convert.block import convert_piece
from model_export.convert.leaf import classifier_options
from model_export.errors import ExportError
from model_export.study.schema import read_schema

pytestmark = pytest.mark.filterwarnings(
    # The libraries' own use of pandas and of scikit-learn, whose future they follow by themselves.
    "ignore::pandas.errors.Pandas4Warning",
    "ignore:.*feature names.*:UserWarning",
    "ignore:.*Any type hint is inferred:UserWarning",
)
ROWS = 600
CAT = {"verbose": 0, "allow_writing_files": False, "n_estimators": 15}
LGB = {"verbose": -1, "n_estimators": 15}


def data(task):
    """A matrix with missing values, and "two" or "three" classes, "values" or "counts"."""
    if task in ("values", "counts"):
        x, y = make_regression(ROWS, 8, noise=5, random_state=1)
        y = np.abs(y) / 50 + 0.1 if task == "counts" else y
    else:
        classes = {"two": 2, "three": 3}[task]
        x, y = make_classification(
            ROWS, 8, n_informative=6, n_redundant=0, n_classes=classes, random_state=1
        )
    x = np.round(x, 2)
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    return x, y


def answers(model, rows, dtype):
    """Label and probabilities, or values, of the converted model."""
    options = classifier_options(model) if is_classifier(model) else {}
    graph = convert_piece("model", model, rows.shape[1], dtype, options)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"rows": rows.astype(dtype)})


def is_classifier(model):
    """CatBoost's regressors have an empty list of classes."""
    return len(getattr(model, "classes_", ())) > 0


def check(model, rows):
    """Both precisions answer as the model: labels equal, numbers within float32's rounding."""
    for dtype in ("float32", "float64"):
        asked = rows.astype(dtype)
        found = answers(model, rows, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing names of columns
            if is_classifier(model):
                labels = np.asarray(model.classes_)[found[0]]
                assert np.array_equal(labels, np.asarray(model.predict(asked)).ravel())
                np.testing.assert_allclose(found[1], model.predict_proba(asked), atol=1e-6)
            else:
                values = np.asarray(model.predict(asked), dtype=float).reshape(ROWS, -1)
                close = {"rtol": 1e-6, "atol": 1e-6 * np.abs(values).max()}
                np.testing.assert_allclose(found[0].reshape(ROWS, -1), values, **close)


MODELS = {
    "xgb": ("two", xgb.XGBClassifier(n_estimators=15)),
    "xgb-three": ("three", xgb.XGBClassifier(n_estimators=15)),
    "xgb-dart": ("three", xgb.XGBClassifier(n_estimators=15, booster="dart", rate_drop=0.2)),
    "xgb-base": ("two", xgb.XGBClassifier(n_estimators=15, base_score=0.3)),
    "xgb-forest": ("two", xgb.XGBRFClassifier(n_estimators=15)),
    "xgb-values": ("values", xgb.XGBRegressor(n_estimators=15)),
    "xgb-absolute": ("values", xgb.XGBRegressor(n_estimators=15, objective="reg:absoluteerror")),
    "xgb-forest-values": ("values", xgb.XGBRFRegressor(n_estimators=15)),
    "xgb-poisson": ("counts", xgb.XGBRegressor(n_estimators=15, objective="count:poisson")),
    "xgb-gamma": ("counts", xgb.XGBRegressor(n_estimators=15, objective="reg:gamma")),
    "lgb": ("two", lgb.LGBMClassifier(**LGB)),
    "lgb-three": ("three", lgb.LGBMClassifier(**LGB)),
    "lgb-ova": ("three", lgb.LGBMClassifier(**LGB, objective="multiclassova")),
    "lgb-dart": ("two", lgb.LGBMClassifier(**LGB, boosting_type="dart")),
    "lgb-forest": (
        "two",
        lgb.LGBMClassifier(**LGB, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
    ),
    "lgb-forest-values": (
        "values",
        lgb.LGBMRegressor(**LGB, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
    ),
    "lgb-without-missing": ("two", lgb.LGBMClassifier(**LGB, use_missing=False)),
    "lgb-values": ("values", lgb.LGBMRegressor(**LGB)),
    "lgb-sqrt": ("values", lgb.LGBMRegressor(**LGB, reg_sqrt=True)),
    "lgb-poisson": ("counts", lgb.LGBMRegressor(**LGB, objective="poisson")),
    "cat": ("two", cb.CatBoostClassifier(**CAT)),
    "cat-three": ("three", cb.CatBoostClassifier(**CAT)),
    "cat-ova": ("three", cb.CatBoostClassifier(**CAT, loss_function="MultiClassOneVsAll")),
    "cat-lossguide": ("three", cb.CatBoostClassifier(**CAT, grow_policy="Lossguide")),
    "cat-nan-max": ("two", cb.CatBoostClassifier(**CAT, nan_mode="Max")),
    "cat-values": ("values", cb.CatBoostRegressor(**CAT)),
    "cat-depthwise": ("values", cb.CatBoostRegressor(**CAT, grow_policy="Depthwise")),
    "cat-poisson": ("counts", cb.CatBoostRegressor(**CAT, loss_function="Poisson")),
    "hist": ("two", HistGradientBoostingClassifier(max_iter=15)),
    "hist-three": ("three", HistGradientBoostingClassifier(max_iter=15)),
    "hist-values": ("values", HistGradientBoostingRegressor(max_iter=15)),
    "hist-poisson": ("counts", HistGradientBoostingRegressor(max_iter=15, loss="poisson")),
    "hist-gamma": ("counts", HistGradientBoostingRegressor(max_iter=15, loss="gamma")),
}


@pytest.mark.parametrize(("task", "model"), MODELS.values(), ids=MODELS)
def test_every_objective_and_form_of_tree(task, model):
    """Missing values included."""
    rows, target = data(task)
    check(model.fit(rows, target), rows)


@pytest.mark.parametrize(
    "model",
    [
        xgb.XGBClassifier(n_estimators=15, missing=0.0),
        lgb.LGBMClassifier(**LGB, zero_as_missing=True),
    ],
    ids=["xgb", "lgb"],
)
def test_zeros_that_mean_missing(model):
    """As the user set it."""
    rows, target = data("two")
    rows = np.nan_to_num(rows)
    check(model.fit(rows, target), rows)


def test_labels_that_are_text():
    """The graph answers the index of the class."""
    rows, target = data("three")
    check(lgb.LGBMClassifier(**LGB).fit(rows, np.array(["a", "b", "c"])[target]), rows)


def test_several_targets():
    """One tree per target."""
    rows, target = data("values")
    model = xgb.XGBRegressor(n_estimators=15).fit(rows, np.c_[target, -target])
    check(model, rows)


def test_early_stopping_keeps_the_best_iteration():
    """Later trees are there, and do not answer."""
    rows, target = data("two")
    held, wanted = rows[400:], target[400:]
    model = xgb.XGBClassifier(n_estimators=99, learning_rate=0.9, early_stopping_rounds=3)
    model.fit(rows[:400], target[:400], eval_set=[(held, wanted)], verbose=False)
    check(model, rows)
    model = lgb.LGBMClassifier(n_estimators=99, learning_rate=0.9, verbose=-1)
    stop = lgb.early_stopping(3, verbose=False)
    model.fit(rows[:400], target[:400], eval_X=held, eval_y=wanted, callbacks=[stop])
    check(model, rows)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "xgboost-one-hot"])
def test_categories_that_are_numbers(library):
    """They are cut to whole numbers; negative ones and those not seen are in no set."""
    rows, target = data("two")
    draw = np.random.default_rng(2)
    rows[:, 0] = draw.integers(0, 12, ROWS)
    rows[::9, 0] = np.nan
    target = target ^ (rows[:, 0] % 3 == 1)
    if library == "lightgbm":
        model = lgb.LGBMClassifier(**LGB).fit(rows, target, categorical_feature=[0])
    else:
        kinds = {"feature_types": ["c"] + ["q"] * 7, "enable_categorical": True}
        one_hot = 99 if library == "xgboost-one-hot" else 1
        model = xgb.XGBClassifier(n_estimators=15, max_cat_to_onehot=one_hot, **kinds)
        model.fit(rows, target)
    rows[:50, 0] = draw.choice([-1.0, 1.5, 77.0, np.nan], 50)
    check(model, rows)


@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(xgb.XGBClassifier(n_estimators=9), cv=2),
        CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=9), cv=2),
        VotingClassifier(
            [("a", HistGradientBoostingClassifier(max_iter=9)), ("b", lgb.LGBMClassifier(**LGB))],
            voting="soft",
            flatten_transform=False,
        ),
        StackingClassifier(
            [("a", HistGradientBoostingClassifier(max_iter=9)), ("b", lgb.LGBMClassifier(**LGB))],
            LogisticRegression(),
            cv=2,
        ),
        OneVsRestClassifier(lgb.LGBMClassifier(**LGB)),
    ],
    ids=["calibrated-xgb", "calibrated-hist", "voting", "stacking", "one-vs-rest"],
)
def test_inside_other_estimators(model):
    """They are converted wherever they stand."""
    rows, target = data("three")
    check(model.fit(rows, target), rows)


def save(module, model, frame, folder, **more):
    """As MLflow's tutorials log it, with a signature and an example."""
    rows = xgb.DMatrix(frame) if isinstance(model, xgb.Booster) else frame
    signature = infer_signature(frame, model.predict(rows))
    module.save_model(model, str(folder), signature=signature, input_example=frame[:300], **more)
    return folder


@pytest.fixture(scope="module")
def frame():
    """Numbers with missing values, a category with a missing one, and two classes."""
    rows, target = data("two")
    table = pd.DataFrame(rows, columns=[f"c{i}" for i in range(8)])
    kinds = np.array(["red", "green", "blue", None], dtype=object)
    table["kind"] = kinds[np.random.default_rng(1).integers(0, 4, ROWS)]
    return table, ((table.kind == "red") ^ (target == 1)).astype(int)


@pytest.mark.slow
def test_the_flavours_of_mlflow(frame, export, tmp_path):
    """Each is exported with its proof; the wrapped booster answers values, as its pyfunc does."""
    table, target = frame[0].drop(columns="kind"), frame[1]
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(table, target), 9)
    for name, module, model in (
        ("xgboost", mlflow.xgboost, xgb.XGBClassifier(n_estimators=9).fit(table, target)),
        ("booster", mlflow.xgboost, booster),
        ("lightgbm", mlflow.lightgbm, lgb.LGBMClassifier(**LGB).fit(table, target)),
        ("catboost", mlflow.catboost, cb.CatBoostClassifier(**CAT).fit(table, target)),
    ):
        bundle = export(save(module, model, table, tmp_path / name))
        assert bundle.manifest["parity"]["label_mismatches"] == 0
        assert bundle.inputs("c0")["nullable"]
        expected = "regression" if name == "booster" else "classification"
        assert bundle.manifest["task"] == expected


@pytest.mark.parametrize("native", [True, False], ids=["own-categories", "pipeline"])
def test_categories_of_text(frame, export, tmp_path, native):
    """HistGradientBoosting's own, and one-hot encoded before a booster."""
    table, target = frame
    if native:
        model = HistGradientBoostingClassifier(max_iter=15, categorical_features=["kind"])
    else:
        encoder = OneHotEncoder(handle_unknown="ignore")
        columns = ColumnTransformer([("k", encoder, ["kind"])], remainder="passthrough")
        model = make_pipeline(columns, lgb.LGBMClassifier(**LGB))
    model.fit(table, target)
    folder = save(
        mlflow.sklearn, model, table, tmp_path / "model", serialization_format="cloudpickle"
    )
    bundle = export(folder)
    assert bundle.manifest["parity"]["label_mismatches"] == 0
    assert bundle.inputs("kind")["categories"] == ["blue", "green", "red"]
    records = table[:100].replace({np.nan: None})
    assert bundle.labels(records) == model.predict(table[:100]).tolist()


def test_categories_that_an_encoder_has_numbered(frame, export, tmp_path):
    """As in scikit-learn's own example. The trees compare numbers in float64, and so the encoder
    of their categories has to answer float64, too."""
    table, target = frame
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = ColumnTransformer([("k", encoder, ["kind"])], remainder="passthrough")
    model = make_pipeline(
        columns, HistGradientBoostingClassifier(max_iter=15, categorical_features=[0])
    ).fit(table, target)
    folder = save(
        mlflow.sklearn, model, table, tmp_path / "model", serialization_format="cloudpickle"
    )
    bundle = export(folder, dtype="float64")
    assert bundle.manifest["parity"]["label_mismatches"] == 0
    records = table[:100].replace({np.nan: None})
    assert bundle.labels(records) == model.predict(table[:100]).tolist()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (xgb.XGBRegressor(booster="gblinear"), "is not made of trees: train with booster='gbtree'"),
        (lgb.LGBMRegressor(**LGB, linear_tree=True), "train without linear_tree"),
        (
            xgb.XGBRegressor(n_estimators=3, multi_strategy="multi_output_tree"),
            "train with multi_strategy='one_output_per_tree'",
        ),
    ],
    ids=["linear", "linear-leaves", "vector-leaves"],
)
def test_what_cannot_be_converted_says_how_to_train_it(model, reason):
    """In words of the library."""
    rows, target = data("values")
    several = getattr(model, "multi_strategy", None) == "multi_output_tree"
    rows = np.nan_to_num(rows)
    model.fit(rows, np.c_[target, -target] if several else target)
    with pytest.raises(ExportError, match=reason):
        answers(model, rows, "float32")


@pytest.mark.parametrize("named", [True, False])
def test_catboost_without_a_signature(frame, named):
    """A loaded model of CatBoost says that it reads no columns, and still has their names."""
    table, target = frame[0].drop(columns="kind"), frame[1]
    model = cb.CatBoostClassifier(**CAT).fit(table if named else table.to_numpy(), target)
    schema = read_schema(None, copy.deepcopy(model))
    assert len(schema.columns) == table.shape[1]
    assert (schema.names == list(table.columns)) is named


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("largest", [0, 99], ids=["statistics", "one-hot"])
def test_catboost_with_categories_says_what_to_do(named, largest):
    """It stores hashes of the values only: the refusal names the columns, and the step that takes
    their place."""
    rows, target = data("two")
    table = pd.DataFrame(np.nan_to_num(rows))
    table[0] = table[0].round().astype(int)
    table.columns = [f"n{i}" for i in table.columns] if named else table.columns
    model = cb.CatBoostClassifier(**CAT, one_hot_max_size=largest)
    model.fit(table, target, cat_features=list(table.columns[:1]))
    column = "'n0'" if named else "0"
    with pytest.raises(ExportError, match=rf"reads \[{column}\] as categorical") as refusal:
        answers(model, rows, "float32")
    assert f"('categories', TargetEncoder(), [{column}])" in str(refusal.value)


@pytest.mark.filterwarnings("ignore:.*integer column:UserWarning")
def test_catboost_behind_the_step_that_a_refusal_advises(tmp_path, export):
    """Text and whole numbers are categories there, and the bundle lists them."""
    rows, target = data("two")
    table = pd.DataFrame(np.nan_to_num(rows)).add_prefix("n")
    table["n0"] = table["n0"].round().astype(int)
    table["n1"] = np.where(table["n1"] > 0, "high", "low")
    encode = ColumnTransformer([("c", TargetEncoder(), ["n0", "n1"])], remainder="passthrough")
    alone = cb.CatBoostClassifier(**CAT, cat_features=["n0", "n1"]).fit(table, target)
    model = make_pipeline(encode, cb.CatBoostClassifier(**CAT)).fit(table, target)
    for name, one in (("alone", alone), ("model", model)):
        mlflow.sklearn.save_model(
            one,
            str(tmp_path / name),
            signature=infer_signature(table, model.predict(table)),
            input_example=table,
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
        )
    with pytest.raises(ExportError, match=r"'n1' holds text.*without cat_.*encodes the column"):
        export(tmp_path / "alone")
    bundle = export(tmp_path / "model")
    assert bundle.inputs("n1")["categories"] == ["high", "low"]
    assert bundle.manifest["parity"]["label_mismatches"] == 0
