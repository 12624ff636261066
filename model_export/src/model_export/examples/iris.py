"""Iris: a forest on an unnamed matrix of four numbers, as in the course's first service."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

TARGET = "species"


def load() -> pd.DataFrame:
    """150 flowers: four lengths in cm and the species' name."""
    iris = load_iris()
    frame = pd.DataFrame(
        iris.data,
        columns=[
            name.removesuffix(" (cm)").replace(" ", "_") + "_cm" for name in iris.feature_names
        ],
    )
    return frame.assign(species=iris.target_names[iris.target])


def features(frame: pd.DataFrame) -> Any:
    """float64[N, 4]."""
    return frame.drop(columns=TARGET).to_numpy()


def build() -> RandomForestClassifier:
    """A forest of 100 trees."""
    return RandomForestClassifier(n_estimators=100, random_state=20)
