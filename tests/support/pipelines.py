"""Models for the baselines, trained on made-up birds. The libraries that train take seconds to
import, so tests import this module where they need it."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler

_ROWS = 60


def birds() -> pd.DataFrame:
    """Sixty made-up birds, some measures and rings missing."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "wing": rng.normal(20, 4, _ROWS),
            "weight": rng.normal(300, 90, _ROWS),
            "ring": rng.choice(["blue", "red"], _ROWS),
        }
    )
    frame.loc[::7, "weight"] = np.nan
    frame["ring"] = frame["ring"].where(np.arange(_ROWS) % 5 > 0)
    return frame


def pipeline_of(kind: str) -> Pipeline:
    """As the example models are built."""
    if kind == "penguins":
        numbers = Pipeline(
            [("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]
        )
        names = Pipeline(
            [("impute", SimpleImputer(strategy="most_frequent")), ("encode", OneHotEncoder())]
        )
        return Pipeline(
            [
                (
                    "prepare",
                    ColumnTransformer(
                        [("numbers", numbers, ["wing", "weight"]), ("names", names, ["ring"])]
                    ),
                ),
                ("model", LogisticRegression()),
            ]
        )
    encode = OneHotEncoder(categories=[["blue", "red"]])
    prepare = ColumnTransformer([("names", encode, ["ring"])], remainder="passthrough")
    return Pipeline(
        [
            ("prepare", prepare),
            ("model", RandomForestClassifier(9, max_depth=4, random_state=1, n_jobs=-1)),
        ]
    )


def saved(kind: str, folder: Path) -> tuple[str, list[dict[str, Any]], list[Any]]:
    """A model of a kind as MLflow keeps it, its records, and pyfunc's own labels."""
    frame = birds() if kind == "penguins" else birds().fillna({"weight": 300.0, "ring": "red"})
    labels = np.where(frame["wing"] + (frame["ring"] == "red") * 4 > 21, "hawk", "gull")
    rows = frame if kind != "iris" else frame[["wing", "weight"]].to_numpy()
    model = (
        RandomForestClassifier(9, random_state=1) if kind == "iris" else pipeline_of(kind)
    ).fit(rows, labels)
    signature = mlflow.models.infer_signature(rows)
    mlflow.sklearn.save_model(
        model, folder, signature=signature, serialization_format="cloudpickle", pip_requirements=[]
    )
    expected = mlflow.pyfunc.load_model(str(folder)).predict(rows).tolist()
    named = pd.DataFrame(rows, columns=["x0", "x1"]) if kind == "iris" else rows
    records = [
        {key: None if pd.isna(value) else value for key, value in record.items()}
        for record in named.to_dict("records")
    ]
    return str(folder), records, expected


def with_a_power_transformer() -> Pipeline:
    """A pipeline with a step that the baseline does not know."""
    scaled = Pipeline([("power", PowerTransformer())])
    pipeline = Pipeline(
        [
            ("prepare", ColumnTransformer([("all", scaled, ["wing"])])),
            ("model", LogisticRegression()),
        ]
    )
    return pipeline.fit(birds(), np.arange(_ROWS) % 2)
