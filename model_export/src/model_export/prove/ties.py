"""Finds out whether a row lies exactly between two answers of a fitted part: a tie, or a threshold
that float32 cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.impute import KNNImputer
from sklearn.metrics.pairwise import nan_euclidean_distances

from model_export.convert.boosters.register import is_boosted
from model_export.prove.thresholds import trace, tree_splits

if TYPE_CHECKING:
    from model_export.study.arrays import Flags, Values
    from model_export.study.study import StudiedModel

_NEAR = 1e-6
"""Scores, votes and distances that differ by less, relative to max(1, |value|), are a tie: float32
holds seven digits."""
_ULPS = 4.0 * float(np.finfo(np.float32).eps)


def tie(part: Any, read: Values, *, of_labels: bool) -> str | None:
    """What is equal, if the row is a tie for a fitted part; otherwise None.

    Args:
        part: a fitted step or estimator.
        read: float64[W], what it reads.
        of_labels: the labels differ, so equal scores are a tie as well as equal distances.
    """
    row, found = read.reshape(1, -1), None
    if hasattr(part, "kneighbors") and getattr(part, "n_neighbors", None):
        found = _of_neighbours(part, row)
    elif hasattr(part, "radius_neighbors") and getattr(part, "radius", None):
        found = _of_radius(part, row)
    elif isinstance(part, KNNImputer):
        found = _of_donors(part, row)
    return found or (_of_scores(part, row) if of_labels else None)


def _of_neighbours(part: Any, row: Any) -> str | None:
    count = part.n_neighbors
    if part.n_samples_fit_ <= count:
        return None
    last, following = part.kneighbors(row, count + 1)[0][0][-2:]
    if following - last > _near(last):
        return None
    return (
        f"the training rows that are nearest in place {count} and {count + 1} are at the same "
        f"distance, {last:.6g}, and only one of them counts"
    )


def _of_radius(part: Any, row: Any) -> str | None:
    radius = part.radius
    near = _near(radius)
    inner, outer = (
        len(part.radius_neighbors(row, radius + change, return_distance=False)[0])
        for change in (-near, near)
    )
    if inner == outer:
        return None
    return f"a training row is at the distance of the radius itself, {radius:.6g}"


def _of_donors(part: Any, row: Any) -> str | None:
    """Of a KNNImputer: rows of the training data that it may fill a number from."""
    distances = np.sort(nan_euclidean_distances(row, part._fit_X)[0])  # noqa: SLF001
    distances = distances[~np.isnan(distances)]
    equal = np.flatnonzero(np.diff(distances) <= _near(distances[:-1]))
    if not len(equal):
        return None
    return (
        "training rows from which a missing number may be filled are at the same distance, "
        f"{distances[equal[0]]:.6g}"
    )


def _of_scores(part: Any, row: Any) -> str | None:
    if hasattr(part, "decision_function"):
        scores = np.asarray(part.decision_function(row), dtype=np.float64)
        scores = np.asarray([[-scores[0], scores[0]]]) / 2.0 if scores.ndim == 1 else scores
    elif hasattr(part, "predict_proba"):
        scores = np.asarray(part.predict_proba(row), dtype=np.float64)
    else:
        return None
    second, first = np.argsort(scores[0])[-2:]
    if scores[0][first] - scores[0][second] > _near(scores[0][first]):
        return None
    classes = np.asarray(part.classes_).tolist()
    return (
        f"the classes {classes[second]!r} and {classes[first]!r} have equal scores or votes, "
        f"{scores[0][first]:.6g}"
    )


def _near(value: Any) -> Any:
    return _NEAR * np.maximum(1.0, np.abs(value))


def crossed(part: Any, registered: Values, graph: Values) -> tuple[int, float] | None:
    """The feature and the threshold of a split that two readings of one row pass on different
    sides; None if there is none.

    Args:
        part: trees, or an ensemble of them.
        registered: float64[W], the features as the registered model computes them.
        graph: the same as the graph computes them.
    """
    if registered.shape != graph.shape:
        return None
    if not is_boosted(part):  # scikit-learn's own trees compare float32
        registered = registered.astype(np.float32).astype(np.float64)
    for features, thresholds in tree_splits(part):
        first, second = (x[np.asarray(features, np.int64)] for x in (registered, graph))
        apart: Flags = np.asarray(
            ((first <= thresholds) != (second <= thresholds))
            | ((first < thresholds) != (second < thresholds))
        )
        if apart.any():
            i = int(np.argmax(apart))
            return int(features[i]), float(thresholds[i])
    return None


def near_threshold(part: Any, read: Values) -> tuple[int, float] | None:
    """The feature and the threshold of a split at which the row lies, as float32 sees it; None if
    there is none."""
    for features, thresholds in tree_splits(part):
        values = read[np.asarray(features, np.int64)]
        near = np.abs(values - thresholds) <= _ULPS * np.abs(thresholds)
        if near.any():
            i = int(np.argmax(near))
            return int(features[i]), float(thresholds[i])
    return None


def split_place(studied: StudiedModel, part: Any, feature: int, threshold: float) -> str:
    """Where a split is: in the raw column that the feature is made of, if that is known."""
    if part is studied.anatomy.final[1] and (lineage := trace(studied.anatomy)) is not None:
        source = lineage[feature]
        if source is not None:
            name = f"column {studied.schema.columns[source.column].name!r}"
            if (source.scale, source.offset) == (1.0, 0.0):
                return f"{name} at {threshold:.17g}"
            raw = float(source.to_column(np.asarray([threshold]))[0])
            return f"{name} at {raw:.9g}, where the feature is {threshold:.17g}"
    names = getattr(part, "feature_names_in_", None)
    name = f"feature {feature + 1}" if names is None else f"feature {str(names[feature])!r}"
    return f"{name} at {threshold:.17g}"
