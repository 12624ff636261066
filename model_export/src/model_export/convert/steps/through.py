"""Sends a block through one fitted step: by a conversion of our own, otherwise by skl2onnx."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.cluster import FeatureAgglomeration
from sklearn.cluster._kmeans import _BaseKMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSSVD
from sklearn.cross_decomposition._pls import _PLS
from sklearn.decomposition import FactorAnalysis, FastICA
from sklearn.decomposition._sparse_pca import _BaseSparsePCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.impute._iterative import IterativeImputer  # the public name needs a switch
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
)
from sklearn.random_projection import SparseRandomProjection

from model_export.convert import leaf
from model_export.convert.block import Block, convert_piece
from model_export.convert.graph import Mark
from model_export.convert.steps import bins, functions, impute, kernels, scale, select
from model_export.errors import ExportError, plain
from model_export.study.anatomy import Weight, WholeNumbers, does_nothing, fan_out
from model_export.study.members import unwrapped
from model_export.study.own_categories import PandasCategories

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_export.study.anatomy import Branch, Step

    Writer = Callable[[Block, str, Any], Block]


def _refuse_categories(_block: Block, path: str, encoder: Any) -> Block:
    """An encoder of a booster's own categories in front of which another step stands."""
    raise ExportError(
        f"step {path!r}: the booster takes a column of the pandas type category, of which a step "
        f"before it makes its column {encoder.feature!r}: pass the column on as it is, by "
        "remainder='passthrough' of a ColumnTransformer with set_output(transform='pandas'), or "
        "encode it with an OrdinalEncoder"
    )


_WRITERS: dict[type, Writer] = {
    AdditiveChi2Sampler: kernels.write_additive,
    BernoulliRBM: select.write_hidden,
    Binarizer: bins.write_binarizer,
    FactorAnalysis: select.write_factors,
    FastICA: select.write_components,
    FeatureAgglomeration: select.write_pooled,
    FunctionTransformer: functions.write_function,
    IterativeImputer: impute.write_iterative,
    KBinsDiscretizer: bins.write_bins,
    KNNImputer: impute.write_neighbours,
    LinearDiscriminantAnalysis: select.write_discriminant,
    MissingIndicator: impute.write_indicator,
    Normalizer: scale.write_normalizer,
    Nystroem: kernels.write_nystroem,
    PLSSVD: select.write_rotation,
    PandasCategories: _refuse_categories,
    PolynomialCountSketch: kernels.write_count_sketch,
    PolynomialFeatures: select.write_polynomial,
    PowerTransformer: scale.write_power,
    QuantileTransformer: scale.write_quantiles,
    RBFSampler: kernels.write_random_features,
    SelectorMixin: select.write_selector,
    SimpleImputer: impute.write_simple,
    _BaseSparsePCA: select.write_sparse_components,
    SkewedChi2Sampler: kernels.write_skewed,
    SparseRandomProjection: select.write_components,
    SplineTransformer: bins.write_splines,
    TfidfTransformer: scale.write_weights,
    Weight: select.write_weight,
    WholeNumbers: select.write_same,
    _BaseKMeans: select.write_distances,
    _PLS: select.write_rotation,
}


def through(block: Block, step: Step) -> Block:
    """The block after one fitted transformer.

    Raises:
        ExportError: it cannot be converted to ONNX.
    """
    path, transformer = step
    transformer = unwrapped(transformer)
    if does_nothing(transformer):
        return block
    after = _after(block, path, transformer)
    if not isinstance(transformer, Pipeline | ColumnTransformer | FeatureUnion):
        mark = Mark(path, transformer, "features", block.name, after.name)
        block.builder.marks.append(mark)
    return after


def _after(block: Block, path: str, transformer: Any) -> Block:
    if isinstance(transformer, Pipeline):
        for name, child in transformer.steps:
            block = through(block, (f"{path}/{name}", child))
        return block
    if isinstance(transformer, ColumnTransformer | FeatureUnion):
        parts = fan_out(
            path, transformer, tuple(range(block.width)), column_names(transformer, block)
        )
        return joined(block, parts, lambda branch: along(block.columns(branch.columns), branch))
    for kind, write in _WRITERS.items():
        if isinstance(transformer, kind):
            # The step itself computes in float64; what it read is as exact as the graph's input.
            return write(block.as_dtype("float64"), path, transformer).as_dtype(block.dtype)
    dense = _dense(leaf.known_class(transformer))
    model = convert_piece(path, dense, block.width, block.dtype, {})
    name, *others = block.builder.embed(model, block.name)
    if others:
        raise ExportError(
            f"step {path!r} ({type(transformer).__name__}) is an estimator in front of another "
            "one, which cannot be converted to ONNX: use a transformer of scikit-learn, or do its "
            "work before the model is called"
        )
    width = _width_after(path, transformer, block.width)
    # Of encoders skl2onnx answers float32 to a float64 input, too.
    return Block(block.builder, name, width, leaf.dtype_of(model, 0)).as_dtype(block.dtype)


def _dense(transformer: Any) -> Any:
    """A RandomTreesEmbedding with `sparse_output=False`, which answers the same numbers; skl2onnx
    converts no other. Any other step as it is."""
    if not isinstance(transformer, RandomTreesEmbedding) or not transformer.sparse_output:
        return transformer
    dense = copy.copy(transformer)
    dense.sparse_output = False
    dense.one_hot_encoder_ = copy.copy(transformer.one_hot_encoder_)
    dense.one_hot_encoder_.sparse_output = False
    return dense


def joined(block: Block, parts: Sequence[Branch], convert: Callable[[Branch], Block]) -> Block:
    """The features of parallel branches side by side."""
    made = [convert(part) for part in parts]
    return made[0] if len(made) == 1 else block.joined(made)


def along(block: Block, branch: Branch) -> Block:
    """A branch that reads a block of numbers."""
    if branch.parts:
        places = {column: i for i, column in enumerate(branch.columns)}
        parts = [part.moved(places) for part in branch.parts]
        block = joined(block, parts, lambda part: along(block.columns(part.columns), part))
    for step in (*branch.encode, *branch.steps):
        block = through(block, step)
    return block


def column_names(transformer: Any, block: Block) -> list[str]:
    """The names of the columns that it reads: those of scikit-learn's set_output, if it saw any."""
    names = getattr(transformer, "feature_names_in_", None)
    if names is not None and len(names) == block.width:
        return [str(name) for name in names]
    return [f"x{i}" for i in range(block.width)]


def _width_after(path: str, transformer: Any, width: int) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing column names: only the width matters
            return int(transformer.transform(np.zeros((1, width))).shape[1])
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ExportError(
            f"step {path!r} ({type(transformer).__name__}) does not turn a matrix into a matrix"
            f"{plain(error, 200)}: use another step, or do its work before the model is called"
        ) from error
