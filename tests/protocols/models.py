"""The example models whose answers are compared, each with its columns and some rows of its
data."""

from typing import Any, NamedTuple

import numpy as np

from model_export.examples import cover, iris, penguins

ROWS = 12


class Example(NamedTuple):
    """One model."""

    name: str
    columns: list[str] | None
    rows: list[list[Any]]


def examples() -> list[Example]:
    """A matrix without names; texts, numbers and missing values; numbers and classes that are
    integers."""
    flowers = iris.features(iris.load())
    found = [Example("iris", None, flowers[:: len(flowers) // ROWS].tolist())]
    for name, data in (("penguins-svm", penguins), ("cover-small", cover)):
        frame = data.features(data.load()).dropna()
        some = frame.iloc[:: len(frame) // ROWS].head(ROWS)
        rows = [[_plain(value) for value in row] for row in some.itertuples(index=False)]
        found.append(Example(name, list(frame.columns), rows))
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
