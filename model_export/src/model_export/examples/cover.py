"""Forest cover: ten integers and two categories; random forests of three sizes."""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

TARGET = "Cover_Type"
AREAS = ["Cache", "Commanche", "Neota", "Rawah"]
# UCI's forty codes. C3501 and C5151 do not occur in the file, so the encoder gets this list instead
# of learning the codes.
SOILS = [
    "C2702",
    "C2703",
    "C2704",
    "C2705",
    "C2706",
    "C2717",
    "C3501",
    "C3502",
    "C4201",
    "C4703",
    "C4704",
    "C4744",
    "C4758",
    "C5101",
    "C5151",
    "C6101",
    "C6102",
    "C6731",
    "C7101",
    "C7102",
    "C7103",
    "C7201",
    "C7202",
    "C7700",
    "C7701",
    "C7702",
    "C7709",
    "C7710",
    "C7745",
    "C7746",
    "C7755",
    "C7756",
    "C7757",
    "C7790",
    "C8703",
    "C8707",
    "C8708",
    "C8771",
    "C8772",
    "C8776",
]


def load() -> pd.DataFrame:
    """22,849 patches of forest. The file begins with 2,160 of each class, so shuffle before a
    split."""
    with as_file(files("model_export.examples") / "data" / "covertype.csv") as path:
        return pd.read_csv(path)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Ten integers, the area and the soil type."""
    return frame.drop(columns=TARGET)


def small() -> Pipeline:
    """33 trees of depth 2: an answer in microseconds."""
    return _pipeline(trees=33, depth=2)


def middle() -> Pipeline:
    """100 trees of depth 20."""
    return _pipeline(trees=100, depth=20)


def heavy() -> Pipeline:
    """300 trees of depth 30: minutes and gigabytes to convert."""
    return _pipeline(trees=300, depth=30)


def _pipeline(*, trees: int, depth: int) -> Pipeline:
    names = ["Wilderness_Area", "Soil_Type"]
    encode = OneHotEncoder(categories=[AREAS, SOILS], handle_unknown="error")
    prepare = ColumnTransformer([("names", encode, names)], remainder="passthrough")
    forest = RandomForestClassifier(n_estimators=trees, max_depth=depth, random_state=20, n_jobs=-1)
    return Pipeline([("prepare", prepare), ("model", forest)])
