"""What cannot be exported is refused before any row is compared, with the step or the column by
name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from model_export.errors import ExportError
from model_export.prove import oracle

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()


class Doubler(TransformerMixin, BaseEstimator):
    """A transformer of the user's own."""

    def fit(self, x: Any, _: Any = None) -> Doubler:
        """Learn the width only."""
        self.n_features_in_ = np.asarray(x).shape[1]
        return self

    def transform(self, x: Any) -> Any:
        """Double."""
        return np.asarray(x) * 2


@pytest.fixture(autouse=True)
def no_parity_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal here must come before the gate."""

    def fail(*arguments: Any, **named: Any) -> None:
        pytest.fail("the gate ran")

    monkeypatch.setattr(oracle.Oracle, "_asked", fail)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (FunctionTransformer(lambda x: x + 1), r"step 'prepare' \(FunctionTransformer\)"),
        (Doubler(), r"step 'prepare' \(Doubler\)"),
    ],
    ids=["lambda", "own class"],
)
def test_a_step_without_an_onnx_form_is_named(
    step: Any, named: str, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A lambda or a class of the user's own has no converter."""
    model = Pipeline([("prepare", step), ("model", LogisticRegression(max_iter=500))]).fit(
        IRIS.data, IRIS.target
    )

    with pytest.raises(ExportError, match=named):
        export(save(model, IRIS.data, serialization_format="cloudpickle"))


def test_a_step_inside_a_column_transformer_is_named_by_its_path(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """prepare/numbers/twice, not "the pipeline"."""
    frame = pd.DataFrame(IRIS.data[:, :2], columns=["a", "b"])
    numbers = Pipeline([("twice", Doubler())])
    model = Pipeline(
        [
            ("prepare", ColumnTransformer([("numbers", numbers, ["a"])])),
            ("model", DecisionTreeClassifier()),
        ]
    )

    with pytest.raises(ExportError, match=r"step 'prepare/numbers/twice' \(Doubler\)"):
        export(save(model.fit(frame, IRIS.target), frame, serialization_format="cloudpickle"))


def test_free_text_is_refused_by_column_and_step(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Hashes of words are not converted, so nothing gives the column a form."""
    frame = pd.DataFrame({"song": ["tit tit", "caw", "hoo hoo"] * 4, "size": range(12)})
    prepare = ColumnTransformer(
        # Of the default million features, the training takes most of the time of this file.
        [("words", HashingVectorizer(n_features=64), "song"), ("size", "passthrough", ["size"])]
    )
    model = Pipeline([("prepare", prepare), ("model", LogisticRegression())]).fit(
        frame, [0, 1, 2] * 4
    )

    with pytest.raises(ExportError, match=r"column 'song' is free text \(step prepare/words\)"):
        export(save(model, frame, serialization_format="cloudpickle"))


def test_fractions_as_categories_are_refused(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A category is a string or an integer; 0.5 would be neither in JSON."""
    frame = pd.DataFrame({"dose": [0.5, 1.0] * 6})
    model = make_pipeline(OneHotEncoder(), DecisionTreeClassifier()).fit(frame, [0, 1] * 6)

    with pytest.raises(
        ExportError, match=r"column 'dose': step 'onehotencoder' takes 0.5 as a category"
    ):
        export(save(model, frame))


@pytest.mark.parametrize(
    ("model", "labels", "reason"),
    [
        (KMeans(2, n_init=1), IRIS.target, r"a clusterer \(KMeans\)"),
        (DecisionTreeClassifier(), np.column_stack([IRIS.target, IRIS.target]), "several targets"),
    ],
    ids=["clusters", "two targets"],
)
def test_answers_that_no_bundle_holds_are_refused(
    model: Any, labels: Any, reason: str, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Labels must survive JSON, and there must be one."""
    with pytest.raises(ExportError, match=reason):
        export(save(model.fit(IRIS.data, labels), IRIS.data))


def test_a_model_without_data_is_refused(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """No run, no input example, no --data: nothing to prove it on."""
    folder = save(DecisionTreeClassifier().fit(IRIS.data, IRIS.target), IRIS.data)
    for example in folder.glob("*input_example*"):
        example.unlink()
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(
        text[: text.index("saved_input_example_info")] + text[text.index("signature:") :]
    )

    with pytest.raises(ExportError, match="give --data"):
        export(folder)


def test_data_that_lacks_a_column_is_refused(
    save: Callable[..., Any], export: Callable[..., Any], tmp_path: Any
) -> None:
    """The message names what is missing and what is there."""
    frame = pd.DataFrame(IRIS.data[:, :2], columns=["a", "b"])
    pd.DataFrame({"a": [1.0], "c": [2.0]}).to_csv(tmp_path / "rows.csv", index=False)

    with pytest.raises(ExportError, match=r"lacks the columns \['b'\]; it has \['a', 'c'\]"):
        export(
            save(DecisionTreeClassifier().fit(frame, IRIS.target), frame),
            data=tmp_path / "rows.csv",
        )
