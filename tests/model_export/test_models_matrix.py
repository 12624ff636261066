"""The matrix of `just prove-models` is large enough, and its comparison finds what differs."""

import json

import pytest
from sklearn.utils import all_estimators

from e2e import prove_models
from model_export.errors import MORE
from support.matrix import catalogue, estimators, page, pipelines
from support.matrix.served import _Comparison

MANIFEST = {
    "task": "classification",
    "parity": {"tolerance": 1e-5, "tie_band": 1e-5},
}
VALUES = {"task": "regression", "parity": {"tolerance": 1e-5, "tie_band": 0.0}}
KIND, COMMIT = "classifiers", "0123456789abcdef"


def test_the_matrix_has_every_kind():
    """At least 190 models, and a short form of at least 60 with each kind among them."""
    cases = catalogue.cases()
    assert len(cases) >= 190
    short = catalogue.short()
    assert len(short) >= 60
    assert {cases[name].kind for name in short} == {case.kind for case in cases.values()}


def test_every_estimator_that_predicts_is_in_the_matrix():
    """By its name, or as another model of the matrix that a reason names."""
    predicting = {name for name, kind in all_estimators() if hasattr(kind, "predict")}
    assert predicting - set(estimators.ELSEWHERE) <= set(catalogue.cases())
    assert set(estimators.ELSEWHERE) <= predicting
    named = {reason.rpartition(": ")[2].split(" ")[0] for reason in estimators.ELSEWHERE.values()}
    assert named - {"every"} <= set(catalogue.cases())


@pytest.mark.parametrize("form", ["all", "short"])
def test_a_tenth_and_all_texts_are_exported_at_default_settings(form):
    """What only the defaults do, such as choosing the number of rows, is tried in every run."""
    names = catalogue.short() if form == "short" else list(catalogue.cases())
    usual = catalogue.at_defaults(names)
    texts = {name for name in names if catalogue.cases()[name].kind == pipelines.TEXT}
    assert texts <= usual <= set(names)
    assert texts
    assert len(usual - texts) >= len(names) // 10 - len(texts)


@pytest.mark.parametrize(
    ("served", "chances", "expected", "own", "same"),
    [
        ("a", [0.9, 0.1], "a", [0.9, 0.1], True),
        ("a", [0.9, 0.1], "b", [0.9, 0.1], False),
        ("a", [0.9, 0.1], "a", [0.8, 0.2], False),
        ("a", [0.5, 0.5], "b", [0.5, 0.5], True),
        ("a", None, "b", None, False),
        ("a", None, "a", [0.9, 0.1], False),
    ],
    ids=["equal", "label", "probability", "tie", "label-alone", "no-probabilities"],
)
def test_labels_and_probabilities(served, chances, expected, own, same):
    """A label may differ only where both classes are equally likely."""
    assert (_Comparison(MANIFEST).difference(served, chances, expected, own) == "") == same


def test_values():
    """Relative to the value, from 1 on."""
    compare = _Comparison(VALUES)
    assert not compare.difference(1e6, None, 1e6 + 1, None)
    assert compare.difference(1.0, None, 1.001, None)


def a_run(**commits):
    """A stored run of two models."""
    common = {"kind": KIND, "commit": COMMIT, "seconds": 1.0}
    models = {
        "SVC": common
        | {"outcome": "refused", "message": "models:/SVC/1, convert: no | way", "rows": 2_000},
        "Ridge": common | {"outcome": "exported", "message": "", "rows": None, "compared": 600},
    }
    for name, commit in commits.items():
        models[name]["commit"] = commit
    return {
        "started_at": "2026-01-02T03:04:05Z",
        "command": "python tests/e2e/prove_models.py --resume",
        "fingerprint": {"commit": COMMIT, "dirty": False, "python": "3.11.7"},
        "figures": {"packages": {"scikit-learn": "1.9.1"}, "models": models},
    }


def test_the_page_counts_gives_reasons_and_says_how_it_was_made(tmp_path):
    """One line for each reason, with the models that have it; commit, command and versions."""
    stored, written = tmp_path / "runs/1-models-01.json", tmp_path / "export.md"
    stored.parent.mkdir()
    stored.write_text(json.dumps(a_run(Ridge="fedcba9876543210")))
    written.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")

    page.write(written, stored)

    text = written.read_text()
    assert text.startswith(f"before\n{page.BEGIN}\nOf 2 models, 1 are exported")
    assert text.endswith(f"{page.END}\nafter\n")
    assert "1 of all were tried at default settings, the others with `--gate-rows 2000`" in text
    assert r"- SVC: no \| way" in text
    assert "Commit `0123456789ab`, 1 models at `fedcba987654`; `just prove-models --resume`" in text
    assert "Python 3.11.7, scikit-learn 1.9.1; every model: [runs/1-models-01.json]" in text
    assert page.between(written) == page.section(stored, written)


def test_the_page_says_when_all_models_had_the_default_settings(tmp_path):
    """And shows a reason whole: what to do is at its end."""
    run = a_run()
    way = "use another, " * 30 + "or log it as ONNX"
    run["figures"]["models"]["SVC"] |= {"rows": None, "message": f"SVC (SVC): {way} {MORE}"}
    stored = tmp_path / "1-models-01.json"
    stored.write_text(json.dumps(run))

    text = page.section(stored, tmp_path / "export.md")

    assert "600 rows each; the others are refused.\nAll were tried at default settings." in text
    assert f"- SVC: SVC: {way}" in text


@pytest.mark.parametrize(
    ("message", "held"), [(f"it is a PCA: log another {MORE}", True), ("KeyError: 'x'", False)]
)
def test_a_refusal_in_other_than_plain_words_fails(message, held):
    """So the recipe ends with exit status 1."""
    checks = prove_models._checks(
        {"PCA": {"outcome": "refused", "message": message, "rows": 1}}, every=False
    )
    assert all(check.held for check in checks) == held
