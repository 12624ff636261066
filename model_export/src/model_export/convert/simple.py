"""Converts estimators whose answer is a constant, a line, a sum of table entries or a distance, and
for which skl2onnx has no conversion or an inexact one. All of them in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.naive_bayes import CategoricalNB
from sklearn.neighbors import NearestCentroid
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from model_export.convert.leaf import Classified
from model_export.convert.neighbours import distances
from model_export.convert.steps.kernels import weighted_kernel
from model_export.convert.steps.search import Lines
from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_export.convert.block import Block

_RANDOM = ("stratified", "uniform")


def _constant_class(features: Block, path: str, estimator: Any) -> Classified:
    """A DummyClassifier of a strategy that always answers the same."""
    if estimator.strategy in _RANDOM:
        raise ExportError(
            f"step {path!r} (DummyClassifier) answers at random, strategy={estimator.strategy!r}: "
            "train it with strategy='prior', 'most_frequent' or 'constant'"
        )
    given = estimator.predict_proba(np.zeros((1, estimator.n_features_in_)))[0]
    found = features.as_dtype("float64").repeated(given)
    return Classified(found.best(), found)


def _categorical(features: Block, path: str, estimator: Any) -> Classified:
    """CategoricalNB: the logarithms of the probabilities of each column's value, added up."""
    del path
    wide = features.as_dtype("float64")
    total = wide.repeated(np.asarray(estimator.class_log_prior_, dtype=np.float64))
    for i, logarithms in enumerate(estimator.feature_log_prob_):
        column = wide.columns((i,))
        last = float(logarithms.shape[1] - 1)
        index = column.where(column.missing(), 0.0).apply("Max", 0.0).apply("Min", last)
        part = column.rows_of(np.asarray(logarithms, dtype=np.float64).T, index.indices())
        # scikit-learn raises on a value that it did not learn.
        for operator, end in (("Less", 0.0), ("GreaterOrEqual", last + 1.0)):
            part = part.where(column.test(operator, end), np.nan)
        total = total + part
    return Classified(total.best(), total.apply("Softmax", axis=1))


def _constant_value(features: Block, path: str, estimator: Any) -> Block:
    """A DummyRegressor."""
    del path
    return features.as_dtype("float64").repeated(np.asarray(estimator.constant_).reshape(-1))


def _isotonic(features: Block, path: str, estimator: Any) -> Block:
    """IsotonicRegression: lines between its points; outside of them no number, unless it clips."""
    del path
    x, y = (np.asarray(v) for v in (estimator.X_thresholds_, estimator.y_thresholds_))
    column = features.as_dtype("float32" if x.dtype == np.float32 else features.dtype)
    column = column.as_dtype("float64")
    if len(x) == 1:
        return column.repeated(y)
    found = Lines([x.astype(np.float64)], [y.astype(np.float64)]).at(column)
    if estimator.out_of_bounds == "clip":
        return found
    for operator, end in (("Less", x[0]), ("Greater", x[-1])):
        found = found.where(column.test(operator, float(end)), np.nan)
    return found


def _kernel_ridge(features: Block, path: str, estimator: Any) -> Block:
    """KernelRidge: the kernel with each training row, weighted."""
    rows = np.asarray(estimator.X_fit_, dtype=np.float64)
    weights = np.asarray(estimator.dual_coef_, dtype=np.float64).reshape(len(rows), -1)
    return weighted_kernel(features, path, estimator, rows, weights)


def _centroids(features: Block, path: str, estimator: Any) -> Classified:
    """NearestCentroid: the nearest centroid, or the best score where the priors differ; the
    probabilities are always those of the scores."""
    scores, priors = _centroid_scores(features, path, estimator), estimator.class_prior_
    label = scores.best()
    if np.isclose(priors, 1.0 / len(priors)).all():
        wide = features.as_dtype("float64")
        label = (-distances(wide, estimator.centroids_, estimator.metric)).best()
    has_shares = estimator.metric == "euclidean"
    return Classified(label, scores.apply("Softmax", axis=1) if has_shares else None)


def _centroid_scores(features: Block, path: str, estimator: Any) -> Block:
    """[N, C]: each class's score, by the distance in units of the spread within the classes."""
    if estimator.metric not in ("euclidean", "manhattan"):
        raise ExportError(
            f"step {path!r} (NearestCentroid) has the metric {estimator.metric!r}, which cannot be "
            "converted: train it with metric='euclidean' or 'manhattan'"
        )
    spread = np.asarray(estimator.within_class_std_dev_, dtype=np.float64)
    scale = np.where(spread != 0, spread, 1.0)
    block, centroids = features.as_dtype("float64") / scale, estimator.centroids_ / scale
    apart = distances(block, centroids, estimator.metric)
    squared = apart if estimator.metric == "euclidean" else apart * apart
    scores: Block = -squared + 2.0 * np.log(np.asarray(estimator.class_prior_))
    return scores


def _centroid_decision(features: Block, path: str, estimator: Any) -> Block:
    """[N, C], or [N, 1] for two classes."""
    scores = _centroid_scores(features, path, estimator)
    return scores if scores.width > 2 else scores.columns((1,)) - scores.columns((0,))


def _spread(features: Block, path: str, estimator: Any) -> Classified:
    """LabelPropagation and LabelSpreading: the labels of the training rows, weighted by a kernel;
    far from all of them no number, and the first label."""
    rows = np.asarray(estimator.X_, dtype=np.float64)
    known = np.asarray(estimator.label_distributions_, dtype=np.float64)
    if estimator.kernel != "rbf":
        raise ExportError(
            f"step {path!r} ({type(estimator).__name__}) has the kernel "
            f"{getattr(estimator.kernel, '__name__', estimator.kernel)!r}, which cannot be "
            "converted: train it with kernel='rbf', or train a KNeighborsClassifier on its "
            "transduction_"
        )
    sums = weighted_kernel(features, path, estimator, rows, known, gamma=float(estimator.gamma))
    shares = sums / sums.reduced("ReduceSum")
    return Classified(shares.best(), shares)


CLASSIFIERS: Mapping[type, Callable[[Block, str, Any], Classified]] = {
    CategoricalNB: _categorical,
    DummyClassifier: _constant_class,
    LabelPropagation: _spread,
    LabelSpreading: _spread,
    NearestCentroid: _centroids,
}
DECISIONS: Mapping[type, Callable[[Block, str, Any], Block]] = {
    NearestCentroid: _centroid_decision,
}
REGRESSORS: Mapping[type, Callable[[Block, str, Any], Block]] = {
    DummyRegressor: _constant_value,
    IsotonicRegression: _isotonic,
    KernelRidge: _kernel_ridge,
}
