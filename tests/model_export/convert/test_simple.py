"""Estimators that answer a constant, a line or a sum of table entries, and texts that several
vectorizers read: the graph answers as the model does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import CategoricalNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OrdinalEncoder
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from model_export.convert.model import convert_model
from model_export.errors import ExportError
from model_export.study.anatomy import dissect
from model_export.study.answers import describe_answers
from model_export.study.categories import find_categories
from model_export.study.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
WHOLE = X.astype(int)
LINE = np.linspace(0.0, 3.0, 50).reshape(-1, 1)


def answered(model: Any, rows: Any) -> list[Any]:
    """What the graph answers to a matrix."""
    kind: Any = "integer" if rows.dtype.kind == "i" else "number"
    names = [f"x{i}" for i in range(rows.shape[1])]
    columns = tuple(Column(name, kind, rows.dtype.name) for name in names)
    anatomy = dissect(model, names)
    schema = find_categories(Schema(columns, False, rows.dtype.name), anatomy)
    graph = convert_model(anatomy, schema, describe_answers(model), "float64")
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    packed = rows.astype(float)
    for i, column in enumerate(schema.columns):
        if column.is_index:
            packed[:, i] = [column.categories.index(int(value)) for value in rows[:, i]]
    return list(session.run(None, {"rows": packed}))


@pytest.mark.parametrize("strategy", ["prior", "most_frequent", "constant"])
def test_a_constant_class(strategy: str) -> None:
    """Its label, and its probabilities."""
    model = DummyClassifier(strategy=strategy, constant=2).fit(X, Y)
    label, probabilities = answered(model, X)

    assert model.classes_[label].tolist() == model.predict(X).tolist()
    np.testing.assert_array_equal(probabilities, model.predict_proba(X))


def test_a_constant_value() -> None:
    """One, or one per target."""
    for target in (Y * 1.5, np.c_[Y, -Y]):
        model = DummyRegressor(strategy="mean").fit(X, target)
        np.testing.assert_array_equal(answered(model, X)[0], model.predict(X))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": "rbf"},
        {"kernel": "rbf", "gamma": 2.0},
        {"kernel": "poly", "degree": 2, "gamma": 0.3, "alpha": 10.0},
        {"kernel": "sigmoid", "gamma": 0.01},
    ],
    ids=["linear", "rbf", "narrow rbf", "polynomial", "sigmoid"],
)
def test_kernels_with_the_training_rows(settings: dict[str, Any]) -> None:
    """Of one target, and of two. The weights of a polynomial are large and cancel each other."""
    for target in (X[:, 0], X[:, :2]):
        model = KernelRidge(**settings).fit(X, target)
        rows = X * 1.3
        np.testing.assert_allclose(answered(model, rows)[0], model.predict(rows), rtol=1e-6)


def test_another_kernel_is_refused() -> None:
    """With those that can be converted."""
    model = KernelRidge(kernel="laplacian").fit(X, Y)
    with pytest.raises(ExportError, match="the kernel 'laplacian', which cannot be converted"):
        answered(model, X)


@pytest.mark.parametrize(
    "model",
    [
        NearestCentroid(),
        NearestCentroid(metric="manhattan"),
        NearestCentroid(priors="empirical", shrink_threshold=0.3),
        CalibratedClassifierCV(NearestCentroid(), cv=3),
        LabelSpreading(),
        LabelPropagation(gamma=0.5),
    ],
    ids=["centroids", "manhattan", "priors", "calibrated", "spreading", "propagation"],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_distances_to_what_was_kept(model: Any, classes: int) -> None:
    """Of three classes and of two, of different sizes; the last rows are far from all others."""
    known = classes > Y
    known[:20] = False
    model.fit(X[known], Y[known])
    rows = np.vstack([X, X * 1.3, X + 100.0])
    label, *probabilities = answered(model, rows)

    with np.errstate(invalid="ignore"):
        assert model.classes_[label].tolist() == model.predict(rows).tolist()
        if probabilities:
            expected = model.predict_proba(rows)
            np.testing.assert_allclose(probabilities[0], expected, atol=1e-9)


def test_another_metric_is_refused() -> None:
    """With those that can be converted."""
    model = NearestCentroid().fit(X, Y).set_params(metric="nan_euclidean")
    with pytest.raises(ExportError, match="the metric 'nan_euclidean', which cannot be converted"):
        answered(model, X)


@pytest.mark.parametrize("beyond", ["nan", "clip"])
def test_lines_between_points(beyond: str) -> None:
    """Within the points and on them; beyond them no number, or the last one."""
    model = IsotonicRegression(out_of_bounds=beyond).fit(LINE, np.sin(LINE.ravel()))
    rows = np.vstack([LINE, LINE + 0.017, [[-1.0], [9.0]]])

    np.testing.assert_allclose(answered(model, rows)[0], model.predict(rows), rtol=1e-12)


def test_a_single_point_is_a_constant() -> None:
    """scikit-learn then answers it beyond the point, too."""
    model = IsotonicRegression().fit([[1.0]], [2.0])

    np.testing.assert_array_equal(answered(model, LINE)[0], model.predict(LINE))


@pytest.mark.parametrize(
    "model",
    [
        CategoricalNB(),
        CategoricalNB(min_categories=12, fit_prior=False),
        make_pipeline(OrdinalEncoder(), CategoricalNB()),
        CalibratedClassifierCV(CategoricalNB(min_categories=12), cv=3),
    ],
    ids=["plain", "more values", "encoded", "calibrated"],
)
def test_categories_by_their_numbers(model: Any) -> None:
    """Each learned value is a category of its column."""
    model.fit(WHOLE, Y)
    label, probabilities = answered(model, WHOLE)

    assert model.classes_[label].tolist() == model.predict(WHOLE).tolist()
    np.testing.assert_allclose(probabilities, model.predict_proba(WHOLE), rtol=1e-9)


def test_values_that_were_not_learned_are_no_categories() -> None:
    """So the server refuses them, where scikit-learn raises an error."""
    model = CategoricalNB().fit(WHOLE, Y)
    schema = Schema(tuple(Column(f"x{i}", "integer", "int64") for i in range(4)), named=False)
    first = find_categories(schema, dissect(model, schema.names)).columns[0]

    assert (first.kind, first.categories) == ("category", tuple(range(WHOLE[:, 0].max() + 1)))


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (DummyClassifier(), Y),
        (IsotonicRegression(), Y),
        (CategoricalNB(), Y),
    ],
    ids=["constant", "lines", "categories"],
)
def test_the_whole_way_with_proof(
    model: Any, target: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A bundle is written, and the proof has rows."""
    rows = X[:, :1] if isinstance(model, IsotonicRegression) else WHOLE
    bundle = export(save(model.fit(rows, target), rows, serialization_format="cloudpickle"))

    assert bundle.manifest["parity"]["passed"] is True
    assert bundle.manifest["parity"]["rows"] > 1


def test_a_text_that_two_vectorizers_read(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Words and pairs of words of a list of texts, and the same inside a calibration."""
    texts = pd.Series([" ".join(p) for p in np.random.default_rng(1).choice(
        ["tit", "caw", "hoo", "chip"], (60, 5))])  # fmt: skip
    labels = texts.str.count("tit") > texts.str.count("caw")
    union = make_union(CountVectorizer(binary=True), TfidfVectorizer(ngram_range=(2, 2)))
    model = CalibratedClassifierCV(make_pipeline(union, LogisticRegression()), cv=2)
    bundle = export(
        save(
            model.fit(texts, labels),
            texts.to_frame("song"),
            serialization_format="cloudpickle",
            signature=False,
        )
    )

    assert bundle.manifest["parity"]["passed"] is True
    assert bundle.manifest["inputs"][0]["kind"] == "text"
