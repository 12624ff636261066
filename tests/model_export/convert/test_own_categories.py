"""Columns of the pandas type `category`, which boosters number by themselves, are exported: a
client sends the categories, and the answers are those of the training table's type."""

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from mlflow.models import infer_signature
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from model_export.errors import ExportError
from support.refusals import assert_plain_refusal

pytestmark = pytest.mark.filterwarnings(
    # The libraries' own use of pandas and of scikit-learn, whose future they follow by themselves.
    "ignore::pandas.errors.Pandas4Warning",
    "ignore:.*feature names.*:UserWarning",
    "ignore:.*Any type hint is inferred:UserWarning",
    "ignore:.*integer column:UserWarning",
)
ROWS = 500
LGB = {"verbose": -1, "n_estimators": 12, "min_data_per_group": 5, "cat_smooth": 1, "n_jobs": 1}
XGB = {"n_estimators": 12, "enable_categorical": True, "max_cat_to_onehot": 1, "n_jobs": 1}
CITIES = ["Quito", "Lima", "La Paz", "Bogota", "Cusco"]
"""Not sorted, and nobody lives in the last one."""


@pytest.fixture(scope="module")
def table():
    """Numbers, and categories of text (some missing), of whole numbers in an order of their own,
    and of small integers; two classes that follow them."""
    draw = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": draw.normal(40.0, 10.0, ROWS).round(1),
            "city": pd.Categorical(draw.choice(CITIES[:4], ROWS), categories=CITIES),
            "visits": draw.integers(0, 20, ROWS),
            "zone": pd.Categorical(draw.choice([30, 10, 20], ROWS), categories=[30, 10, 20]),
            "floor": pd.Categorical(draw.integers(1, 4, ROWS).astype(np.int8)),
        }
    )
    target = frame["city"].isin(["Lima", "La Paz"]) & (frame["age"] > 38.0)
    target |= (frame["zone"] == 10) & (frame["floor"] != 2)
    frame.loc[::13, "city"] = None
    return frame, target.to_numpy().astype(int)


def saved(flavour, model, frame, folder, **more):
    """As MLflow's tutorials log it, with a signature and an example."""
    options = {"signature": infer_signature(frame), "input_example": frame[:400], **more}
    getattr(mlflow, flavour).save_model(
        model, str(folder), pip_requirements=["scikit-learn"], **options
    )
    return folder


def asked(bundle, frame):
    """The bundle's last answer to the rows as a client writes them."""
    plain = frame.astype(object).where(frame.notna(), None)
    return bundle.answer(*plain.to_dict("records"))[-1]


@pytest.mark.parametrize(
    ("flavour", "model"),
    [
        ("xgboost", xgb.XGBClassifier(**XGB)),
        ("lightgbm", lgb.LGBMClassifier(**LGB)),
        ("xgboost", xgb.XGBRegressor(**XGB)),
        ("sklearn", Pipeline([("model", lgb.LGBMClassifier(**LGB))])),
        ("sklearn", GridSearchCV(xgb.XGBClassifier(**XGB), {"max_depth": [3]}, cv=2)),
        ("sklearn", CalibratedClassifierCV(lgb.LGBMClassifier(**LGB), cv=2)),
        (
            "sklearn",
            VotingClassifier(
                [("x", xgb.XGBClassifier(**XGB)), ("l", lgb.LGBMClassifier(**LGB))], voting="soft"
            ),
        ),
    ],
    ids=["xgboost", "lightgbm", "regressor", "pipeline", "search", "calibrated", "voting"],
)
def test_the_answers_are_those_of_the_training_tables_type(table, export, tmp_path, flavour, model):
    """Of every row, nulls among them; the categories are those of the training table, in its
    order, and nulls are accepted where the signature has them."""
    frame, target = table
    model.fit(frame, target)
    more = {"serialization_format": "cloudpickle"} if flavour == "sklearn" else {}
    bundle = export(saved(flavour, model, frame, tmp_path / "model", **more))
    assert bundle.manifest["parity"]["label_mismatches"] == 0
    assert "pandas type category" in bundle.manifest["parity"]["reference"]
    assert bundle.inputs("city")["categories"] == CITIES
    assert bundle.inputs("city")["nullable"]
    assert bundle.inputs("zone")["categories"] == [30, 10, 20]
    assert bundle.inputs("floor")["categories"] == [1, 2, 3]
    assert not bundle.inputs("zone")["nullable"]
    answers = getattr(model, "predict_proba", model.predict)
    np.testing.assert_allclose(asked(bundle, frame), answers(frame), atol=1e-5)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_what_train_returns(table, export, tmp_path, library):
    """MLflow's pyfunc of such a Booster takes no categories at all; the bundle does."""
    frame, target = table
    if library == "xgboost":
        rows = xgb.DMatrix(frame, target, enable_categorical=True)
        model = xgb.train({"objective": "binary:logistic", "max_cat_to_onehot": 1}, rows, 8)
        expected = model.predict(rows)
    else:
        model = lgb.train({**LGB, "objective": "binary"}, lgb.Dataset(frame, target))
        expected = model.predict(frame)
    bundle = export(saved(library, model, frame, tmp_path / "model"))
    np.testing.assert_allclose(asked(bundle, frame), expected, atol=1e-5)


def test_a_model_without_a_signature(table, export, tmp_path):
    """The booster itself says which columns are categories."""
    frame, target = table
    model = lgb.LGBMClassifier(**LGB).fit(frame, target)
    folder = saved("lightgbm", model, frame, tmp_path / "model", signature=False)
    bundle = export(folder)
    assert bundle.inputs("zone")["categories"] == [30, 10, 20]
    np.testing.assert_allclose(asked(bundle, frame), model.predict_proba(frame), atol=1e-5)


def test_unknown_categories_count_as_missing_for_lightgbm(table, export, tmp_path):
    """So the server may accept them if the user asks for it."""
    frame, target = table
    model = lgb.LGBMClassifier(**LGB).fit(frame, target)
    folder = saved("lightgbm", model, frame, tmp_path / "model")
    bundle = export(folder, accept_unknown=True)
    assert "columns that accept unknown categories: city, zone, floor" in bundle.output
    assert bundle.manifest["parity"]["label_mismatches"] == 0


def test_unknown_categories_are_an_error_for_xgboost(table, export, tmp_path):
    """So the server refuses them in any case."""
    frame, target = table
    model = xgb.XGBClassifier(**XGB).fit(frame, target)
    folder = saved("xgboost", model, frame, tmp_path / "model")
    assert (
        "columns that accept unknown categories: none" in export(folder, accept_unknown=True).output
    )


def test_booleans_and_names_outside_ascii_in_lightgbm(table, export, tmp_path):
    """LightGBM stores them whole."""
    frame, target = table
    frame = frame.assign(
        city=frame["city"].cat.rename_categories({"Bogota": "Bogotá"}),
        member=pd.Categorical(frame["age"] > 41.0),
    )
    model = lgb.LGBMClassifier(**LGB).fit(frame, target ^ frame["member"].astype(int))
    bundle = export(saved("lightgbm", model, frame, tmp_path / "model"))
    assert bundle.inputs("member")["kind"] == "boolean"
    np.testing.assert_allclose(asked(bundle, frame), model.predict_proba(frame), atol=1e-5)


def test_names_outside_ascii_in_xgboost_are_refused(table, export, tmp_path):
    """XGBoost 3.2 stores as many bytes of a name as it has letters."""
    frame, target = table
    frame = frame.assign(city=frame["city"].cat.rename_categories({"Lima": "Bogotá"}))
    model = xgb.XGBClassifier(**XGB).fit(frame, target)
    with pytest.raises(ExportError, match=r"'city'.*outside ASCII.*encode the column"):
        export(saved("xgboost", model, frame, tmp_path / "model"))


def test_ordered_categories_in_lightgbm_are_refused(table, export, tmp_path):
    """It compares their numbers, and does not say which column they belong to."""
    frame, target = table
    frame = frame.assign(zone=frame["zone"].cat.as_ordered())
    model = lgb.LGBMClassifier(**LGB).fit(frame, target)
    with pytest.raises(ExportError, match=r"3 columns of the pandas type.*that are not ordered"):
        export(saved("lightgbm", model, frame, tmp_path / "model"))


CODES = [3, 7, 11, 52, 1000]


def with_codes(table):
    """The table with whole numbers, some negative, that are split by category."""
    frame, target = table
    draw = np.random.default_rng(5)
    code, area = draw.choice(CODES, ROWS), draw.choice([-2, 0, 4, 9], ROWS)
    target = target ^ (np.isin(code, [7, 1000]) | (area == 4))
    return frame[["age", "visits"]].assign(code=code, area=area), target


@pytest.mark.parametrize("columns", [["code", "area"], [2, 3]], ids=["by name", "by index"])
def test_numbers_that_lightgbm_splits_by_category(table, export, tmp_path, columns):
    """Named in `categorical_feature`: any number has an answer, an unknown and a negative one and
    a null too, which go to the side of the other categories."""
    frame, target = with_codes(table)
    frame["code"] = frame["code"].where(frame.index % 9 > 0)
    model = lgb.LGBMClassifier(**LGB).fit(frame, target, categorical_feature=columns)
    bundle = export(saved("lightgbm", model, frame, tmp_path / "model"))
    assert bundle.inputs("code")["kind"] == "number"
    assert bundle.inputs("area")["kind"] == "integer"
    for code in (None, 5, 7.6, -1, -0.5, 8, 2_000_000, 2.0**31):
        rows = frame.assign(code=np.nan if code is None else code)
        np.testing.assert_allclose(asked(bundle, rows), model.predict_proba(rows), atol=1e-6)


def test_such_numbers_next_to_the_pandas_type(table, export, tmp_path):
    """The numbers cannot be those of the categories, which are fewer, so it is known which column
    the categories are of."""
    frame, target = with_codes(table)
    frame["city"] = table[0]["city"]
    model = lgb.LGBMClassifier(**LGB).fit(
        frame, target, categorical_feature=["code", "area", "city"]
    )
    bundle = export(saved("lightgbm", model, frame, tmp_path / "model"))
    assert bundle.inputs("city")["categories"] == CITIES
    assert bundle.inputs("code")["kind"] == "integer"
    np.testing.assert_allclose(asked(bundle, frame), model.predict_proba(frame), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "code"),
    [
        (pd.Categorical([1, 2, 3] * 100), [1, 2] * 150),
        (pd.Categorical([1, 2, 3] * 100), [0, 1, 2, 2] * 75),
        (pd.Categorical([2, 0, 1] * 100, categories=[2, 0, 1]), [0, 1, 2, 1] * 75),
        (pd.Categorical(["S", "M", "L"] * 100, ordered=True), [0, 1, 2, 1] * 75),
    ],
    ids=["some of them", "another number", "in another order", "text"],
)
def test_categories_are_not_taken_for_those_of_another_column(export, tmp_path, size, code):
    """LightGBM keeps the categories of `size` and splits `code`, a whole number, by category: a
    bundle that gave them to `code` would answer wrongly, and its proof would agree."""
    frame = pd.DataFrame({"age": np.arange(300) % 37 * 1.5, "code": code, "size": size})
    target = (frame["code"] == 1) ^ (size.codes == 1)
    model = lgb.LGBMClassifier(**LGB).fit(frame, target, categorical_feature=["code"])
    with pytest.raises(ExportError, match=r"does not store which values belong") as refusal:
        export(saved("lightgbm", model, frame, tmp_path / "model"))
    assert_plain_refusal(str(refusal.value))


def scaled(booster, *first):
    """A Pipeline that scales the numbers and passes the other columns on, in pandas."""
    steps = [(name, "passthrough", [name]) for name in first]
    scale = ("numbers", StandardScaler(), ["age", "visits"])
    scale = ColumnTransformer([*steps, scale], remainder="passthrough")
    return Pipeline([("scale", scale.set_output(transform="pandas")), ("model", booster)])


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("first", [(), ("city",)], ids=["numbers first", "category first"])
def test_after_a_scaler_of_the_numbers(table, export, tmp_path, library, first):
    """A ColumnTransformer passes the categories on to the booster."""
    frame, target = table
    booster = xgb.XGBClassifier(**XGB) if library == "xgboost" else lgb.LGBMClassifier(**LGB)
    model = scaled(booster, *first).fit(frame, target)
    cloudpickle = {"serialization_format": "cloudpickle"}
    bundle = export(saved("sklearn", model, frame, tmp_path / "model", **cloudpickle))
    assert bundle.inputs("zone")["categories"] == [30, 10, 20]
    np.testing.assert_allclose(asked(bundle, frame), model.predict_proba(frame), atol=1e-5)


def test_categories_behind_another_step_are_refused(table, export, tmp_path):
    """What reaches the booster is not the row's column."""
    frame, target = table
    numbers = frame[["age", "zone"]]
    union = FeatureUnion([("all", "passthrough")]).set_output(transform="pandas")
    model = Pipeline([("union", union), ("model", lgb.LGBMClassifier(**LGB))])
    model.fit(numbers, target)
    folder = saved(
        "sklearn", model, numbers, tmp_path / "model", serialization_format="cloudpickle"
    )
    with pytest.raises(ExportError, match=r"pandas type category.*'all__zone'.*passthrough"):
        export(folder)


def test_xgboost_that_did_not_store_its_categories_is_refused(table, export, tmp_path):
    """As of a model trained before XGBoost 3.1, of which only the numbers are known."""
    frame, target = table
    text = frame[["age", "city"]]
    numbers = text.assign(city=text["city"].cat.codes.replace(-1, np.nan))
    model = xgb.XGBClassifier(**XGB, feature_types=["q", "c"]).fit(numbers, target)
    signature = infer_signature(text)
    folder = saved("xgboost", model, text, tmp_path / "model", signature=signature)
    with pytest.raises(ExportError, match=r"'city' holds text.*XGBoost 3\.1 or newer"):
        export(folder)


def _behind(transformers, **more):
    """HistGradientBoosting behind a ColumnTransformer that passes on the other columns."""
    before = ColumnTransformer(
        transformers, remainder="passthrough", verbose_feature_names_out=False
    )
    boosted = HistGradientBoostingClassifier(max_iter=12, **more)
    return Pipeline([("columns", before.set_output(transform="pandas")), ("model", boosted)])


@pytest.mark.parametrize(
    ("transformers", "more"),
    [
        ([("numbers", StandardScaler(), ["age", "visits"])], {}),
        ([("zone", OrdinalEncoder(), ["zone"])], {"categorical_features": ["zone", "city"]}),
    ],
    ids=["from_dtype", "some-encoded"],
)
def test_categories_that_reach_hist_gradient_boosting(table, export, tmp_path, transformers, more):
    """scikit-learn's booster puts its categories before its numbers, behind a ColumnTransformer
    that passes them on as well. Nulls and unknown categories have an answer."""
    frame, target = table
    model = _behind(transformers, **more).fit(frame, target)
    folder = saved("sklearn", model, frame, tmp_path / "model", serialization_format="cloudpickle")
    bundle = export(folder)
    assert bundle.manifest["parity"]["label_mismatches"] == 0
    assert bundle.inputs("city")["categories"] == sorted(CITIES[:4])
    assert bundle.inputs("city")["nullable"]
    np.testing.assert_allclose(asked(bundle, frame), model.predict_proba(frame), atol=1e-5)


def test_text_that_reaches_hist_gradient_boosting_in_another_way_is_refused(
    table, export, tmp_path
):
    """A FeatureUnion passes on the whole table."""
    frame, target = table
    text = frame[["age", "city"]]
    union = FeatureUnion([("all", "passthrough")]).set_output(transform="pandas")
    model = Pipeline([("union", union), ("model", HistGradientBoostingClassifier(max_iter=3))])
    model.fit(text, target)
    folder = saved("sklearn", model, text, tmp_path / "model", serialization_format="cloudpickle")
    with pytest.raises(ExportError, match=r"'city' holds text.*remainder='passthrough'"):
        export(folder)
