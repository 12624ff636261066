"""Models of XGBoost, LightGBM and CatBoost that are not of the scikit-learn API: what
`xgboost.train`, `lightgbm.train` and `catboost.CatBoost` return."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class NativeBooster(RegressorMixin, BaseEstimator):
    """A booster as a scikit-learn regressor: it answers what its `predict` answers, as
    `mlflow.pyfunc` does.

    Args:
        booster: the model.
    """

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        names = _names(booster)
        self.n_features_in_ = _width(booster)
        if names and not all(name.startswith("Column_") for name in names):
            self.feature_names_in_ = np.asarray(names, dtype=object)

    def predict(self, rows: Any) -> Any:
        """The booster's answers for a matrix or a DataFrame."""
        if not hasattr(self.booster, "save_raw"):
            return self.booster.predict(rows)
        from xgboost import DMatrix  # the model's own package

        return self.booster.predict(DMatrix(rows, enable_categorical=True))


def adapted(model: Any) -> Any:
    """The model as an estimator of scikit-learn; any other model as it is."""
    return NativeBooster(model) if type(model).__name__ in ("Booster", "CatBoost") else model


def _names(booster: Any) -> list[str]:
    if hasattr(booster, "feature_names_"):  # CatBoost
        names = booster.feature_names_
        return [] if names == [str(i) for i in range(len(names))] else list(names)
    names = booster.feature_names if hasattr(booster, "save_raw") else booster.feature_name()
    return list(names or [])


def _width(booster: Any) -> int:
    if hasattr(booster, "feature_names_"):
        return len(booster.feature_names_)
    return int(booster.num_features() if hasattr(booster, "save_raw") else booster.num_feature())
