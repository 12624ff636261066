"""Each step that the exporter converts itself answers as scikit-learn's, in float64, missing values
and edges included."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import helper
from scipy import special
from sklearn.cluster import FeatureAgglomeration, KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.cross_decomposition import PLSSVD, PLSRegression
from sklearn.datasets import load_iris
from sklearn.decomposition import FactorAnalysis, FastICA, MiniBatchSparsePCA, SparsePCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import (
    RFE,
    SelectFromModel,
    SelectKBest,
    VarianceThreshold,
)
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import SparseRandomProjection

from model_export.convert.block import ELEMENT, Block
from model_export.convert.graph import GraphBuilder
from model_export.convert.model import _value
from model_export.convert.steps.functions import _FUNCTIONS
from model_export.convert.steps.scale import inverted
from model_export.convert.steps.through import through
from model_export.errors import ExportError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 4)) * [1.0, 10.0, 0.1, 3.0]
Y = load_iris().target.repeat(2)
EDGES = np.vstack([X, X[:50] * 5.0, np.zeros((1, 4)), np.eye(4) * 1e-9])
GAPS = np.where(RNG.random(X.shape) < 0.2, np.nan, X)


def answered(convert: Any, rows: Any, dtype: Any = "float64") -> Any:
    """What the graph of `convert(block)` answers."""
    builder = GraphBuilder()
    block = convert(Block(builder, "rows", rows.shape[1], dtype))
    output = _value(block)
    rows_info = helper.make_tensor_value_info("rows", ELEMENT[dtype], ["N", rows.shape[1]])
    model = builder.build([rows_info], [output]).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"rows": rows.astype(dtype)})[0].reshape(len(rows), -1)


def check(step: Any, rows: Any, *, atol: float = 1e-11) -> None:
    """The step's features, in both of the graph's precisions."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for dtype, loss in (("float64", atol), ("float32", 1e-4)):
            asked = rows.astype(dtype).astype(np.float64)
            expected = step.transform(asked)
            expected = expected.toarray() if hasattr(expected, "toarray") else expected
            expected = np.asarray(expected, dtype=np.float64)
            found = answered(lambda block: through(block, ("step", step)), asked, dtype)
            np.testing.assert_allclose(found, expected, rtol=loss, atol=loss)


@pytest.mark.parametrize("name", sorted(_FUNCTIONS))
def test_a_function_of_numpy_or_scipy(name: str) -> None:
    """Where it has a value, the graph has it: to 1e-12 of its size, near 0 as well."""
    function = getattr(np, name, None) or getattr(special, name)
    rows = np.concatenate([X.ravel(), [1e-12, -1e-12, 0.25, 0.0, 1.5, -2.5]]).reshape(-1, 1)
    with np.errstate(all="ignore"):
        expected = function(rows)
    step = FunctionTransformer(function)

    found = answered(lambda block: through(block, ("step", step)), rows)

    known = np.isfinite(expected)
    assert known.sum() > 5
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (FunctionTransformer(lambda x: x + 1), "a function of your own cannot be converted"),
        (FunctionTransformer(np.linalg.norm), "norm cannot be converted"),
        (FunctionTransformer(np.round, kw_args={"decimals": 2}), "arguments .'decimals'."),
    ],
)
def test_any_other_function_is_refused_with_those_that_can_be_used(step: Any, named: str) -> None:
    """The refusal lists them."""
    with pytest.raises(ExportError, match=named) as refusal:
        answered(lambda block: through(block, ("step", step)), X)
    assert "log1p" in str(refusal.value)


def test_clip_with_its_arguments() -> None:
    """A function with arguments that has an ONNX form."""
    check(FunctionTransformer(np.clip, kw_args={"a_min": -1.0, "a_max": 2.0}), X)
    check(FunctionTransformer(functools.partial(np.clip, a_min=-1.0, a_max=2.0)), X)


def test_nan_to_num_replaces_what_is_missing() -> None:
    """By 0, and infinities by the largest numbers."""
    rows = np.vstack([GAPS, [[np.inf, -np.inf, np.nan, 1.0]]])
    step = FunctionTransformer(np.nan_to_num)
    found = answered(lambda block: through(block, ("step", step)), rows)
    assert np.array_equal(found, np.nan_to_num(rows))


def test_a_target_of_an_own_function_is_refused_with_what_helps_there() -> None:
    """No column can be computed in its place."""
    step = FunctionTransformer(np.log, lambda y: 2.0**y)
    with pytest.raises(ExportError, match="or train on the transformed target, and invert") as said:
        answered(lambda block: inverted(block, "target", step), X)
    assert "column" not in str(said.value)


STEPS = {
    "binarizer": Binarizer(),
    "bins onehot": KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"),
    "bins dense": KBinsDiscretizer(20, encode="onehot-dense", strategy="uniform"),
    "bins ordinal": KBinsDiscretizer(4, encode="ordinal", strategy="kmeans"),
    "many bins": KBinsDiscretizer(40, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "normalizer": Normalizer(),
    "normalizer l1": Normalizer("l1"),
    "normalizer max": Normalizer("max"),
    "polynomial": PolynomialFeatures(3),
    "interactions": PolynomialFeatures(2, interaction_only=True, include_bias=False),
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson bare": PowerTransformer(standardize=False),
    "quantiles": QuantileTransformer(n_quantiles=50),
    "quantiles normal": QuantileTransformer(n_quantiles=300, output_distribution="normal"),
    "splines": SplineTransformer(),
    "splines linear": SplineTransformer(degree=2, extrapolation="linear", include_bias=False),
    "splines of degree 0": SplineTransformer(degree=0, extrapolation="linear"),
    "splines with gaps": SplineTransformer(handle_missing="zeros"),
    "splines of degree 1": SplineTransformer(degree=1, extrapolation="linear"),
    "splines continued": SplineTransformer(extrapolation="continue", knots="quantile"),
    "splines periodic": SplineTransformer(extrapolation="periodic"),
    "k best": SelectKBest(k=2),
    "variance": VarianceThreshold(0.5),
    "selected": SelectFromModel(LogisticRegression()),
    "eliminated": RFE(LogisticRegression()),
    "discriminant": LinearDiscriminantAnalysis(),
    "discriminant of eigenvalues": LinearDiscriminantAnalysis(solver="eigen", n_components=1),
    "distances": KMeans(5, n_init=1, random_state=0),
    "distances of few rows": MiniBatchKMeans(5, n_init=1, random_state=0),
    "union": FeatureUnion(
        [("a", StandardScaler()), ("b", PolynomialFeatures()), ("c", "drop")],
        transformer_weights={"a": 2.0},
    ),
    "columns": ColumnTransformer(
        [("a", StandardScaler(), [2, 0]), ("b", make_pipeline(Normalizer()), slice(1, 3))],
        remainder="passthrough",
        transformer_weights={"b": 0.5},
    ),
    "columns in columns": make_column_transformer(
        (make_pipeline(make_column_transformer((StandardScaler(), [1])), Normalizer()), [0, 2, 3]),
        ("passthrough", [1]),
    ),
}


@pytest.mark.filterwarnings("ignore:Bins whose width:UserWarning")
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step(step: Any) -> None:
    """On the data, beyond it, on a row of zeros and on the bins' own edges."""
    step.fit(X, Y)
    rows = EDGES if getattr(step, "handle_missing", "") != "zeros" else GAPS
    if hasattr(step, "bin_edges_"):
        edges = [np.concatenate([e, np.nextafter(e, -np.inf)])[:80] for e in step.bin_edges_]
        rows = np.vstack([rows, np.column_stack([np.resize(e, 80) for e in edges])])
        expected = step.transform(rows)
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        found = answered(lambda block: through(block, ("step", step)), rows)
        assert np.array_equal(found, expected)
        return
    check(step, rows, atol=1e-10)


def test_box_cox() -> None:
    """It takes positive numbers only."""
    check(PowerTransformer("box-cox").fit(np.abs(X) + 0.1), np.abs(X) + 0.1)


def test_equal_quantiles() -> None:
    """Repeated values of the data: the mean of both sides."""
    counts = RNG.poisson(2, size=(300, 2)).astype(float)
    check(QuantileTransformer(n_quantiles=100).fit(counts), np.vstack([counts, [[-1.0, 99.0]]]))


IMPUTERS = {
    "mean": SimpleImputer(),
    "indicator": SimpleImputer(strategy="median", add_indicator=True),
    "constant": SimpleImputer(strategy="constant", fill_value=-1.0),
    "missing indicator": MissingIndicator(features="all"),
    "iterative": IterativeImputer(max_iter=3, random_state=0),
    "iterative indicator": IterativeImputer(
        Ridge(), max_iter=2, random_state=0, add_indicator=True, min_value=-2.0
    ),
    "neighbours": KNNImputer(),
    "neighbours by distance": KNNImputer(n_neighbors=3, weights="distance", add_indicator=True),
}


@pytest.mark.parametrize("step", IMPUTERS.values(), ids=IMPUTERS)
def test_an_imputer(step: Any) -> None:
    """Rows with gaps that it has seen and that it has not, and one without any value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations, so that the test is quick
        step.fit(GAPS)
    other = np.where(RNG.random(X.shape) < 0.5, np.nan, X + 0.3)
    rows = np.vstack([GAPS, other, X[:5], np.full((1, 4), np.nan)])
    # scikit-learn's own distance of a row from itself is 1e-8, and is weighed with its reciprocal.
    check(step, rows, atol=1e-5 if getattr(step, "weights", "") == "distance" else 1e-9)


def test_an_imputer_of_another_value_and_of_an_empty_column() -> None:
    """A column without any value is left out, as scikit-learn does."""
    rows = GAPS.copy()
    rows[:, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(SimpleImputer().fit(rows), rows)
        check(KNNImputer().fit(rows), rows, atol=1e-9)
    rows = np.where(np.isnan(GAPS), -1.0, GAPS)
    check(SimpleImputer(missing_values=-1.0).fit(rows), rows)


@pytest.mark.parametrize("kind", [PLSRegression, PLSSVD])
def test_partial_least_squares_as_a_step(kind: Any) -> None:
    """Its scores become features."""
    check(kind(2).fit(X, X[:, :2] * 2.0 + X[:, 2:]), X)


INVERSES = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    MinMaxScaler((1, 3)),
    RobustScaler(),
    PowerTransformer(),
    QuantileTransformer(n_quantiles=50),
    QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    FunctionTransformer(np.log1p, np.expm1),
    make_pipeline(FunctionTransformer(np.sqrt, np.square), StandardScaler()),
]


@pytest.mark.parametrize("step", INVERSES, ids=lambda step: type(step).__name__)
def test_the_inverse_of_a_transformer_of_targets(step: Any) -> None:
    """What a TransformedTargetRegressor needs."""
    column = X[:, :1]
    with np.errstate(all="ignore"):
        step.fit(np.abs(column))
        changed = step.transform(np.abs(column))
    rows = np.vstack([changed, changed[:20] * 1.7, [[0.0]]])

    found = answered(lambda block: inverted(block, "target", step), rows)

    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found, step.inverse_transform(rows), rtol=1e-9, atol=1e-9)


def test_names_of_a_step_that_answers_a_frame() -> None:
    """A second ColumnTransformer selects by the names that the first one gave."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    first = ColumnTransformer(
        [("s", StandardScaler(), ["c", "a"])], remainder="passthrough"
    ).set_output(transform="pandas")
    second = ColumnTransformer([("k", Normalizer(), ["s__a", "remainder__d"])])
    both = make_pipeline(first, second).fit(frame)
    expected = both.transform(frame)

    found = answered(lambda block: through(through(block, ("first", first)), ("second", second)), X)

    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "step",
    [
        FactorAnalysis(2),
        FastICA(3, random_state=0),
        FastICA(3, whiten="arbitrary-variance", random_state=0),
        FastICA(whiten=False, max_iter=5, random_state=0),
        MiniBatchSparsePCA(2, random_state=0),
        SparsePCA(3, ridge_alpha=0.3, random_state=0),
        SparseRandomProjection(3, density=0.5, random_state=0),
        RBFSampler(n_components=30, random_state=0),
        Nystroem(n_components=20, random_state=0),
        Nystroem(gamma=0.4, n_components=20, random_state=0),
        Nystroem("linear", n_components=3, random_state=0),
        Nystroem("poly", degree=2, coef0=0.5, n_components=9, random_state=0),
        Nystroem("poly", n_components=9, random_state=0),
        Nystroem("sigmoid", gamma=0.01, n_components=20, random_state=0),
    ],
    ids=[
        "factors", "independent", "independent of any variance", "independent, not whitened",
        "sparse in batches", "sparse", "random projection", "random waves", "kernel",
        "narrow kernel", "linear kernel", "polynomial kernel", "cubic kernel", "sigmoid kernel",
    ],
)  # fmt: skip
def test_components_and_features_of_kernels(step: Any) -> None:
    """Products with what was learned. Kernels are nearly singular, which enlarges rounding."""
    rows = EDGES / X.std(axis=0)
    step.fit(rows[: len(X)])
    expected = step.transform(rows)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    found = answered(lambda block: through(block, ("step", step)), rows)

    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("norm", ["l1", "l2", None])
@pytest.mark.parametrize("sublinear", [True, False])
def test_weights_of_counts(norm: Any, sublinear: bool) -> None:
    """A row of zeros stays so: skl2onnx answers NaN in float64."""
    counts = np.random.default_rng(1).integers(0, 4, (30, 5)).astype(float)
    counts[7] = 0.0
    step = TfidfTransformer(norm=norm, sublinear_tf=sublinear, use_idf=norm is not None)
    step.fit(counts)
    found = answered(lambda block: through(block, ("step", step)), counts)

    np.testing.assert_allclose(found, step.transform(counts).toarray(), atol=1e-12)


def test_random_trees_answer_a_matrix() -> None:
    """By default a sparse one, of the same numbers."""
    step = RandomTreesEmbedding(20, random_state=0).fit(X)
    found = answered(lambda block: through(block, ("step", step)), X)

    np.testing.assert_array_equal(found, step.transform(X).toarray())
    assert step.sparse_output


FORMULAS = [
    BernoulliRBM(3, n_iter=2, random_state=0),
    FeatureAgglomeration(2),
    AdditiveChi2Sampler(),
    AdditiveChi2Sampler(sample_steps=1),
    AdditiveChi2Sampler(sample_steps=4, sample_interval=0.3),
    SkewedChi2Sampler(n_components=30, random_state=0),
    PolynomialCountSketch(n_components=25, random_state=0),
    PolynomialCountSketch(degree=3, gamma=0.5, coef0=2.0, n_components=16, random_state=0),
    PolynomialCountSketch(degree=1, n_components=1, random_state=0),
]


@pytest.mark.parametrize("step", FORMULAS, ids=str)
def test_a_step_that_is_a_formula(step: Any) -> None:
    """Of positive numbers, and of zeros, whose logarithms nothing may read."""
    rows = np.vstack([np.abs(EDGES), np.where(X > 0.0, X, 0.0)])
    check(step.fit(np.abs(X)), rows, atol=1e-9)


def test_another_kernel_is_refused() -> None:
    """With those that can be converted."""
    step = Nystroem("laplacian", n_components=5, random_state=0).fit(X)
    with pytest.raises(ExportError, match=r"Nystroem\) has the kernel 'laplacian', which cannot"):
        answered(lambda block: through(block, ("step", step)), X)
