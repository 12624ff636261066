"""Typical Pipelines: what stands before the model."""

from typing import Any

import numpy as np
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline as SamplingPipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn import impute, preprocessing
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    PolynomialCountSketch,
    SkewedChi2Sampler,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from support.matrix.case import Case, Group, Trained
from support.matrix.data import customers, messages, numbers, spent, with_gaps

_NUMBERS, _TEXT = ["age", "income", "visits"], ["city", "plan"]
TEXT = "text"
"""The kind of models that read texts."""


def steps() -> list[Case]:
    """One step before a linear model."""
    group = Group("one step before a linear model")
    x, y = numbers()
    for name, step in _STEPS.items():
        rows = with_gaps(x) if name.startswith("impute") else x
        rows = rows.abs() if name.startswith(("function", "box")) else rows
        group.add(f"step-{name}", lambda s=step, r=rows: _after(s, r, y))
    return group.cases


def _after(step: Any, x: Any, y: Any) -> Trained:
    return Trained(make_pipeline(step, LogisticRegression()).fit(x, y), x)


def _half(x: Any) -> Any:
    """A function of a user's own."""
    return x / 2


_STEPS: dict[str, Any] = {
    "scale": StandardScaler(),
    "scale-range": preprocessing.MinMaxScaler(),
    "scale-absolute": preprocessing.MaxAbsScaler(),
    "scale-robust": preprocessing.RobustScaler(),
    "normalize": preprocessing.Normalizer(),
    "binarize": preprocessing.Binarizer(),
    "power": preprocessing.PowerTransformer(),
    "box-cox": preprocessing.PowerTransformer("box-cox"),
    "quantiles": preprocessing.QuantileTransformer(n_quantiles=50),
    "bins": preprocessing.KBinsDiscretizer(),
    "bins-ordinal": preprocessing.KBinsDiscretizer(encode="ordinal"),
    "polynomial": preprocessing.PolynomialFeatures(2),
    "spline": preprocessing.SplineTransformer(),
    "function-log1p": preprocessing.FunctionTransformer(np.log1p),
    "function-sqrt": preprocessing.FunctionTransformer(np.sqrt),
    "function-identity": preprocessing.FunctionTransformer(),
    "function-own": preprocessing.FunctionTransformer(_half),
    "impute-mean": impute.SimpleImputer(),
    "impute-indicator": impute.SimpleImputer(add_indicator=True),
    "impute-neighbours": impute.KNNImputer(),
    "impute-iterative": impute.IterativeImputer(max_iter=5, random_state=0),
    "kernel-chi2": make_pipeline(preprocessing.MinMaxScaler(clip=True), AdditiveChi2Sampler()),
    "kernel-skewed-chi2": make_pipeline(
        preprocessing.MinMaxScaler(clip=True), SkewedChi2Sampler(random_state=0)
    ),
    "kernel-polynomial": PolynomialCountSketch(n_components=20, random_state=0),
    "grouped-columns": FeatureAgglomeration(3),
    "hidden-units": BernoulliRBM(3, n_iter=2, random_state=0),
    "principal-components": PCA(3),
    "singular-values": TruncatedSVD(3),
    "select-best": SelectKBest(k=3),
    "select-variance": VarianceThreshold(),
    "select-from-model": SelectFromModel(RandomForestClassifier(10, random_state=0)),
    "union": make_union(StandardScaler(), PCA(2)),
    "union-nested": FeatureUnion([("a", make_pipeline(StandardScaler(), PCA(2)))]),
}


def _prepared(encoder: Any, *, scale: bool = True) -> ColumnTransformer:
    fill = impute.SimpleImputer(strategy="median")
    first = make_pipeline(fill, StandardScaler()) if scale else fill
    return ColumnTransformer([("numbers", first, _NUMBERS), ("text", encoder, _TEXT)])


def tables() -> list[Case]:
    """Tables of numbers and categories."""
    group = Group("tables of numbers and categories")
    ignore = OneHotEncoder(handle_unknown="ignore")
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    rare = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10)
    forest = RandomForestClassifier(10, random_state=0)
    flagged = make_pipeline(
        impute.SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
        OneHotEncoder(handle_unknown="ignore"),
    )
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    stack = StackingClassifier([("a", scaled), ("b", forest)], cv=3, passthrough=True)
    frequent = make_pipeline(impute.SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    nested = ColumnTransformer([("all", _prepared(OneHotEncoder()), [*_NUMBERS, *_TEXT])])
    for name, first, model in (
        ("one-hot", _prepared(OneHotEncoder()), LogisticRegression()),
        ("one-hot-dropped", _prepared(OneHotEncoder(drop="first")), LogisticRegression()),
        ("one-hot-unknown-ignored", _prepared(ignore), LogisticRegression()),
        ("one-hot-rare", _prepared(rare), LogisticRegression()),
        ("one-hot-imputed", _prepared(frequent), LogisticRegression()),
        ("one-hot-flagged", _prepared(flagged), LogisticRegression()),
        ("one-hot-stacking-passthrough", _prepared(OneHotEncoder()), stack),
        ("one-hot-forest", _prepared(OneHotEncoder(), scale=False), forest),
        ("one-hot-unknown-forest", _prepared(ignore, scale=False), forest),
        ("ordinal", _prepared(OrdinalEncoder()), LogisticRegression()),
        ("ordinal-unknown-forest", _prepared(ordinal, scale=False), forest),
        ("target-encoder", _prepared(TargetEncoder(random_state=0)), LogisticRegression()),
        ("nested-column-transformers", nested, LogisticRegression()),
    ):
        group.add(name, lambda f=first, m=model: _table(f, m))
    group.add("one-hot-regressor", lambda: _table(_prepared(OneHotEncoder()), Ridge(), spent()))
    return [*group.cases, *_text(), *_sampled()]


def _table(first: Any, model: Any, data: Any = None) -> Trained:
    x, y = data or customers()
    return Trained(make_pipeline(first, model).fit(x, y), x)


def _text() -> list[Case]:
    group = Group(TEXT)
    for name, vectorizer in (
        ("count-words", CountVectorizer()),
        ("count-word-pairs", CountVectorizer(ngram_range=(1, 2))),
        ("count-characters", CountVectorizer(analyzer="char", ngram_range=(2, 3))),
        ("tfidf", TfidfVectorizer()),
        ("tfidf-sublinear", TfidfVectorizer(sublinear_tf=True, stop_words="english")),
        ("counts-and-tfidf", make_union(CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2)))),
        ("words-and-characters", make_union(CountVectorizer(), TfidfVectorizer(analyzer="char"))),
        ("hashed-words", HashingVectorizer(n_features=64)),
    ):
        group.add(f"text-{name}", lambda v=vectorizer: _of_messages(v))
    return group.cases


def _of_messages(vectorizer: Any) -> Trained:
    x, y = messages()
    first = ColumnTransformer([("text", vectorizer, "text")])
    return Trained(make_pipeline(first, LogisticRegression()).fit(x, y), x)


def _sampled() -> list[Case]:
    group = Group("imbalanced-learn's Pipelines")
    for name, sampler in (("over", RandomOverSampler()), ("under", RandomUnderSampler())):
        for kind, model in (
            ("logistic", LogisticRegression()),
            ("forest", RandomForestClassifier(10, random_state=0)),
        ):
            group.add(f"sampled-{name}-{kind}", lambda s=sampler, m=model: _resampled(s, m))
    return group.cases


def _resampled(sampler: Any, model: Any) -> Trained:
    x, y = numbers()
    sampler.set_params(random_state=0)
    steps = [("scale", StandardScaler()), ("sample", sampler), ("model", model)]
    return Trained(SamplingPipeline(steps).fit(x, y), x)
