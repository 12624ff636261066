"""Penguins: names, numbers and missing values, as a logistic regression, a forest and a support
vector machine."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

TARGET = "species"
_NUMBERS = ["culmen_length_mm", "culmen_depth_mm", "flipper_length_mm", "body_mass_g"]
_NAMES = ["island", "sex"]


def load() -> pd.DataFrame:
    """344 penguins, with the missing values that the file writes as NA; one sex is `.`, which is
    missing too."""
    with as_file(files("model_export.examples") / "data" / "penguins_size.csv") as path:
        frame = pd.read_csv(path)
    return frame.assign(sex=frame["sex"].where(frame["sex"] != "."))


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """The six measured columns, in the file's order."""
    return frame.drop(columns=TARGET)


def logistic_regression() -> Pipeline:
    """On scaled numbers."""
    return _pipeline(LogisticRegression(max_iter=1000), scale=True)


def forest() -> Pipeline:
    """100 trees on unscaled numbers: a scaler would not change the trees, but make the proof
    inexact."""
    return _pipeline(RandomForestClassifier(n_estimators=100, random_state=20), scale=False)


def support_vector_machine() -> Pipeline:
    """With calibrated probabilities: `SVC(probability=True)` is deprecated since scikit-learn
    1.9."""
    return _pipeline(CalibratedClassifierCV(SVC(random_state=20), ensemble=False), scale=True)


def _pipeline(model: Any, *, scale: bool) -> Pipeline:
    numbers = [("impute", SimpleImputer(strategy="median"))]
    names = [
        ("impute", SimpleImputer(strategy="most_frequent")),
        ("encode", OneHotEncoder(handle_unknown="ignore")),
    ]
    prepare = ColumnTransformer(
        [
            (
                "numbers",
                Pipeline([*numbers, ("scale", StandardScaler())] if scale else numbers),
                _NUMBERS,
            ),
            ("names", Pipeline(names), _NAMES),
        ]
    )
    return Pipeline([("prepare", prepare), ("model", model)])
