"""Columns of text, from the vectorizer to the server's decoder: the answers are those of the
registered model."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from halfcore import bundle
from halfcore.models.preparing import prepare
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.text import Tokenizer
from halfcore.problem import Problem
from model_export.errors import ExportError
from model_export.export import ExportRequest
from model_export.export import export as run_export
from model_export.report import Reporter
from model_export.study.texts import Tokens

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

_WORDS = [
    "the",
    "a",
    "great",
    "café",
    "naïve",
    "bad",
    "film",
    "was",
    "not",
    "Straße",
    "worse",
    "ÉTÉ",
    "fun",
    "dull",
    "Plot",
    "it's",
    "2",
    "x",
]


def _texts(count: int = 150) -> pd.DataFrame:
    rng = random.Random(4)  # noqa: S311
    texts = [
        "".join(rng.choice(_WORDS) + rng.choice([" ", "  ", ", ", "-", "! "]) for _ in range(9))
        for _ in range(count)
    ]
    return pd.DataFrame({"review": texts, "stars": np.arange(count) % 7 * 1.5})


def _labels(frame: pd.DataFrame) -> Any:
    return np.where(frame.review.str.count("great|fun") > frame.review.str.count("bad|dull"), 1, 0)


def _exported(
    folder: Path, model: Any, x: Any, *, gate_rows: int | None = 2000, **options: Any
) -> bundle.Bundle:
    mlflow.sklearn.save_model(
        model,
        folder / "model",
        input_example=x,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
        **options,
    )
    path = run_export(
        ExportRequest(str(folder / "model"), folder / "out", gate_rows=gate_rows), Reporter()
    )
    return bundle.read(path)


def _served(source: bundle.Bundle, records: list[dict[str, Any]]) -> list[Any]:
    prepared = prepare(source, max_batch_size=16)
    body = json.dumps(records, ensure_ascii=False).encode()
    rows = Decoder(prepared.schema, max_rows=500).decode(body)
    return list(prepared.engine.infer(rows.payload, rows.size))


def test_the_time_of_a_text_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --gate-rows the size of the proof follows from what the first rows take."""
    monkeypatch.setattr("model_export.prove.draw.GATE_ROWS", 2000)
    frame = _texts()
    model = make_pipeline(make_column_transformer((TfidfVectorizer(), "review")), Ridge())
    source = _exported(tmp_path, model.fit(frame, frame.stars), frame, gate_rows=None)
    assert source.manifest.parity.rows >= 1000


_VECTORIZERS = [
    TfidfVectorizer(),
    TfidfVectorizer(ngram_range=(1, 3), stop_words="english", sublinear_tf=True, min_df=3),
    CountVectorizer(strip_accents="unicode", token_pattern=r"\b[a-z]{3,}\b", binary=True),
    TfidfVectorizer(lowercase=False, token_pattern=r"\S+", norm="l1", use_idf=False, min_df=2),
    TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5), strip_accents="ascii", min_df=2),
    CountVectorizer(analyzer="char", ngram_range=(2, 3), max_features=300),
]


@pytest.mark.parametrize("vectorizer", _VECTORIZERS, ids=lambda v: f"{v.analyzer}{v.ngram_range}")
def test_a_text_next_to_numbers_is_answered_as_the_registered_model_does(
    tmp_path: Path, vectorizer: Any
) -> None:
    """In a ColumnTransformer: texts of the data, and texts unlike them."""
    frame = _texts()
    columns = make_column_transformer((vectorizer, "review"), (StandardScaler(), ["stars"]))
    model = make_pipeline(columns, LogisticRegression(max_iter=300)).fit(frame, _labels(frame))
    signature = mlflow.models.infer_signature(frame, model.predict(frame))
    source = _exported(tmp_path, model, frame, signature=signature)
    asked = frame.copy()[:60]
    others = ["", "İstanbul ΣΑΣ", 'a "quoted" FILM}', "e\u0301te\u0301 ﬁne", "한국어 great\ngreat"]
    asked.loc[:4, "review"] = others
    answers = _served(source, asked.to_dict("records"))
    pyfunc = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert [source.manifest.classes[label] for label, _ in answers] == (
        pyfunc.predict(asked).tolist()
    )
    expected = model.predict_proba(asked)
    np.testing.assert_allclose([p for _, p in answers], expected, atol=1e-5)


@pytest.mark.parametrize("with_signature", [True, False])
def test_a_model_of_a_list_of_texts_is_served(tmp_path: Path, with_signature: bool) -> None:
    """A Pipeline that begins with the vectorizer takes no table; its column has the name of the
    signature, otherwise x0."""
    frame = _texts()
    texts = frame["review"]
    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, _labels(frame))
    given: dict[str, Any] = (
        {"signature": mlflow.models.infer_signature(frame[["review"]], np.array([1]))}
        if with_signature
        else {"signature": False}
    )
    source = _exported(tmp_path, model, frame[["review"]], **given)
    (column,) = source.manifest.inputs
    assert (column.name, column.kind) == ("review" if with_signature else "x0", "text")
    answers = _served(source, [{column.name: text} for text in texts[:40]])
    assert [label for label, _ in answers] == model.predict(texts[:40]).tolist()


def test_a_text_that_is_too_long_or_null_is_refused(tmp_path: Path) -> None:
    """The limit is in the bundle, and the answer names it."""
    frame = _texts()
    columns = make_column_transformer((CountVectorizer(), "review"), remainder="passthrough")
    model = make_pipeline(columns, Ridge()).fit(frame, frame.stars)
    source = _exported(
        tmp_path, model, frame, signature=mlflow.models.infer_signature(frame, np.array([1.0]))
    )
    decoder = Decoder(prepare(source, max_batch_size=4).schema, max_rows=5)
    text = source.manifest.inputs[0].text
    assert text is not None
    for value, code in (
        ("x" * (text.max_length + 1), "out_of_range"),
        (None, "null_not_allowed"),
        (3, "wrong_type"),
        ("\ud800", "out_of_range"),
    ):
        with pytest.raises(Problem) as raised:
            decoder.decode(json.dumps({"review": value, "stars": 1.0}).encode())
        assert [error.code for error in raised.value.errors] == [code]


@pytest.mark.parametrize(
    ("vectorizer", "said"),
    [
        (CountVectorizer(token_pattern=r"(?:a|aa)+"), "has the token_pattern"),
        (CountVectorizer(tokenizer=str.split, token_pattern=None), "of your own as tokenizer"),
        (CountVectorizer(analyzer=str.split), "of your own as analyzer"),
    ],
)
def test_what_a_bundle_cannot_hold_is_refused(tmp_path: Path, vectorizer: Any, said: str) -> None:
    """Functions, and patterns that may take exponential time."""
    frame = _texts()
    columns = make_column_transformer((vectorizer, "review"), remainder="passthrough")
    model = make_pipeline(columns, Ridge()).fit(frame, frame.stars)
    with pytest.raises(ExportError, match=said):
        _exported(
            tmp_path, model, frame, signature=mlflow.models.infer_signature(frame, np.array([1.0]))
        )


def test_exporter_and_server_cut_texts_alike() -> None:
    """Each has its own code for the format's tokens."""
    rng = random.Random(1)  # noqa: S311
    letters = " \t\n.,-_'aAbBéÉßİΣσﬁ１٢한日\u0301\u00a0😀\x00"
    for analyzer, pattern in (("word", r"(?u)\b\w\w+\b"), ("char", None), ("char_wb", None)):
        for accents in (None, "ascii", "unicode"):
            own = Tokens(analyzer, accents != "ascii", accents, pattern, ("ab",), ("aa", "é", "a"))
            own = Tokens(**vars(own) | {"max_length": 200, "slots": 600})
            tokenizer = Tokenizer(msgspec.convert(own.manifest(), bundle.Text))
            number = {token: float(i) for i, token in enumerate(own.tokens, 1)}
            for _ in range(200):
                text = "".join(rng.choices(letters, k=rng.randrange(40)))
                found = [number.get(token, 0.0) for token in own.cut(text)]
                assert tokenizer.pack(text) == found + [0.0] * (600 - len(found))
