"""The matrix of `just prove-models` is large enough, and its comparison finds what differs."""

import pytest

from e2e import prove_models
from model_export.errors import MORE
from support.matrix import catalogue, page
from support.matrix.served import _Comparison

MANIFEST = {
    "task": "classification",
    "parity": {"tolerance": 1e-5, "tie_band": 1e-5},
}
VALUES = {"task": "regression", "parity": {"tolerance": 1e-5, "tie_band": 0.0}}


def test_the_matrix_has_every_kind():
    """At least 190 models, and a short form of at least 60 with each kind among them."""
    cases = catalogue.cases()
    assert len(cases) >= 190
    short = catalogue.short()
    assert len(short) >= 60
    assert {cases[name].kind for name in short} == {case.kind for case in cases.values()}


@pytest.mark.parametrize(
    ("served", "chances", "expected", "own", "same"),
    [
        ("a", [0.9, 0.1], "a", [0.9, 0.1], True),
        ("a", [0.9, 0.1], "b", [0.9, 0.1], False),
        ("a", [0.9, 0.1], "a", [0.8, 0.2], False),
        ("a", [0.5, 0.5], "b", [0.5, 0.5], True),
        ("a", None, "b", None, False),
    ],
    ids=["equal", "label", "probability", "tie", "label-alone"],
)
def test_labels_and_probabilities(served, chances, expected, own, same):
    """A label may differ only where both classes are equally likely."""
    assert (_Comparison(MANIFEST).difference(served, chances, expected, own) == "") == same


def test_values():
    """Relative to the value, from 1 on."""
    compare = _Comparison(VALUES)
    assert not compare.difference(1e6, None, 1e6 + 1, None)
    assert compare.difference(1.0, None, 1.001, None)


def test_the_page_counts_and_gives_reasons():
    """One line for each reason, with the models that have it."""
    refused = {"outcome": "refused", "message": "models:/SVC/1, convert: no | way"}
    text = page.table({"SVC": refused, "Ridge": {"outcome": "exported", "message": ""}})
    assert "Of 2 models, 1 are exported" in text
    assert r"- SVC: no \| way" in text


@pytest.mark.parametrize(
    ("message", "held"), [(f"it is a PCA: log another {MORE}", True), ("KeyError: 'x'", False)]
)
def test_a_refusal_in_other_than_plain_words_fails(message, held):
    """So the recipe ends with exit status 1."""
    checks = prove_models._checks({"PCA": {"outcome": "refused", "message": message}})
    assert all(check.held for check in checks) == held
