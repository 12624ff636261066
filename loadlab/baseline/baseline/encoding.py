"""What a fitted pipeline does to each column before its classifier, read out of it: so that it can
be done without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler


@dataclass(frozen=True)
class Column:
    """One column of a record."""

    name: str
    missing: Any = np.nan
    """What replaces null."""
    mean: float = 0.0
    scale: float = 1.0
    categories: Sequence[str] | None = None
    """None: a number."""

    def scaled(self, value: Any) -> Any:
        """A number as the classifier takes it."""
        return (value - self.mean) / self.scale if self.scale != 1.0 or self.mean else value

    def values(self, value: Any) -> list[float]:
        """One value as the classifier takes it: a number, or an indicator per category; an unknown
        category has none."""
        value = self.missing if value is None else value
        if self.categories is None:
            return [self.scaled(value)]
        return [float(category == value) for category in self.categories]


class Encoding:
    """All columns, in the order in which the classifier takes them.

    Args:
        columns: none: the record's own, as they are.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    @classmethod
    def of(cls, pipeline: Any) -> "Encoding":
        """Of a classifier alone, or a pipeline of a `ColumnTransformer` and one.

        Raises:
            TypeError: a step that is none of one-hot, impute, scale and passthrough.
        """
        if not hasattr(pipeline, "steps"):
            return cls([])
        prepare: ColumnTransformer = pipeline[0]
        named = list(prepare.feature_names_in_)
        return cls(
            [
                _column(
                    str(named[column]) if isinstance(column, int) else str(column),
                    place,
                    _steps(transformer),
                )
                for _, transformer, columns in prepare.transformers_
                for place, column in enumerate(columns)
            ]
        )

    def columns(self, record: Mapping[str, Any]) -> Sequence[Column]:
        """The columns of a record."""
        return self._columns or [Column(name) for name in record]

    def names(self, record: Mapping[str, Any]) -> list[str]:
        """The names of the classifier's inputs, as `COLUMN` or `COLUMN_CATEGORY`."""
        found = []
        for column in self.columns(record):
            found += (
                [column.name]
                if column.categories is None
                else [f"{column.name}_{category}" for category in column.categories]
            )
        return found

    def row(self, record: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """A record as float64[1, F]."""
        return np.array(
            [
                [
                    value
                    for column in self.columns(record)
                    for value in column.values(record[column.name])
                ]
            ]
        )


def _steps(transformer: Any) -> list[Any]:
    return (
        [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
    )


def _column(name: str, place: int, steps: Sequence[Any]) -> Column:
    known: dict[str, Any] = {}
    for step in steps:
        match step:
            case SimpleImputer():
                known["missing"] = step.statistics_[place]
            case StandardScaler():
                known["mean"], known["scale"] = step.mean_[place], step.scale_[place]
            case OneHotEncoder():
                known["categories"] = [str(category) for category in step.categories_[place]]
            case _ if step != "passthrough" and "FunctionTransformer" not in type(step).__name__:
                raise TypeError(
                    f"column {name}: {type(step).__name__} is unknown: expected one-hot, impute, "
                    "scale or passthrough"
                )
    return Column(name, **known)
