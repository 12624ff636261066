"""Rows that are equally far from several training rows: recognized by the model's own distances,
and answered with one of the answers that these allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from model_export.convert import neighbours as converted
from model_export.prove import neighbours
from model_export.prove.compare import compare
from model_export.prove.neighbours import Neighbours
from model_export.prove.oracle import AnswersOfRows, Truth
from model_export.prove.prove import GateError
from model_export.prove.samples import Sample, fixed

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()
LINE = np.asarray([[0.0], [1.0], [2.0], [4.0], [8.0]])
LABELS = np.asarray([0, 1, 0, 1, 2])
SEARCHES = ("kd_tree", "ball_tree", "brute")


def classifier(**settings: Any) -> Any:
    """Of five points on a line; at 0.5, 1.5, 3 and 6 two of them are nearest."""
    return KNeighborsClassifier(**{"n_neighbors": 1, **settings}).fit(LINE, LABELS)


@pytest.mark.parametrize("search", SEARCHES)
def test_equally_far_rows_are_found_by_the_models_own_distances(search: str) -> None:
    """By each of scikit-learn's ways to search, and not where one of two is a little nearer."""
    model = classifier(algorithm=search)
    rows = np.asarray([[0.5], [0.499], [1.0], [3.0], [3.0 + 1e-7], [-5.0]])
    found = Neighbours(model).tied(rows, model.predict)

    assert found.tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_every_right_answer_is_given_and_no_other(search: str, weights: str) -> None:
    """At 3 the points at 2 and 4 are equally far; at 0.4 there is one choice, which needs none."""
    model = classifier(algorithm=search, weights=weights)
    before = dict(vars(model))
    rows = np.asarray([[0.4], [3.0]])
    owners, answers = Neighbours(model).alternatives(rows, model.predict_proba)

    assert owners.tolist() == [1, 1]
    assert sorted(np.asarray(answers).tolist()) == [[0, 1, 0], [1, 0, 0]]
    assert vars(model).keys() == before.keys()
    assert model.predict(rows).shape == (2,)


def test_of_three_equally_far_rows_each_pair_is_right() -> None:
    """With a nearer one, which always counts, and for each combination of values once."""
    points = np.asarray([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    model = KNeighborsRegressor(n_neighbors=3).fit(points, [0.0, 3.0, 6.0, 6.0, 99.0])
    owners, answers = Neighbours(model).alternatives(np.zeros((1, 2)), model.predict)

    assert owners.tolist() == [0, 0]
    assert sorted(np.asarray(answers).tolist()) == [3.0, 4.0]


def test_neighbours_inside_a_vote_are_found() -> None:
    """Each answer is the whole model's; a fitted template that nobody asks changes nothing."""
    template = KNeighborsClassifier(1).fit(LINE, LABELS)
    pair = [("a", template), ("b", DecisionTreeClassifier(random_state=0))]
    model = VotingClassifier(pair, voting="soft").fit(LINE, LABELS)
    owners, answers = Neighbours(model).alternatives(
        np.asarray([[0.9], [3.0]]), model.predict_proba
    )
    tree = model.estimators_[1].predict_proba([[3.0]])[0]

    assert owners.tolist() == [1, 1]
    expected = [((np.eye(3)[label] + tree) / 2).tolist() for label in (1, 0)]
    assert sorted(np.asarray(answers).tolist()) == sorted(expected)


def test_a_row_with_too_many_choices_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that any of so many explains would show little."""
    monkeypatch.setattr(neighbours, "MOST_CHOICES", 1)
    model = classifier()
    owners, answers = Neighbours(model).alternatives(np.asarray([[3.0]]), model.predict)

    assert (owners.tolist(), answers) == ([], None)


class Graph:
    """Stands for a graph with given answers."""

    outputs = ("label", "probabilities")

    def __init__(self, label: list[int]) -> None:
        self._answers = [np.asarray(label), np.eye(3)[label]]

    def run(self, rows: Any) -> Any:
        """The answers to rows that hold their own index in the second column."""
        return [answer[rows[:, 1].astype(int)] for answer in self._answers]

    def run_all(self, chunks: Any, advance: Any) -> Any:
        """All answers."""
        advance(sum(map(len, chunks)))
        return self._answers


@pytest.mark.parametrize(
    ("label", "mismatches", "excused"),
    [
        (1, 0, 1),  # the other one of two points
        (2, 1, 0),  # a point that is further
    ],
)
def test_only_answers_that_the_distances_allow_are_excused(
    label: int, mismatches: int, excused: int
) -> None:
    """And only for the row at 3: at 0.4 one point is nearest, so another label is an error."""
    model = classifier()
    rows = np.asarray([[3.0, 0.0], [0.4, 1.0]])
    own = np.asarray([0, 0])
    tied = Neighbours(model).tied(rows[:, :1], model.predict)
    sample = Sample((fixed("data", rows),), columns=2)
    truth = Truth(sample, 0, own, np.eye(3)[own], np.ones(2), tied=tied)

    def ask(given: Any) -> AnswersOfRows:
        labels = model.predict(given)
        return AnswersOfRows(labels, np.eye(3)[labels], np.ones(len(given)), np.empty(0))

    def alternatives(some: Any, most: int) -> Any:
        return Neighbours(model).alternatives(some[:, :1], ask, most)

    def verdict(*answered: int) -> Any:
        return compare(
            truth,
            Graph(list(answered)),  # type: ignore[arg-type]
            tie_band=1e-6,
            tolerance=1e-6,
            advance=lambda _count: None,
            alternatives=alternatives,
        )

    found = verdict(label, 0)
    assert (found.mismatches, found.tied_rows, found.tied_differ) == (mismatches, 1, excused)
    assert found.passed == (mismatches == 0)
    assert verdict(0, 1).mismatches == 1


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "after a scaler"])
def test_the_usual_model_of_neighbours_is_exported(
    scaled: bool, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """On iris, whose measures have one decimal; the manifest counts the rows, and no golden row is
    one of them."""
    plain = KNeighborsClassifier()
    model = make_pipeline(StandardScaler(), plain) if scaled else plain
    model.fit(IRIS.data, IRIS.target)
    bundle = export(save(model, IRIS.data, serialization_format="cloudpickle"))
    parity = bundle.manifest["parity"]
    golden = [list(each["row"].values()) for each in bundle.manifest["golden"]]

    assert parity["label_mismatches"] == 0
    assert parity["equidistant_mismatches"] < parity["equidistant_rows"]
    assert not Neighbours(model).tied(np.asarray(golden), model.predict).any()


def test_a_wrong_conversion_is_still_refused(
    save: Callable[..., Any], export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted error: a graph of six neighbours in place of five differs where nothing is tied."""

    def planted(features: Any, estimator: Any) -> Any:
        six = KNeighborsClassifier(6).fit(IRIS.data, IRIS.target)
        return right(features, six if estimator.n_neighbors == 5 else estimator)

    right = converted.shares
    monkeypatch.setattr(converted, "shares", planted)
    model = KNeighborsClassifier().fit(IRIS.data, IRIS.target)
    with pytest.raises(GateError, match="labels differ outside the tie band"):
        export(save(model, IRIS.data, serialization_format="cloudpickle"), gate_rows=1_000)
