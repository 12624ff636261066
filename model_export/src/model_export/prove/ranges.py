"""Finds the usual range of each column, from the data and from the fitted steps.

An input example of one row has no range, and rows drawn near it all get one label. But a scaler
keeps its mean, a tree its thresholds and a support vector machine some training rows. If a feature
is an affine function of one column, its range gives the column's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from model_export.prove.thresholds import lineages, through
from model_export.study.decision import unwrapped
from model_export.study.members import fitted_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model_export.prove.thresholds import Lineage
    from model_export.study.anatomy import Anatomy
    from model_export.study.arrays import Matrix, Values
    from model_export.study.schema import Schema

_DEVIATIONS = 3.0
"""A mean and a standard deviation give a range of so many deviations to both sides."""
_LARGEST = 1e30
"""Ranges end here, so that their products and sums stay finite."""
_CENTRES = (("mean_", "scale_"), ("center_", "scale_"))
_MATRICES = (
    "support_vectors_",
    "_fit_X",
    "X_train_",
    "X_fit_",
    "theta_",
    "means_",
    "centroids_",
    "cluster_centers_",
    "quantiles_",
)
"""Attributes that hold rows in a step's input features: rows of the training data, or their
means."""
_KEPT_ROWS = ("support_vectors_", "_fit_X", "X_train_", "X_fit_", "centroids_", "means_", "theta_")
"""Those of them whose rows differ in their answers."""


@dataclass(frozen=True)
class Ranges:
    """The least and the largest usual value of each column."""

    low: Values
    """float64[F]; 0 for a category or boolean."""
    high: Values
    """float64[F], above `low` for every number and integer."""
    rows: Matrix
    """float64[n, F], packed: rows that the fitted estimator holds; n may be 0."""


def find_ranges(
    data: Matrix, schema: Schema, anatomy: Anatomy, threshold_neighbours: Mapping[int, Values]
) -> Ranges:
    """Combine the ranges in the data with those in the fitted steps.

    Args:
        data: float64[n, F], packed rows, n ≥ 1.
        schema: of the columns.
        anatomy: of the model.
        threshold_neighbours: column → values around tree thresholds.
    """
    spans: dict[int, list[float]] = {}
    for position, values in threshold_neighbours.items():
        spans.setdefault(position, []).extend([float(values.min()), float(values.max())])
    kept = _collect(anatomy, spans)
    low, high = np.zeros(len(schema.columns)), np.zeros(len(schema.columns))
    for i, column in enumerate(schema.columns):
        if column.is_numeric:
            low[i], high[i] = _range(data[:, i], spans.get(i, []))
    return Ranges(low, high, _packed(kept, data, schema))


def _range(seen: Values, known: list[float]) -> tuple[float, float]:
    values = np.concatenate(
        [seen[~np.isnan(seen)], [value for value in known if abs(value) <= _LARGEST]]
    )
    if not len(values):
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:  # one value gives a position, but no width
        margin = max(1.0, abs(low))
        return low - margin, high + margin
    return low, high


def _collect(anatomy: Anatomy, spans: dict[int, list[float]]) -> list[tuple[Lineage, Matrix]]:
    """Add each step's ranges to `spans`; returns the rows that the final estimator holds, with the
    lineage of their features."""
    kept: list[tuple[Lineage, Matrix]] = []
    if anatomy.members:
        return [each for member in anatomy.members for each in _collect(member, spans)]
    for step, lineage in lineages(anatomy):
        _walk(step, lineage, spans, kept if step is anatomy.final[1] else [])
    return kept


def _walk(
    step: Any, lineage: Lineage, spans: dict[int, list[float]], kept: list[tuple[Lineage, Matrix]]
) -> None:
    """Add the ranges of a step and of the estimators inside it to `spans`, and their rows to
    `kept`."""
    _add_spans(step, lineage, spans)
    kept += [
        (lineage, rows)
        for name in _KEPT_ROWS
        if (rows := _matrix(step, name, len(lineage))) is not None
    ]
    for member, columns in _members(step):
        own = lineage if columns is None else [lineage[i] for i in columns]
        for inner in member.steps if isinstance(member, Pipeline) else [("", member)]:
            _walk(inner[1], own, spans, kept)
            after = through(own, (inner,)) if isinstance(member, Pipeline) else own
            if after is None:
                break
            own = after


def _add_spans(step: Any, lineage: Lineage, spans: dict[int, list[float]]) -> None:
    for low, high in _spans(step, len(lineage)):
        for source, a, b in zip(lineage, low, high, strict=True):
            if source is not None and source.scale != 0.0:
                ends = source.to_column(np.asarray([a, b], dtype=np.float64))
                spans.setdefault(source.column, []).extend(ends[np.isfinite(ends)].tolist())


def _members(step: Any) -> Iterator[tuple[Any, Any]]:
    """The fitted estimators inside one, each with the features that it reads (None: all)."""
    if hasattr(step, "tree_"):
        return
    inner = unwrapped(step)
    if inner is not step:
        yield inner, None
        return
    for member, columns in fitted_inside(step):
        if not isinstance(member, str) and not hasattr(member, "tree_"):
            yield member, columns
    for calibrated in getattr(step, "calibrated_classifiers_", ()):
        yield calibrated.estimator, None
    # An ensemble's `estimator_` is what its members were copied from, not fitted.
    if hasattr(step, "estimator_") and not hasattr(step, "estimators_"):
        yield step.estimator_, None


def _spans(step: Any, width: int) -> Iterator[tuple[Values, Values]]:
    """Least and largest value per feature, for each attribute of a step that shows them."""
    for centre_name, scale_name in _CENTRES:
        centre, scale = (_vector(step, name, width) for name in (centre_name, scale_name))
        if centre is not None and scale is not None:
            yield centre - _DEVIATIONS * scale, centre + _DEVIATIONS * scale
    low, high = _vector(step, "data_min_", width), _vector(step, "data_max_", width)
    if low is not None and high is not None:
        yield low, high
    if (largest := _vector(step, "max_abs_", width)) is not None:
        yield -largest, largest
    if (fill := _vector(step, "statistics_", width)) is not None:
        yield fill, fill
    for name in _MATRICES:
        if (rows := _matrix(step, name, width)) is not None:
            yield rows.min(axis=0), rows.max(axis=0)
    edges = getattr(step, "bin_edges_", None)
    if edges is not None and len(edges) == width:
        yield (
            np.asarray([e[0] for e in edges], dtype=np.float64),
            np.asarray([e[-1] for e in edges], dtype=np.float64),
        )


def _vector(step: Any, name: str, width: int) -> Values | None:
    values = getattr(step, name, None)
    return (
        values.astype(np.float64)
        if isinstance(values, np.ndarray)
        and values.shape == (width,)
        and values.dtype.kind in "fiu"
        else None
    )


def _matrix(step: Any, name: str, width: int) -> Matrix | None:
    values = getattr(step, name, None)
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != 2
        or values.shape[1] != width
        or values.dtype.kind not in "fiu"
    ):
        return None
    return values.astype(np.float64) if len(values) and bool(np.isfinite(values).all()) else None


_MOST_KEPT_ROWS = 1_000


def _packed(kept: list[tuple[Lineage, Matrix]], data: Matrix, schema: Schema) -> Matrix:
    """Kept rows, packed: columns that the earlier steps map one by one are mapped back, the others
    are taken from the data."""
    parts = []
    for lineage, rows in kept:
        chosen = rows[np.linspace(0, len(rows) - 1, min(_MOST_KEPT_ROWS, len(rows)), dtype=int)]
        packed = data[np.arange(len(chosen)) % len(data)].copy()
        for j, source in enumerate(lineage):
            if (
                source is not None
                and source.scale != 0.0
                and schema.columns[source.column].is_numeric
            ):
                packed[:, source.column] = source.to_column(chosen[:, j])
        parts.append(packed)
    return np.concatenate(parts)[:_MOST_KEPT_ROWS] if parts else np.empty((0, len(schema.columns)))
