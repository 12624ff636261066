"""Models of nearest neighbours on the data of scikit-learn's tutorials, whose measures have one or
two decimals: many rows are equally far from several training rows."""

from typing import Any

import pandas as pd
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from support.matrix.case import Case, Group, Trained


def cases() -> list[Case]:
    """Settings, searches and combinations."""
    group = Group("nearest neighbours on the data of tutorials")
    nearest, by_value = KNeighborsClassifier, KNeighborsRegressor
    grid = {"n_neighbors": [3, 5, 7]}
    vote = [("a", nearest(7)), ("b", GaussianNB())]
    for name, load, model in (
        ("iris", load_iris, nearest()),
        ("iris-three", load_iris, nearest(3)),
        ("iris-by-distance", load_iris, nearest(weights="distance")),
        ("iris-manhattan", load_iris, nearest(p=1)),
        ("iris-cosine", load_iris, nearest(metric="cosine")),
        ("iris-chebyshev", load_iris, nearest(metric="chebyshev")),
        ("iris-minkowski", load_iris, nearest(p=3)),
        ("iris-brute", load_iris, nearest(algorithm="brute")),
        ("iris-scaled", load_iris, make_pipeline(StandardScaler(), nearest())),
        ("iris-search", load_iris, GridSearchCV(nearest(), grid, cv=3)),
        ("iris-vote", load_iris, VotingClassifier(vote, voting="soft")),
        ("iris-hard-vote", load_iris, VotingClassifier(vote)),
        ("iris-bagging", load_iris, BaggingClassifier(nearest(), 3, random_state=0)),
        ("iris-value", load_iris, by_value()),
        ("wine", load_wine, nearest()),
        ("wine-scaled", load_wine, make_pipeline(StandardScaler(), nearest())),
        ("diabetes", load_diabetes, by_value()),
        ("diabetes-by-distance", load_diabetes, by_value(weights="distance")),
    ):
        group.add(f"neighbours-{name}", lambda m=model, d=load: _fitted(m, d))
    return group.cases


def _fitted(model: Any, load: Any) -> Trained:
    x, y = load(return_X_y=True)
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])
    return Trained(model.fit(table, y), table)
