"""Every refusal says in plain words what failed, the true cause, and what to do."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import NMF, PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.manifold import Isomap
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.semi_supervised import LabelPropagation
from sklearn.tree import DecisionTreeClassifier

from model_export.convert.steps import through
from model_export.errors import MORE, ExportError, pointing
from model_export.prove import neighbours
from model_export.prove.explain import rounded_up
from model_export.prove.prove import GateError
from model_export.registry.client import fetch
from model_export.study.anatomy import dissect
from model_export.study.answers import describe_answers
from model_export.study.categories import find_categories
from model_export.study.schema import read_schema
from support.refusals import assert_plain_refusal, faults

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
TEXTS = pd.DataFrame({"song": ["tit tit", "caw", "hoo hoo"] * 4, "size": np.arange(12.0)})
SUNG = np.asarray([0, 1, 2] * 4)


class Own(ClassifierMixin, BaseEstimator):
    """A classifier that says nothing about its columns or classes."""

    def fit(self, *_: Any) -> Own:
        """Learn nothing."""
        return self

    def predict(self, x: Any) -> Any:
        """Always 0."""
        return np.zeros(len(x), dtype=int)


class Nameless(BaseEstimator):
    """It predicts, and says not what it is."""

    def fit(self, *_: Any) -> Nameless:
        """Learn nothing."""
        return self

    def predict(self, x: Any) -> Any:
        """Always 0."""
        return np.zeros(len(x))


class Doubler(TransformerMixin, BaseEstimator):
    """A step of the user's own."""

    def fit(self, *_: Any) -> Doubler:
        """Learn nothing."""
        return self

    def transform(self, x: Any) -> Any:
        """Double."""
        return np.asarray(x) * 2


def _with_length(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(length=frame["song"].str.len())


def _as_text(x: Any) -> Any:
    """A function of the user's own."""
    return x.astype(str)


def two_texts(second: Any) -> Any:
    """A column that two vectorizers read."""
    return make_pipeline(
        make_column_transformer((CountVectorizer(), "song"), (second, "song")), Ridge()
    )


STUDIED: dict[str, tuple[Any, Any, Any, str]] = {
    "clusterer": (KMeans(2, n_init=1), X, None, r"the model is a clusterer \(KMeans\)"),
    "mixture": (GaussianMixture(), X, None, r"a clusterer \(GaussianMixture\)"),
    "clusterer of its own rows": (DBSCAN(), X, None, "groups its own training rows only"),
    "outliers": (
        IsolationForest(n_estimators=2),
        X,
        None,
        r"an outlier detector \(IsolationForest\)",
    ),
    "no predict": (PCA(2), X, None, "a PCA, which has no predict"),
    "neither": (Nameless(), X, Y, "says neither that it is a classifier nor a regressor"),
    "no classes": (Own(), X, Y, "Own has no classes_"),
    "two targets": (DecisionTreeClassifier(), X, np.c_[Y, Y], "answers several targets"),
    "no columns": (
        make_pipeline(Doubler(), DecisionTreeClassifier()),
        X,
        Y,
        "does not say how many columns it reads: log it with signature=",
    ),
    "hashed words": (
        make_pipeline(make_column_transformer((HashingVectorizer(), "song")), Ridge()),
        TEXTS,
        SUNG,
        "column 'song' is free text .* HashingVectorizer cannot read",
    ),
    "text as it is": (
        make_pipeline(
            make_column_transformer((OneHotEncoder(), ["song"]), ("drop", ["size"])), Ridge()
        ),
        TEXTS.assign(size=TEXTS["song"]).assign(song=0.5),
        SUNG,
        r"column 'song': step .* takes 0\.5 as a category, expected strings or integers",
    ),
    "dates as they are": (
        make_pipeline(make_column_transformer((OneHotEncoder(), ["size"])), Ridge()),
        TEXTS.assign(size=[date(2026, 1, day) for day in range(1, 13)]),
        SUNG,
        r"column 'size': step .* takes '2026-01-01' as a category, a date, expected",
    ),
    "an empty name": (
        Ridge(),
        pd.DataFrame(X, columns=["a", "", "c", "d"]),
        Y,
        "a column has an empty name",
    ),
    "names of several levels": (
        Ridge(),
        pd.DataFrame(X, columns=pd.MultiIndex.from_product([["a", "b"], ["c", "d"]])),
        Y,
        r"the column \('a', 'c'\) has a name of several levels, expected one text",
    ),
    "numbers made text": (
        make_pipeline(
            make_column_transformer(
                (make_pipeline(FunctionTransformer(_as_text), OneHotEncoder()), ["size"])
            ),
            Ridge(),
        ),
        TEXTS,
        SUNG,
        "column 'size' holds numbers, of which a function makes text before step ",
    ),
    "text in a step of one's own": (
        make_pipeline(Doubler(), make_column_transformer((OneHotEncoder(), [0])), Ridge()),
        TEXTS,
        SUNG,
        "column 'song' holds text, which Doubler reads, a class of your own",
    ),
    "text in a function of one's own": (
        make_pipeline(
            FunctionTransformer(_with_length),
            make_column_transformer((Normalizer(), ["length"])),
            Ridge(),
        ),
        TEXTS,
        SUNG,
        r"column 'song' holds text, which the function of step 'functiontransformer' \(",
    ),
    "words and characters": (
        two_texts(CountVectorizer(analyzer="char")),
        TEXTS,
        SUNG,
        "two vectorizers .* has another analyzer than the one before it",
    ),
    "words and an encoder": (
        make_pipeline(
            make_column_transformer((CountVectorizer(), "song"), (OneHotEncoder(), ["song"])),
            Ridge(),
        ),
        TEXTS,
        SUNG,
        "give the two uses two columns",
    ),
}


@pytest.mark.parametrize("name", STUDIED)
def test_what_no_bundle_can_hold_is_refused_in_plain_words(name: str) -> None:
    """What the model is, what is expected, and what to log instead."""
    model, x, y, said = STUDIED[name]
    model.fit(x, y)
    with pytest.raises(ExportError, match=said) as refusal:
        studied(model, x if name != "no columns" else None)

    assert_plain_refusal(str(pointing(refusal.value)))


def studied(model: Any, x: Any) -> Any:
    """The schema with the categories of a fitted model; x: of the signature."""
    describe_answers(model)
    schema = read_schema(None if x is None else infer_signature(x), model)
    return find_categories(schema, dissect(model, schema.names))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            LabelPropagation(kernel="knn"),
            r"step 'LabelPropagation' \(LabelPropagation\) has the kernel 'knn', .*kernel='rbf'",
        ),
        (
            make_pipeline(NMF(3, init="nndsvda"), LogisticRegression()),
            r"step 'nmf' \(NMF\) .* it solves an optimization problem for each row, .*; use PCA",
        ),
        (
            make_pipeline(Isomap(n_neighbors=60), LogisticRegression()),
            r"step 'isomap' \(Isomap\) .*; use a KernelPCA or a Nystroem",
        ),
        (RadiusNeighborsClassifier(9.0), r"on most rows; use a KNeighborsClassifier, or convert"),
        (GaussianProcessClassifier(), r"no operators of the standard; use an SVC in a Calibrated"),
        (DummyClassifier(strategy="uniform"), "answers at random, strategy='uniform'"),
        (
            make_pipeline(FunctionTransformer(np.linalg.norm, validate=False), Ridge()),
            r"step 'functiontransformer' \(FunctionTransformer\)",
        ),
    ],
    ids=[
        "kernel",
        "iterative",
        "manifold",
        "unusable conversion",
        "no operator",
        "random",
        "function",
    ],
)
def test_a_refusal_of_an_export_names_the_page(
    model: Any, said: str, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """The whole way: the text ends with the section that says what can be served."""
    if said.startswith("step 'function"):
        model.steps[0][1].set_params(func=np.abs)
        model.fit(X, Y)
        model.steps[0][1].set_params(func=np.round, kw_args={"decimals": 2})
    else:
        model.fit(X, Y)
    with pytest.raises(ExportError, match=said) as refusal:
        export(save(model, X, serialization_format="cloudpickle"))

    assert_plain_refusal(str(refusal.value))
    assert refusal.value.reason.endswith(MORE)


def test_a_function_that_mlflow_cannot_load_is_named(save: Callable[..., Any]) -> None:
    """MLflow saves a model with it, and its own error would name neither option nor way out."""
    model = LogisticRegression(max_iter=1_000).fit(X, Y)
    folder = save(model, X, pyfunc_predict_fn="decision_function")
    with pytest.raises(ExportError, match="pyfunc_predict_fn='decision_function', exp") as refusal:
        fetch(str(folder))

    assert_plain_refusal(str(refusal.value))


def gate_error(model: Any, x: Any, save: Any, export: Any, **options: Any) -> GateError:
    """The gate's refusal of a fitted model, whose text and reason are plain."""
    with pytest.raises(GateError) as refusal:
        export(save(model, x, serialization_format="cloudpickle"), gate_rows=1_000, **options)
    assert_plain_refusal(str(refusal.value))
    assert_plain_refusal(refusal.value.reason)
    assert "worst row" not in refusal.value.reason
    return refusal.value


def test_neighbours_at_the_same_distance_are_called_a_tie(
    save: Callable[..., Any], export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are too many choices to compare with all of them: with the step, the places and
    the row; --accept-parity would not help."""
    monkeypatch.setattr(neighbours, "MOST_CHOICES", 1)
    x = pd.DataFrame((X * 2).round(), columns=list("abcd"))
    model = make_pipeline(StandardScaler(with_std=False, with_mean=False), KNeighborsClassifier())
    said = str(gate_error(model.fit(x, Y), x, save, export))

    assert "cause: a tie at step 'kneighborsclassifier' (KNeighborsClassifier)" in said
    assert "nearest in place 5 and 6 are at the same distance" in said
    assert '"a": ' in said
    assert "--accept-parity" not in said


def test_equally_far_rows_of_an_imputer_name_other_imputers(save: Any, export: Any) -> None:
    """It chooses among them by no rule, and there is an imputer without such choices."""
    x = pd.DataFrame(X.round(), columns=list("abcd"))
    x.loc[::7, "b"] = np.nan
    model = make_pipeline(KNNImputer(), LogisticRegression(max_iter=1_000)).fit(x, Y)
    error = gate_error(model, x, save, export)

    assert "a tie at step 'knnimputer' (KNNImputer)" in str(error)
    assert "use a SimpleImputer or an IterativeImputer there, which have no ties" in str(error)


def test_a_threshold_that_float32_cannot_hold_is_named(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """With the step before the trees, at which the values first differ, and the column."""
    x = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler(), RandomForestClassifier(12, random_state=0))
    error = gate_error(model.fit(x, Y), x, save, export, dtype="float32")

    assert "values first differ at step 'standardscaler' (StandardScaler): " in str(error)
    for said in (str(error), error.reason):
        assert "cause: a threshold that float32 cannot hold: the trees of step" in said
        assert "split column '" in said
        assert "export with --dtype float64" in said


def test_a_step_that_is_converted_wrongly_is_named(
    save: Callable[..., Any], export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the step before it, nor the one after."""
    monkeypatch.setitem(through._WRITERS, Normalizer, lambda block, *_: block * 0.5)
    model = make_pipeline(StandardScaler(), Normalizer(), LogisticRegression()).fit(X, Y)
    said = str(gate_error(model, X, save, export))

    assert "values first differ at step 'normalizer' (Normalizer): " in said
    assert "cause: step 'normalizer' (Normalizer) is converted wrongly" in said


def test_rows_out_of_the_domain_are_called_so(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A million is exp(346) there: too large for float32, and too near to the data for a limit."""
    x = np.linspace(-5_000.0, 5_000.0, 150).reshape(-1, 1)
    model = make_pipeline(StandardScaler(), FunctionTransformer(np.exp), Ridge()).fit(x, Y)
    said = str(gate_error(model, x, save, export, dtype="float32"))

    assert "out of the model's domain: they hold numbers of ±1e+06" in said
    assert "values first differ at step 'functiontransformer'" in said


@pytest.mark.slow
def test_where_only_values_differ_a_tolerance_is_offered(
    save: Callable[..., Any], export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a number that suffices, and the tie by its name."""
    monkeypatch.setattr(neighbours, "MOST_CHOICES", 1)
    x = (X * 2).round()
    model = KNeighborsRegressor().fit(x, Y + 0.001 * np.arange(150))
    said = str(gate_error(model, x, save, export))

    assert "cause: a tie at step" in said
    assert "as only values differ, allow the difference with --accept-parity" in said


@pytest.mark.parametrize(
    ("difference", "shown"),
    [(0.00123, "0.002"), (0.5, "0.5"), (2.0000001, "3"), (3.1e-5, "4e-05"), (1.0, "1"), (77, "80")],
)
def test_a_tolerance_is_rounded_up(difference: float, shown: str) -> None:
    """To one digit."""
    assert rounded_up(difference) == shown


def test_a_signature_of_another_table_is_called_so(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A step that limits numbers would not help."""
    x = pd.DataFrame(X, columns=list("abcd"))
    model = LogisticRegression(max_iter=500).fit(x, Y)
    other = infer_signature(x[["d", "c", "b", "a"]], Y)
    with pytest.raises(ExportError) as refused:
        export(save(model, x, signature=other))
    assert "log the model with the signature of the table" in refused.value.reason
    assert "clip" not in refused.value.reason


def test_dictionaries_are_no_table() -> None:
    """A DictVectorizer does not say how many columns it reads, and a signature would not help."""
    rows = [{"zone": "a", "way": 1.0}, {"zone": "b", "way": 2.0}]
    model = make_pipeline(DictVectorizer(), Ridge()).fit(rows, [1.0, 2.0])
    with pytest.raises(ExportError, match="train it on a table, with a OneHotEncoder"):
        read_schema(None, model)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("KeyError: 'x'; train it again", "an exception's name"),
        ("cannot take array([1., 2.]); train it again", "an array dump"),
        ("cannot take [0.1 0.2]; train it again", "an array dump"),
        ("sklearn.svm.SVC fails; use another", "a class path"),
        ("FloatTensorType([None, 4]) is wrong; use another", "a class of the converter"),
        ("boom (StopIteration in own.steps.fit); train it again", "an exception's name"),
        ("a key does not exist (Own in own.steps.fit); train it again", "an exception's name"),
        ("cannot take array([…]); train it again", "an array dump"),
        ("too large for dtype('float64'); train it again", "an array dump"),
        ("the graph fails (must be in [0, 300)); train it again", "words of the runtime"),
        ("Model implementation is missing required x method; use another", "a fault of MLflow's"),
        ("it fails", "what to do"),
        ("train it: it fails; nothing helps; it is so", "what to do"),
        ("the log is wrong, and the use of it", "what to do"),
        ("it fails: use another", "does not end with a section"),
        ('it fails: use another (docs/export.md, "Nothing")', "has no section 'Nothing'"),
        (f"3 of 9 labels differ; use --accept-parity {MORE}", "where labels differ"),
        (f"refused: use another {MORE}", "does not say the cause"),
    ],
)
def test_an_unclear_refusal_is_found(text: str, fault: str) -> None:
    """Each fault by itself."""
    assert any(fault in found for found in faults(text))


def test_a_plain_refusal_has_no_faults() -> None:
    """Of a model trained with another version, too."""
    text = f"the model is a PCA, which has no predict; log a Pipeline {MORE}"

    assert_plain_refusal(text)
    assert_plain_refusal(f"{text} (trained with scikit-learn 1.2.3, loaded with 1.9.0)")


def test_two_vectorizers_that_cut_alike_share_a_column() -> None:
    """The tokens of both, once."""
    x = TEXTS[["song"]]
    model = two_texts(TfidfVectorizer(ngram_range=(1, 2))).fit(x, SUNG)
    (column,) = studied(model, x).columns

    assert column.text is not None
    assert column.text.tokens == ("caw", "hoo", "tit")
