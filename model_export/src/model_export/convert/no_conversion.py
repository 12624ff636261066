"""The estimators of scikit-learn that have no conversion, why, and what to use in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.cluster import Birch
from sklearn.decomposition import (
    NMF,
    DictionaryLearning,
    LatentDirichletAllocation,
    MiniBatchDictionaryLearning,
    MiniBatchNMF,
    SparseCoder,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.manifold import Isomap, LocallyLinearEmbedding
from sklearn.neighbors import (
    KNeighborsTransformer,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RadiusNeighborsTransformer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOLVES = "it solves an optimization problem for each row, step by step"
_GRAPH = "it answers a graph of neighbours, one column for each training row"
_BY_ROW = "use PCA, TruncatedSVD, FastICA or SparsePCA, which are products with what they learned"
_OTHER_KERNEL = "use a KernelPCA or a Nystroem"
_NO_GRAPH = "use a KNeighborsClassifier or KNeighborsRegressor without a step before it"
KNOWN: Mapping[type, tuple[str, str]] = {
    Birch: ("no conversion of its distances is known", "use a KMeans or MiniBatchKMeans"),
    DictionaryLearning: (_SOLVES, _BY_ROW),
    # For two classes skl2onnx needs an operator of ONNX Runtime's contributions, and it converts no
    # more than two.
    GaussianProcessClassifier: (
        "its integrals are no operators of the standard",
        "use an SVC in a CalibratedClassifierCV, or a LogisticRegression behind a Nystroem",
    ),
    Isomap: ("it searches shortest paths between training rows", _OTHER_KERNEL),
    # Without the search for equally far neighbours, which a proof needs.
    KNeighborsTransformer: (_GRAPH, _NO_GRAPH),
    LatentDirichletAllocation: (_SOLVES, _BY_ROW),
    LocallyLinearEmbedding: ("it solves a system of equations for each row", _OTHER_KERNEL),
    MiniBatchDictionaryLearning: (_SOLVES, _BY_ROW),
    MiniBatchNMF: (_SOLVES, _BY_ROW),
    NMF: (_SOLVES, _BY_ROW),
    # skl2onnx 1.20 converts neighbours within a radius to a graph that reads the training row -1
    # for a row that has not all training rows within the radius, at which ONNX Runtime fails.
    RadiusNeighborsClassifier: ("its conversion fails on most rows", "use a KNeighborsClassifier"),
    RadiusNeighborsRegressor: ("its conversion fails on most rows", "use a KNeighborsRegressor"),
    RadiusNeighborsTransformer: (_GRAPH, _NO_GRAPH),
    SparseCoder: (_SOLVES, _BY_ROW),
}
"""Class → why, and what to use."""


def why_not(step: Any) -> tuple[str, str] | None:
    """Why a step or estimator cannot be converted, and what to use; None if nothing is known of
    it."""
    return next((said for kind, said in KNOWN.items() if isinstance(step, kind)), None)
