"""Converts KNeighborsClassifier and KNeighborsRegressor.

skl2onnx's graph walks over the rows of a request in a loop, which takes most of an export's time.
Here each column adds its part to the distances from all training rows, in float64 and in the order
of scikit-learn's trees: so the distances are those of scikit-learn, and so are the neighbours,
also of a row between two of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

if TYPE_CHECKING:
    from model_export.convert.block import Block
    from model_export.study.arrays import Matrix

_METRICS = ("euclidean", "manhattan", "chebyshev")
_MOST_COLUMNS = 64
"""Each is a few operators. With more than 15 scikit-learn multiplies matrices by default, and its
distances are rounded otherwise."""
_MOST_ROWS = 5_000
"""Of the training: a proof compares 10,000 rows with all of them at once, which are 400 MB."""


def is_known(estimator: Any) -> bool:
    """True for neighbours that can be converted here; skl2onnx converts more metrics."""
    if type(estimator) not in (KNeighborsClassifier, KNeighborsRegressor):
        return False
    rows = estimator._fit_X  # noqa: SLF001  no public name
    return (
        isinstance(rows, np.ndarray)
        and rows.dtype == np.float64
        and rows.shape[0] <= _MOST_ROWS
        and rows.shape[1] <= _MOST_COLUMNS
        and estimator.effective_metric_ in _METRICS
        and estimator.weights in ("uniform", "distance", None)
        and not getattr(estimator, "outputs_2d_", False)
    )


def shares(features: Block, estimator: Any) -> Block:
    """A classifier's probabilities, float64 [N, C]: each class's part of the neighbours."""
    distance, at = _nearest(features, estimator)
    found = distance.picked(np.asarray(estimator._y, dtype=np.float64), at)  # noqa: SLF001
    classes = range(len(estimator.classes_))
    votes = [found.flags(found.test("Equal", float(label))) for label in classes]
    return _means(votes, distance, estimator)


def values(features: Block, estimator: Any) -> Block:
    """A regressor's values, float64 [N, K]: the mean of the neighbours' values."""
    distance, at = _nearest(features, estimator)
    known = np.asarray(estimator._y, dtype=np.float64)  # noqa: SLF001  no public name
    targets = known.reshape(len(known), -1).T
    return _means([distance.picked(target, at) for target in targets], distance, estimator)


def _nearest(features: Block, estimator: Any) -> tuple[Block, str]:
    """[N, k]: the neighbours' distances (squared, if Euclidean), and their rows."""
    rows = estimator._fit_X  # noqa: SLF001  no public name
    total = distances(features.as_dtype("float64"), rows, estimator.effective_metric_)
    return total.smallest(int(estimator.n_neighbors))


def distances(block: Block, rows: Matrix, metric: str) -> Block:
    """[N, M]: the distance (squared, if Euclidean) from each of M constant rows."""
    total: Block | None = None
    for column in range(block.width):
        apart = block.columns((column,)) - rows[:, column].reshape(1, -1)
        part = apart * apart if metric == "euclidean" else apart.apply("Abs")
        if total is None:
            total = part
        elif metric == "chebyshev":
            total = total.apply("Max", part)
        else:
            total = total + part
    assert total is not None  # noqa: S101  there is no model without columns
    return total


def _means(found: list[Block], distance: Block, estimator: Any) -> Block:
    """[N, K] of blocks [N, k]: the mean of each, by the weights of the neighbours."""
    if estimator.weights != "distance":
        count = float(estimator.n_neighbors)
        means = [each.reduced("ReduceSum") / count for each in found]
    else:
        weights = _inverse(distance, estimator)
        total = weights.reduced("ReduceSum")
        means = [(each * weights).reduced("ReduceSum") / total for each in found]
    return means[0].joined(means)


def _inverse(distance: Block, estimator: Any) -> Block:
    """[N, k]: the inverse of each distance; where a row is at distance 0, 1 for such rows alone."""
    if estimator.effective_metric_ == "euclidean":
        distance = distance.apply("Sqrt")
    at_zero = distance.test("Equal", 0.0)
    same = distance.flags(at_zero)
    inverse = distance.where(at_zero, 1.0).apply("Reciprocal")
    return inverse.where(same.reduced("ReduceMax").test("Greater", 0.0), same)
