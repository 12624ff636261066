"""What the tests of the watch share: models to register."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that passes: two numbers, two classes."""
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame(np.random.default_rng(3).normal(size=(100, 2)), columns=["a", "b"])
    return _save(
        LogisticRegression().fit(frame, frame["a"] + frame["b"] > 0),
        frame,
        tmp_path_factory.mktemp("models") / "sound",
    )


@pytest.fixture(scope="session")
def differing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose graph answers otherwise: it imputes from one of many neighbours that are
    equally far, which scikit-learn chooses by no rule."""
    from sklearn.impute import KNNImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame(np.random.default_rng(5).normal(size=(200, 2)), columns=["a", "b"])
    frame["b"] = frame["b"].round()
    label = np.where(frame["a"] < 0.5, "yes", "no")
    frame.loc[frame.index % 3 == 0, "a"] = np.nan
    model = make_pipeline(KNNImputer(n_neighbors=1), DecisionTreeClassifier(random_state=0))
    return _save(
        model.fit(frame, label),
        frame,
        tmp_path_factory.mktemp("models") / "differing",
    )


def _save(estimator: object, frame: pd.DataFrame, folder: Path) -> Path:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # MLflow's hints about integers and pickles are not under test
        mlflow.sklearn.save_model(
            estimator,
            folder,
            signature=infer_signature(frame, estimator.predict(frame[:5])),  # type: ignore[attr-defined]
            input_example=frame,
            pip_requirements=["scikit-learn"],
            skops_trusted_types=["sklearn.tree._tree.Tree", "numpy.dtype"],
        )
    return folder
