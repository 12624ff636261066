"""Data that the models of the matrix are trained on: small, made up, the same in every run."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification, make_regression

ROWS = 300


def numbers(classes: int = 2, columns: int = 6) -> tuple[pd.DataFrame, Any]:
    """A table of numbers with classes 0, 1, …"""
    x, y = make_classification(
        ROWS,
        columns,
        n_informative=columns - 1,
        n_redundant=0,
        n_classes=classes,
        n_clusters_per_class=1,
        random_state=1,
    )
    return named(x), y


def values(columns: int = 6, targets: int = 1) -> tuple[pd.DataFrame, Any]:
    """A table of numbers with one or more values to estimate."""
    x, y = make_regression(ROWS, columns, n_targets=targets, noise=5.0, random_state=1)
    return named(x), y / 50


def named(x: Any) -> pd.DataFrame:
    """Columns f0, f1, …"""
    return pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])


def with_gaps(x: pd.DataFrame) -> pd.DataFrame:
    """A tenth of the numbers missing."""
    return x.mask(np.random.default_rng(0).random(x.shape) < 0.1)


def customers() -> tuple[pd.DataFrame, Any]:
    """Customers with numbers, a count, text categories, some of both missing; do they leave?"""
    rng = np.random.default_rng(4)
    table = pd.DataFrame(
        {
            "age": rng.normal(45.0, 12.0, ROWS).round(1),
            "income": rng.lognormal(10.0, 0.5, ROWS).round(2),
            "visits": rng.integers(0, 20, ROWS),
            "city": rng.choice(["Ghent", "Lyon", "Turin"], ROWS),
            "plan": rng.choice(["basic", "plus"], ROWS),
        }
    )
    score = 0.05 * table["age"] + 0.2 * table["visits"] + 2.0 * (table["city"] == "Lyon")
    leaves = (score + rng.normal(0.0, 1.0, ROWS) > 5.0).astype(int)
    table.loc[rng.random(ROWS) < 0.1, "income"] = np.nan
    return table, np.asarray(leaves)


def spent() -> tuple[pd.DataFrame, Any]:
    """The customers, and what they spend: a positive value."""
    table, leaves = customers()
    return table, table["age"].to_numpy() * 1.5 + 10.0 * leaves + table["visits"].to_numpy()


def messages() -> tuple[pd.DataFrame, Any]:
    """Short texts; are they unwanted?"""
    rng = np.random.default_rng(5)
    wanted = ["meeting", "report", "lunch", "project", "thanks", "monday"]
    unwanted = ["free", "winner", "cash", "offer", "click", "now"]
    target = rng.integers(0, 2, ROWS)
    texts = [" ".join(rng.choice(unwanted if each else wanted, 4)) for each in target]
    return pd.DataFrame({"text": texts}), target


LABELS: dict[str, Any] = {
    "strings": np.array(["no", "yes"]),
    "booleans": np.array([False, True]),
    "floats": np.array([0.0, 1.0]),
    "negative": np.array([-1, 1]),
    "large": np.array([10**12, 10**13]),
    "objects": np.array(["a b", "ü"], dtype=object),
}
"""Classes as people name them. Fractions are none: scikit-learn trains no classifier on them."""
