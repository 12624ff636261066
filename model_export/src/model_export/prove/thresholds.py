"""Finds every split threshold of the trees, traced back to the raw column that it tests.

A feature that only scalers and imputers change is an affine function of one raw column, so a
threshold on the feature is a threshold on the column. Features of encoders need no such rows: every
category occurs in the sample anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from model_export.convert.boosters.register import read as boosted_trees
from model_export.study.members import fitted_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.study.anatomy import Anatomy, Branch, Step
    from model_export.study.arrays import Values
    from model_export.study.schema import Column, Schema


@dataclass(frozen=True)
class Affine:
    """A feature that is `scale · column + offset`."""

    column: int
    scale: float = 1.0
    offset: float = 0.0

    def after(self, scale: float, offset: float) -> Affine:
        """This feature, scaled once more."""
        return Affine(self.column, self.scale * scale, self.offset * scale + offset)

    def to_column(self, feature: Values) -> Values:
        """The value of the raw column for which the feature is `feature`."""
        return (feature - self.offset) / self.scale


Lineage = list[Affine | None]
"""One entry per feature; None where it is not an affine function of one column."""


def trace(anatomy: Anatomy) -> Lineage | None:
    """The lineage of the final estimator's features; None if a step mixes columns in a way that is
    not known here."""
    return next((lineage for step, lineage in lineages(anatomy) if step is anatomy.final[1]), None)


def lineages(anatomy: Anatomy) -> Iterator[tuple[Any, Lineage]]:
    """Each fitted step with the lineage of its input features, in order; without the steps after
    one that mixes columns."""
    joined: Lineage | None = []
    for branch in anatomy.branches:
        found: list[tuple[Any, Lineage]] = []
        lineage = _along(branch, found)
        yield from found
        joined = None if joined is None or lineage is None else joined + lineage
    for step in (*anatomy.steps, anatomy.final):
        if joined is None:
            return
        yield step[1], joined
        joined = through(joined, (step,)) if step is not anatomy.final else joined


def _along(branch: Branch, found: list[tuple[Any, Lineage]]) -> Lineage | None:
    """The lineage after a branch; adds its steps with the lineages of their inputs to `found`."""
    lineage = _start(branch) if not branch.parts else []
    for part in branch.parts:
        own = _along(part, found)
        lineage = None if lineage is None or own is None else lineage + own
    for step in branch.steps:
        if lineage is None:
            break
        found.append((step[1], lineage))
        lineage = through(lineage, (step,))
    return lineage


def _start(branch: Branch) -> Lineage | None:
    if not branch.encode:
        return [Affine(column) for column in branch.columns]
    width = _output_width(branch.encode[-1][1])
    return None if width is None else [None] * width


def _output_width(encoder: Any) -> int | None:
    try:
        return len(encoder.get_feature_names_out())
    except (AttributeError, ValueError):
        return None


def through(lineage: Lineage, steps: tuple[Step, ...]) -> Lineage | None:
    """The lineage after some more steps; None if one of them is not a column-wise affine
    function."""
    for _, step in steps:
        affine = _affine_of(step, len(lineage))
        if affine is None or len(affine[0]) != len(lineage):
            return None
        lineage = [
            f if f is None else f.after(a, b) for f, a, b in zip(lineage, *affine, strict=True)
        ]
    return lineage


def _affine_of(step: Any, width: int) -> tuple[list[float], list[float]] | None:
    """Scale and offset of each feature of a column-wise step; None for any other step."""
    one, zero = np.ones(width), np.zeros(width)
    if (
        isinstance(step, SimpleImputer)
        and not step.add_indicator
        and step.statistics_.shape == (width,)
    ):
        return one.tolist(), zero.tolist()
    if isinstance(step, StandardScaler | RobustScaler):
        centre = step.mean_ if isinstance(step, StandardScaler) else step.center_
        scale = one if step.scale_ is None else 1.0 / step.scale_
        return scale.tolist(), (zero if centre is None else -centre * scale).tolist()
    if isinstance(step, MinMaxScaler):
        return step.scale_.tolist(), step.min_.tolist()
    if isinstance(step, MaxAbsScaler):
        return (1.0 / step.scale_).tolist(), zero.tolist()
    return None


def tree_splits(estimator: Any) -> Iterator[tuple[Values, Values]]:
    """Feature index and threshold of every split of every tree in an estimator, however nested its
    ensembles are."""
    if (ensemble := boosted_trees(estimator)) is not None:
        yield ensemble.splits()
        return
    if hasattr(estimator, "tree_"):
        inner = estimator.tree_.children_left >= 0
        yield estimator.tree_.feature[inner], estimator.tree_.threshold[inner]
        return
    # A BaggingClassifier's members each read some of the features.
    for member, columns in fitted_inside(estimator):
        for feature, threshold in tree_splits(member):
            yield feature if columns is None else np.asarray(columns)[feature], threshold
    for calibrated in getattr(estimator, "calibrated_classifiers_", ()):
        yield from tree_splits(calibrated.estimator)


def threshold_neighbours(anatomy: Anatomy, schema: Schema) -> dict[int, Values]:
    """For each raw column, the values around every threshold on it.

    Returns:
        column → sorted distinct float64 values: for numbers the float32 neighbours −2…+2 ulp of the
        threshold and the doubles at which rounding to float32 changes sides; for integers those on
        both sides. Empty where there are no trees or no lineage.
    """
    if anatomy.members:
        return _merged([threshold_neighbours(member, schema) for member in anatomy.members])
    lineage = trace(anatomy)
    splits = list(tree_splits(anatomy.final[1]))
    if lineage is None or not splits:
        return {}
    features = np.concatenate([feature for feature, _ in splits])
    thresholds = np.concatenate([threshold for _, threshold in splits])
    found: dict[int, list[Values]] = {}
    for i, source in enumerate(lineage):
        own = np.unique(thresholds[features == i])
        around = (
            None
            if source is None or source.scale == 0.0
            else _AROUND.get(schema.columns[source.column].kind)
        )
        if source is not None and around is not None and len(own):
            found.setdefault(source.column, []).append(around(source, own))
    return {
        i: _within_type(_finite(np.concatenate(values)), schema.columns[i])
        for i, values in found.items()
    }


def _within_type(values: Values, column: Column) -> Values:
    """Those that the column's type holds: −1 in a column of uint8 would be 255 for the model."""
    if column.kind != "integer":
        return values
    bounds = np.iinfo(column.dtype)
    return values[(values >= bounds.min) & (values <= bounds.max)]


def _merged(parts: list[dict[int, Values]]) -> dict[int, Values]:
    columns = {column for part in parts for column in part}
    return {
        column: np.unique(np.concatenate([part[column] for part in parts if column in part]))
        for column in sorted(columns)
    }


def _around(source: Affine, thresholds: Values) -> Values:
    """Neighbours of the thresholds in the column, and of the points at which the feature, rounded
    to float32, crosses a threshold."""
    below = thresholds.astype(np.float32)
    above = np.nextafter(below, np.float32(np.inf))
    with np.errstate(over="ignore"):
        midpoints = (below.astype(np.float64) + above.astype(np.float64)) / 2.0
        lower = (
            np.nextafter(below, np.float32(-np.inf)).astype(np.float64) + below.astype(np.float64)
        ) / 2.0
    doubles = [
        _double_neighbours(source.to_column(points)) for points in (thresholds, midpoints, lower)
    ]
    return np.concatenate([_float32_neighbours(source.to_column(thresholds)), *doubles])


def _float32_neighbours(values: Values) -> Values:
    steps = [values.astype(np.float32)]
    for direction in (np.float32(-np.inf), np.float32(np.inf)):
        once = np.nextafter(steps[0], direction)
        steps += [once, np.nextafter(once, direction)]
    return np.concatenate(steps).astype(np.float64)


def _double_neighbours(values: Values) -> Values:
    return np.concatenate([np.nextafter(values, -np.inf), values, np.nextafter(values, np.inf)])


def _around_integer(source: Affine, thresholds: Values) -> Values:
    floor = np.floor(source.to_column(thresholds))
    return np.concatenate([floor - 1, floor, floor + 1, floor + 2])


_AROUND = {"number": _around, "integer": _around_integer}


def _finite(values: Values) -> Values:
    """Distinct values that float32 can hold."""
    unique = np.unique(values)
    return unique[np.abs(unique) <= np.finfo(np.float32).max]
