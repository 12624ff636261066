"""Steps that choose, multiply or project columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.convert.steps.functions import expit
from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.convert.block import Block


def write_selector(block: Block, path: str, step: Any) -> Block:
    """Any selector of features: those that it kept."""
    del path
    return block.columns(tuple(int(i) for i in step.get_support(indices=True)))


def write_polynomial(block: Block, path: str, step: Any) -> Block:
    """PolynomialFeatures: products of columns, one factor after the other."""
    del path
    factors = [
        [column for column, power in enumerate(powers) for _ in range(int(power))]
        for powers in step.powers_
    ]
    one = block.width
    wide = block.joined([block, block.repeated(np.ones(1))])
    product: Block | None = None
    for turn in range(max(map(len, factors), default=0)):
        # The last factor first: scikit-learn multiplies a column with a product of later ones.
        chosen = [own[-1 - turn] if turn < len(own) else one for own in factors]
        factor = wide.columns(tuple(chosen))
        product = factor if product is None else factor * product
    return product if product is not None else block.repeated(np.ones(len(factors)))


def write_weight(block: Block, path: str, step: Any) -> Block:
    """A weight of a ColumnTransformer or FeatureUnion."""
    del path
    return block * float(step.factor)


def write_same(block: Block, path: str, step: Any) -> Block:
    """A step that only says which values there are."""
    del path, step
    return block


def write_rotation(block: Block, path: str, step: Any) -> Block:
    """The scores of partial least squares (PLSRegression and the like) as features."""
    del path
    centred: Block = (block - step._x_mean) / step._x_std  # noqa: SLF001  no public name
    rotation = step.x_rotations_ if hasattr(step, "x_rotations_") else step.x_weights_
    return centred.times(np.asarray(rotation, dtype=np.float64))


def write_components(block: Block, path: str, step: Any) -> Block:
    """The rows along the components of a FastICA or of a random projection."""
    del path
    centred: Block = block - step.mean_ if getattr(step, "whiten", False) else block
    components = step.components_
    dense = components.toarray() if hasattr(components, "toarray") else components
    return centred.times(np.asarray(dense, dtype=np.float64).T)


def write_pooled(block: Block, path: str, step: Any) -> Block:
    """A FeatureAgglomeration: the mean of each group of columns."""
    if step.pooling_func is not np.mean:
        raise ExportError(
            f"step {path!r} (FeatureAgglomeration) pools columns by a function that cannot be "
            "converted to ONNX: train it with pooling_func=numpy.mean"
        )
    groups = np.eye(step.n_clusters_)[step.labels_]
    return block.times(groups / groups.sum(axis=0))


def write_hidden(block: Block, path: str, step: Any) -> Block:
    """A BernoulliRBM: the probabilities of its hidden units."""
    del path
    components = np.asarray(step.components_, dtype=np.float64)
    return expit(block.times(components.T) + step.intercept_hidden_)


def write_factors(block: Block, path: str, step: Any) -> Block:
    """FactorAnalysis: the means of the latent variables."""
    del path
    scaled = step.components_ / step.noise_variance_
    covariance = np.linalg.inv(np.eye(len(scaled)) + scaled @ step.components_.T)
    centred: Block = block - step.mean_
    return centred.times(scaled.T @ covariance)


def write_sparse_components(block: Block, path: str, step: Any) -> Block:
    """SparsePCA: the ridge regression of a row on the components."""
    del path
    components = np.asarray(step.components_, dtype=np.float64)
    square = components @ components.T + step.ridge_alpha * np.eye(len(components))
    centred: Block = block - step.mean_
    return centred.times(np.linalg.solve(square, components).T)


def write_discriminant(block: Block, path: str, step: Any) -> Block:
    """LinearDiscriminantAnalysis in front of another estimator: the rows along its axes."""
    del path
    centred = block - step.xbar_ if step.solver == "svd" else block
    axes = np.asarray(step.scalings_, dtype=np.float64)
    return centred.times(axes[:, : step._max_components])  # noqa: SLF001  no public name


def write_distances(block: Block, path: str, step: Any) -> Block:
    """KMeans in front of another estimator: the distance to each centre, as scikit-learn computes
    it."""
    del path
    centres = np.asarray(step.cluster_centers_, dtype=np.float64)
    squares = (block * block).reduced("ReduceSum")
    own = (centres * centres).sum(axis=1).reshape(1, -1)
    apart: Block = block.times(centres.T) * -2.0 + squares + own
    return apart.apply("Max", 0.0).apply("Sqrt")
