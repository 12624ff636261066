"""Forest cover once more: does lodgepole pine cover a patch? 300 trees of LightGBM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from model_export.errors import ExportError
from model_export.examples import cover

if TYPE_CHECKING:
    import pandas as pd

TARGET = "Lodgepole_Pine"
_LODGEPOLE_PINE = 1
"""Of `Cover_Type`, which counts from 0."""


def load() -> pd.DataFrame:
    """The patches of `cover`, with 1 where lodgepole pine covers one and 0 elsewhere. Of two
    classes, because LightGBM makes a tree for each class and round: 300 rounds are 300 trees."""
    frame = cover.load()
    pine = (frame[cover.TARGET] == _LODGEPOLE_PINE).astype(int)
    return cover.features(frame).assign(**{TARGET: pine})


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Ten integers, the area and the soil type."""
    return frame.drop(columns=TARGET)


def build() -> Pipeline:
    """300 trees of 31 leaves, LightGBM's default.

    Raises:
        ExportError: LightGBM is not installed.
    """
    try:
        from lightgbm import LGBMClassifier  # an extra, needed for this example alone
    except ModuleNotFoundError as error:
        raise ExportError(
            "training it needs the Python module 'lightgbm', which is not installed: install "
            "halfcore-export[lightgbm]"
        ) from error
    names = ["Wilderness_Area", "Soil_Type"]
    encode = OneHotEncoder(categories=[cover.AREAS, cover.SOILS], sparse_output=False)
    prepare = ColumnTransformer([("names", encode, names)], remainder="passthrough")
    # One thread: LightGBM takes None for as many as the machine has cores.
    model = LGBMClassifier(n_estimators=300, random_state=20, n_jobs=1, verbose=-1)
    return Pipeline([("prepare", prepare), ("model", model)])
