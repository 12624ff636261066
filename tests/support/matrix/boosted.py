"""Boosted trees in all forms: XGBoost, LightGBM, CatBoost and HistGradientBoosting."""

import warnings
from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import mlflow
import numpy as np
import xgboost
from mlflow.models import infer_signature
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from support.matrix.case import Case, Group, Trained
from support.matrix.data import customers, numbers, spent, values, with_gaps

_LIGHT = {"n_estimators": 15, "verbose": -1, "n_jobs": 1}
_CAT = {"n_estimators": 15, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
_XGB = {"n_estimators": 15, "n_jobs": 1}
_SPLITTING: dict[str, dict[str, Any]] = {
    "xgboost": {"enable_categorical": True, "max_cat_to_onehot": 1},
    "lightgbm": {"min_data_per_group": 5, "cat_smooth": 1},
}
"""Splits of categories, also of few rows."""
CLASSIFIERS: dict[str, Callable[..., Any]] = {
    "xgboost": lambda **more: xgboost.XGBClassifier(**_XGB, **more),
    "lightgbm": lambda **more: lightgbm.LGBMClassifier(**_LIGHT, **more),
    "catboost": lambda **more: catboost.CatBoostClassifier(**_CAT, **more),
    "hist": lambda **more: HistGradientBoostingClassifier(max_iter=15, **more),
}
REGRESSORS: dict[str, Callable[..., Any]] = {
    "xgboost": lambda **more: xgboost.XGBRegressor(**_XGB, **more),
    "lightgbm": lambda **more: lightgbm.LGBMRegressor(**_LIGHT, **more),
    "catboost": lambda **more: catboost.CatBoostRegressor(**_CAT, **more),
    "hist": lambda **more: HistGradientBoostingRegressor(max_iter=15, **more),
}


def cases() -> list[Case]:
    """All forms of all four."""
    group = Group("boosted trees")
    for name in CLASSIFIERS:
        for form, train in _FORMS.items():
            group.add(f"{name}-{form}", lambda n=name, t=train: t(n))
    return [*group.cases, *_flavours()]


def _plain(name: str) -> Trained:
    x, y = numbers()
    return _fitted(CLASSIFIERS[name](), x, y)


def _three(name: str) -> Trained:
    x, y = numbers(3)
    return _fitted(CLASSIFIERS[name](), x, y)


def _gaps(name: str) -> Trained:
    x, y = numbers()
    return _fitted(CLASSIFIERS[name](), with_gaps(x), y)


def _regressor(name: str) -> Trained:
    x, y = values()
    return _fitted(REGRESSORS[name](), x, y)


def _regressor_gaps(name: str) -> Trained:
    x, y = values()
    return _fitted(REGRESSORS[name](), with_gaps(x), y)


def _counts(name: str) -> Trained:
    objective = {
        "xgboost": {"objective": "count:poisson"},
        "lightgbm": {"objective": "poisson"},
        "catboost": {"loss_function": "Poisson"},
        "hist": {"loss": "poisson"},
    }
    x, y = values()
    return _fitted(REGRESSORS[name](**objective[name]), x, np.abs(y).round())


def _scaled(name: str) -> Trained:
    x, y = numbers()
    return _fitted(make_pipeline(StandardScaler(), CLASSIFIERS[name]()), x, y)


def _imputed(name: str) -> Trained:
    x, y = numbers()
    return _fitted(make_pipeline(SimpleImputer(), CLASSIFIERS[name]()), with_gaps(x), y)


def _encoded(name: str) -> Trained:
    x, y = customers()
    encode = ColumnTransformer(
        [("text", OneHotEncoder(sparse_output=False), ["city", "plan"])],
        remainder="passthrough",
    )
    return _fitted(make_pipeline(encode, CLASSIFIERS[name]()), x, y)


def _ordinal(name: str) -> Trained:
    x, y = spent()
    encode = ColumnTransformer(
        [("text", OrdinalEncoder(), ["city", "plan"])], remainder="passthrough"
    )
    return _fitted(make_pipeline(encode, REGRESSORS[name]()), x, y)


def _search(name: str) -> Trained:
    x, y = numbers()
    grid = {"max_depth": [2, 4]}
    return _fitted(GridSearchCV(CLASSIFIERS[name](), grid, cv=3), x, y)


def _calibrated(name: str) -> Trained:
    x, y = numbers()
    return _fitted(CalibratedClassifierCV(CLASSIFIERS[name](), cv=3), x, y)


def _voting(name: str) -> Trained:
    x, y = numbers()
    pair = [("a", CLASSIFIERS[name]()), ("b", LogisticRegression())]
    return _fitted(VotingClassifier(pair, voting="soft"), x, y)


def _stacking(name: str) -> Trained:
    x, y = numbers()
    pair = [("a", CLASSIFIERS[name]()), ("b", LogisticRegression())]
    return _fitted(StackingClassifier(pair, cv=3), x, y)


def _stopped(name: str) -> Trained:
    """Training that ends before its last tree: the best iteration answers."""
    x, y = numbers()
    if name == "hist":
        return _fitted(CLASSIFIERS[name](early_stopping=True, n_iter_no_change=2), x, y)
    fit, held = (x[:200], y[:200]), [(x[200:], y[200:])]
    if name == "xgboost":
        model = CLASSIFIERS[name](early_stopping_rounds=3).fit(*fit, eval_set=held, verbose=False)
    elif name == "lightgbm":
        stop = [lightgbm.early_stopping(3, verbose=False)]
        model = CLASSIFIERS[name]().fit(*fit, eval_set=held, callbacks=stop)
    else:
        model = CLASSIFIERS[name](early_stopping_rounds=3).fit(*fit, eval_set=held)
    return Trained(model, x)


def _categories(name: str) -> Trained:
    """Categories that the trees split by themselves."""
    x, y = numbers()
    x["zone"] = np.random.default_rng(2).integers(0, 5, len(x))
    if name == "hist":
        return _fitted(CLASSIFIERS[name](categorical_features=["zone"]), x, y)
    if name == "lightgbm":
        return Trained(CLASSIFIERS[name]().fit(x, y, categorical_feature=["zone"]), x)
    if name == "catboost":
        return Trained(CLASSIFIERS[name](cat_features=["zone"]).fit(x, y), x)
    kinds = ["q"] * 6 + ["c"]
    return _fitted(CLASSIFIERS[name](feature_types=kinds, enable_categorical=True), x, y)


_FORMS: dict[str, Callable[[str], Trained]] = {
    "classifier": _plain,
    "three-classes": _three,
    "missing-values": _gaps,
    "regressor": _regressor,
    "regressor-missing-values": _regressor_gaps,
    "counts": _counts,
    "after-scaler": _scaled,
    "after-imputer": _imputed,
    "after-one-hot": _encoded,
    "after-ordinal": _ordinal,
    "search": _search,
    "calibrated": _calibrated,
    "voting": _voting,
    "stacking": _stacking,
    "early-stopping": _stopped,
    "categories": _categories,
}


def _fitted(model: Any, x: Any, y: Any) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own, of pandas and of names
        return Trained(model.fit(x, y), x)


def _flavours() -> list[Case]:
    """Logged with MLflow's own flavours."""
    group = Group("boosted trees in MLflow's own flavours")
    for flavour in ("xgboost", "lightgbm", "catboost"):
        for kind, made in (("classifier", CLASSIFIERS), ("regressor", REGRESSORS)):
            group.add(
                f"flavour-{flavour}-{kind}",
                lambda f=flavour, m=made[flavour], k=kind: _in_flavour(f, m(), k),
            )
    for name, flavour, train in (
        ("native-xgboost", "xgboost", _native_xgboost),
        ("native-lightgbm", "lightgbm", _native_lightgbm),
        ("native-catboost", "catboost", _native_catboost),
    ):
        group.add(name, lambda f=flavour, t=train: _logged(f, t()))
    for flavour in ("xgboost", "lightgbm"):
        group.add(f"flavour-{flavour}-pandas", lambda f=flavour: _logged(f, _own_categories(f)))
        group.add(f"pipeline-{flavour}-pandas", lambda f=flavour: _passed_on(f))
        group.add(f"native-{flavour}-pandas", lambda f=flavour: _logged(f, _native_categories(f)))
    return group.cases


def _of_pandas() -> tuple[Any, Any]:
    """Customers in the pandas type `category`: text with gaps, and whole numbers."""
    x, y = customers()
    x["zone"] = np.random.default_rng(2).choice([30, 10, 20], len(x))
    x.loc[::11, "city"] = None
    kinds = dict.fromkeys(("city", "plan", "zone"), "category")
    return x.astype(kinds), y ^ (x["zone"] == 10).to_numpy()


def _own_categories(name: str) -> tuple[Any, Any]:
    x, y = _of_pandas()
    return CLASSIFIERS[name](**_SPLITTING[name]).fit(x, y), x


def _passed_on(name: str) -> Trained:
    x, y = _of_pandas()
    scale = ColumnTransformer([("scale", StandardScaler(), ["age"])], remainder="passthrough")
    scale.set_output(transform="pandas")
    return _fitted(make_pipeline(scale, CLASSIFIERS[name](**_SPLITTING[name])), x, y)


def _native_categories(name: str) -> tuple[Any, Any]:
    x, y = _of_pandas()
    if name == "xgboost":
        rows = xgboost.DMatrix(x, y, enable_categorical=True)
        return xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 15), x
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, **_SPLITTING[name]}
    return lightgbm.train(parameters, lightgbm.Dataset(x, y), 15), x


def _in_flavour(flavour: str, model: Any, kind: str) -> Trained:
    x, y = numbers() if kind == "classifier" else values()
    return _logged(flavour, (model.fit(x, y), x))


def _logged(flavour: str, fitted: tuple[Any, Any]) -> Trained:
    model, x = fitted

    def log(name: str, model: Any, rows: Any) -> None:
        names = {"catboost": "cb_model", "lightgbm": "lgb_model", "xgboost": "xgb_model"}
        getattr(mlflow, flavour).log_model(
            **{names[flavour]: model},
            name="model",
            registered_model_name=name,
            signature=infer_signature(rows),
            input_example=rows,
            pip_requirements=[flavour],
        )

    return Trained(model, x, log)


def _native_xgboost() -> tuple[Any, Any]:
    x, y = numbers()
    parameters = {"objective": "binary:logistic", "nthread": 1}
    return xgboost.train(parameters, xgboost.DMatrix(x, y), 15), x


def _native_lightgbm() -> tuple[Any, Any]:
    x, y = values()
    return lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 15), x


def _native_catboost() -> tuple[Any, Any]:
    x, y = values()
    return catboost.CatBoost(_CAT).fit(x, y), x
