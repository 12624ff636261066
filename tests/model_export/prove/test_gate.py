"""The gate compares what it says it compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from model_export.prove import compare as parity
from model_export.prove import domain, draw, oracle, ranges, samples, thresholds
from model_export.prove.boundary import no_boundary
from model_export.prove.compare import compare
from model_export.prove.oracle import Truth
from model_export.prove.prove import GateError
from model_export.study.anatomy import Anatomy, dissect
from model_export.study.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS = load_iris()
NOTHING = Anatomy((), (), ("model", None))
MATRIX = Schema(
    tuple(Column(f"x{i}", "number", "float64") for i in range(4)),
    named=False,
    matrix_dtype="float64",
)


def drawn(
    data: Any, schema: Schema, around: dict[int, Any], *, rows: int, limit: float | None = None
) -> samples.Sample:
    """The gate's rows for a model of which nothing is known."""
    found = ranges.find_ranges(data, schema, NOTHING, {})
    return draw.draw(
        samples.RowSampler(data, schema, found, limit),
        around,
        no_boundary(len(schema.columns)),
        rows=rows,
    )


def all_rows(sample: samples.Sample) -> Any:
    """All rows together."""
    return np.concatenate(list(sample.chunks()))


def ignore(count: int) -> None:
    """Report progress to nobody."""


@pytest.mark.slow
def test_a_full_gate_passes_on_an_honest_model(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """At least 100,000 rows besides those around thresholds, no label that differs, one answer in
    every batch size."""
    model = RandomForestClassifier(30, random_state=0).fit(IRIS.data, IRIS.target)

    report = export(save(model, IRIS.data), gate_rows=draw.GATE_ROWS).manifest["parity"]

    assert report["passed"] is True
    assert report["rows"] - report["threshold_rows"] >= 100_000
    assert report["threshold_rows"] > 100
    assert report["label_mismatches"] == 0
    assert report["max_abs_diff"] <= report["tolerance"] == 1e-6
    assert report["batch_sizes"] == [1, 128]


def test_every_threshold_has_its_neighbours() -> None:
    """Float32 neighbours −2…+2 ulp, and doubles on both sides of where rounding changes sides."""
    tree = DecisionTreeClassifier(random_state=0).fit(IRIS.data, IRIS.target)
    found = thresholds.threshold_neighbours(dissect(tree, MATRIX.names), MATRIX)

    inner = tree.tree_.children_left >= 0
    for feature, threshold in zip(
        tree.tree_.feature[inner], tree.tree_.threshold[inner], strict=True
    ):
        near = np.float32(threshold)
        ulp = np.spacing(near)
        assert {float(near + k * ulp) for k in range(-2, 3)} <= set(found[feature].tolist())
        rounded = (
            found[feature][np.abs(found[feature] - threshold) < 2 * ulp]
            .astype(np.float32)
            .astype(np.float64)
        )
        assert (rounded <= threshold).any()
        assert (rounded > threshold).any()


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=500)),
        make_pipeline(PolynomialFeatures(2), LinearRegression()),
    ],
    ids=["polynomial classifier", "polynomial regressor"],
)
def test_a_model_that_differs_at_the_edge_of_float32_alone_is_proven_within_a_limit(
    model: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """The manifest says within which, and the limit is far beyond the data; in float64 the squares
    are finite, and no limit is needed."""
    folder = save(model.fit(IRIS.data, IRIS.target), IRIS.data)
    manifest = export(folder, dtype="float32").manifest

    assert manifest["parity"]["passed"] is True
    low, high = manifest["inputs"][0]["domain"]
    assert -low == high >= 1000 * IRIS.data.max()
    assert "domain" not in export(folder).manifest["inputs"][0]


def test_a_limit_excludes_every_row_that_differs_and_no_data() -> None:
    """The largest there is; none where a row differs near to the data."""
    data = np.array([[5.0, 1.0, 1.0, 1.0]])

    assert (
        domain.largest_safe_limit([np.array([[1e20, 1, 1, 1], [1, -1e30, 1, 1]])], data, MATRIX)
        == 1e18
    )
    assert domain.largest_safe_limit([np.array([[1e6, 1.0, 1, 1]])], data, MATRIX) is None
    assert (
        domain.largest_safe_limit(
            [np.array([[1e30, 1, 1, 1]]), np.array([[9.0, 1, 1, 1]])], data, MATRIX
        )
        is None
    )


def test_edges_stay_within_a_limit() -> None:
    """And the limit itself is one of them."""
    rows = all_rows(drawn(IRIS.data, MATRIX, {0: np.array([1.0, 1e12])}, rows=2_000, limit=1e9))

    assert np.abs(rows).max() == 1e9


def test_thresholds_are_traced_through_a_scaler() -> None:
    """The rows around a threshold on a scaled feature are rows of the raw column: the model itself
    changes its mind among them."""
    model = make_pipeline(
        StandardScaler(), DecisionTreeClassifier(random_state=0, max_depth=1)
    ).fit(IRIS.data, IRIS.target)
    ((column, values),) = thresholds.threshold_neighbours(
        dissect(model, MATRIX.names), MATRIX
    ).items()

    rows = np.tile(IRIS.data[0], (len(values), 1))
    rows[:, column] = values
    assert len(set(model.predict(rows))) == 2
    assert np.ptp(values) < 1e-5


def test_integers_stay_integers_around_thresholds() -> None:
    """A threshold at 2.5 on an integer column gives 1, 2, 3, 4."""
    schema = Schema((Column("n", "integer", "int64"),), named=True)
    tree = DecisionTreeClassifier().fit([[2], [3]], [0, 1])

    assert thresholds.threshold_neighbours(dissect(tree, ["n"]), schema)[0].tolist() == [
        1.0,
        2.0,
        3.0,
        4.0,
    ]


def test_values_around_thresholds_are_within_the_type() -> None:
    """Next to a threshold at 0.5 is no -1 in a matrix of bytes, such as an image's: the registered
    model would read 255."""
    schema = Schema((Column("x0", "integer", "uint8"),), named=False, matrix_dtype="uint8")
    tree = DecisionTreeClassifier().fit([[0], [1], [254], [255]], [0, 1, 0, 1])

    found = thresholds.threshold_neighbours(dissect(tree, ["x0"]), schema)[0].tolist()
    assert found == [0.0, 1.0, 2.0, 126.0, 127.0, 128.0, 129.0, 253.0, 254.0, 255.0]


def test_too_many_thresholds_share_rows() -> None:
    """Beyond 50,000 values a row takes several, so that every value still occurs."""
    values = {i: np.arange(20_000.0) + 1000.0 * i for i in range(4)}
    sample = drawn(IRIS.data, MATRIX, values, rows=100)
    (number,) = (i for i, group in enumerate(sample.groups) if group.name == "thresholds")
    rows = np.concatenate(list(sample.of(number)))

    assert len(rows) == draw.THRESHOLD_ROWS
    assert all(set(values[i].tolist()) <= set(rows[:, i].tolist()) for i in range(4))


def test_the_sample_holds_the_edges() -> None:
    """Zeros of both signs, denormals, the largest float32, every category, nulls where they are
    legal, integers too long for float32."""
    columns = (
        Column("a", "number", "float64", nullable=True),
        Column("n", "integer", "int64"),
        Column("c", "category", "str", nullable=True, categories=("x", "y", "z")),
    )
    data = np.array([[1.0, 5.0, 0.0], [2.0, 9.0, 0.0]])
    rows = all_rows(drawn(data, Schema(columns, named=True), {}, rows=5_000))
    seen = set(rows[:, 0].tolist())

    assert len(rows) >= 5_000
    assert {0.0, 5e-324, float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max)} <= seen
    assert np.signbit(rows[rows[:, 0] == 0.0, 0]).any()
    assert np.isnan(rows[:, 0]).any()
    assert not np.isnan(rows[:, 1]).any()
    assert np.array_equal(rows[:, 1], np.rint(rows[:, 1]))
    assert 2.0**24 + 1 in rows[:, 1]
    assert set(rows[:, 2]) == {0.0, 1.0, 2.0, 3.0}


def test_the_same_rows_are_drawn_every_time() -> None:
    """An export can be repeated."""
    sample = drawn(IRIS.data, MATRIX, {0: np.array([1.0, 2.0])}, rows=2_000)
    one, two = (
        all_rows(sample),
        all_rows(drawn(IRIS.data, MATRIX, {0: np.array([1.0, 2.0])}, rows=2_000)),
    )
    some = np.array([1999, 0, 700, 701, 5])

    assert len(one) == sample.size >= 2_000
    assert np.array_equal(one, two)
    assert np.array_equal(sample.take(some), one[some])


class Graph:
    """A graph that answers from a table, for the comparison alone."""

    outputs = ("label", "probabilities")

    def __init__(self, label: Any, scores: Any, *, by_batch: bool = False) -> None:
        """Answer row i, which holds i, with entry i; `by_batch`: 1 in every batch of more than one
        row."""
        self._label, self._scores, self._by_batch = (
            np.asarray(label),
            np.asarray(scores, dtype=np.float32),
            by_batch,
        )

    def run(self, rows: Any) -> list[Any]:
        """Answer one batch."""
        i = rows[:, 0].astype(int)
        return [
            np.ones_like(self._label[i]) if self._by_batch and len(i) > 1 else self._label[i],
            self._scores[i],
        ]

    def run_all(self, chunks: Any, advance: Any) -> list[Any]:
        """Answer all rows."""
        advance(sum(map(len, chunks)))
        return [self._label, self._scores]


def truth(label: list[int], scores: list[list[float]]) -> Truth:
    """What the registered model is said to answer for the rows 0, 1, …"""
    rows = np.arange(float(len(label)))[:, None]
    found = np.asarray(scores, dtype=np.float64)
    sample = samples.Sample((samples.fixed("data", rows),), columns=1)
    return Truth(sample, 0, np.asarray(label), found, oracle._lead(found))


def test_a_wrong_label_fails_and_is_the_worst_row() -> None:
    """Of two wrong labels the one whose class led by more is shown."""
    scores = [[0.9, 0.1], [0.6, 0.4], [0.9, 0.1]]
    verdict = compare(
        truth([0, 0, 0], scores),
        Graph([0, 1, 1], scores),
        tie_band=1e-6,
        tolerance=1e-6,
        advance=ignore,
    )  # type: ignore[arg-type]

    assert (verdict.passed, verdict.mismatches, verdict.worst) == (False, 2, 2)


def test_a_wrong_label_inside_the_tie_band_is_a_tie() -> None:
    """Both labels are right where the two best classes are equally likely; it is counted and
    reported."""
    scores = [[0.5, 0.5], [0.9, 0.1]]
    verdict = compare(
        truth([0, 0], scores), Graph([1, 0], scores), tie_band=1e-6, tolerance=1e-6, advance=ignore
    )  # type: ignore[arg-type]

    assert (verdict.passed, verdict.ties, verdict.tie_mismatches) == (True, 1, 1)


@pytest.mark.parametrize("wrong", [0.9001, float("nan"), float("inf")])
def test_a_wrong_probability_fails(wrong: float) -> None:
    """Beyond the tolerance, or no number at all."""
    graph = Graph([0, 0], [[0.9, 0.1], [wrong, 0.1]])
    verdict = compare(
        truth([0, 0], [[0.9, 0.1]] * 2), graph, tie_band=1e-6, tolerance=1e-6, advance=ignore
    )  # type: ignore[arg-type]

    assert (verdict.passed, verdict.mismatches, verdict.worst) == (False, 0, 1)


def test_an_answer_that_depends_on_the_batch_fails() -> None:
    """The same row must have the same label in every batch."""
    scores = [[0.9, 0.1]] * 5
    graph = Graph([0] * 5, scores, by_batch=True)
    verdict = compare(truth([0] * 5, scores), graph, tie_band=1e-6, tolerance=1e-6, advance=ignore)  # type: ignore[arg-type]

    assert verdict.unsteady_labels > 0
    assert not verdict.passed


def test_a_tolerance_given_by_hand_is_recorded(
    save: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --accept-parity the model is refused; with it the bundle says so."""
    folder = save(LogisticRegression(max_iter=500).fit(IRIS.data, IRIS.target), IRIS.data)
    monkeypatch.setattr(parity, "difference", lambda _, truth, **__: np.full(len(truth), 1e-4))

    with pytest.raises(GateError, match="--accept-parity"):
        export(folder)
    report = export(folder, accept_parity=1e-3).manifest["parity"]

    assert (report["accepted"], report["tolerance"], report["tie_band"]) == (1e-3, 1e-3, 1e-3)


def test_edges_on_which_the_model_raises_are_left_out(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A small spread makes the scaler's result overflow float32 before the trees: no answer to
    compare, and it is said."""
    x = IRIS.data * 1e-3
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(
        x, IRIS.target
    )

    reference = export(save(model, x), dtype="float64").manifest["parity"]["reference"]

    assert "the registered model raises on" in reference
