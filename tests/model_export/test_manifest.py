"""The manifest, field by field against docs/bundle-format.md."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from model_export.distribution import ranges
from model_export.study.rows import from_frame
from model_export.study.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable


FORMAT = Path(__file__).parents[2] / "docs" / "bundle-format.md"
EXTRA = {
    "parity": {
        "tie_mismatches",
        "equidistant_rows",
        "equidistant_mismatches",
        "batch_ulps",
        "boundary_rows",
    }
}
"""Fields that the exporter adds for people; readers ignore what they do not know."""


@pytest.fixture(scope="module")
def bundle(
    birds: pd.DataFrame,
    species: Any,
    save_shared: Callable[..., Any],
    export_shared: Callable[..., Any],
) -> Any:
    """A tree on imputed, encoded birds; not to be changed."""
    prepare = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["wing", "weight"]),
            (
                "names",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()),
                ["place", "ring"],
            ),
        ],
        remainder="passthrough",
    )
    model = make_pipeline(prepare, DecisionTreeClassifier(random_state=0, max_depth=5)).fit(
        birds, species
    )
    return export_shared(save_shared(model, birds), name="birds")


def test_no_golden_row_has_an_answer_that_is_not_finite(
    save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """A Poisson regression answers infinity to large values, which the server refuses."""
    rows = np.random.default_rng(1).normal(size=(200, 3))
    model = PoissonRegressor().fit(rows, np.exp(rows[:, 0]))
    manifest = export(save(model, rows), name="poisson").manifest
    assert all(np.isfinite(golden["prediction"]) for golden in manifest["golden"])


def documented(after: str, until: str) -> set[str]:
    """Field names in backticks in the first column of the table between two lines of the
    document."""
    text = FORMAT.read_text()
    table = text[text.index(after) : text.index(until)]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_the_manifest_has_every_documented_field_and_no_other(bundle: Any) -> None:
    """Top level, inputs and parity; `categories` only for categories."""
    manifest = bundle.manifest
    text = FORMAT.read_text()
    parity = text[text.index("`parity`: ") : text.index("An entry of `golden`")]

    # `ignored` is for models that do not read all of their columns:
    # tests/model_export/test_cases.py
    assert set(manifest) == documented("## manifest.json", "An entry of `inputs`:") - {"ignored"}
    # `domain` is only for models that are proven within a limit:
    # tests/model_export/prove/test_gate.py
    # `accepts_unknown` and `text` are only for columns that have them: tests/contract/
    assert set(bundle.inputs("place")) == documented("An entry of `inputs`:", "| `analyzer`") - {
        "domain",
        "accepts_unknown",
        "text",
    }
    assert set(bundle.inputs("wing")) == set(bundle.inputs("place")) - {"categories"}
    assert all(f"`{field}`" in parity for field in set(manifest["parity"]) - EXTRA["parity"])
    assert {
        "passed",
        "rows",
        "threshold_rows",
        "tolerance",
        "accepted",
        "seconds",
        "reference",
    } <= set(manifest["parity"])


def test_the_distribution_of_the_data(bundle: Any, birds: pd.DataFrame) -> None:
    """Ten ranges of numbers, a share for each category, and the labels' shares."""
    found = bundle.manifest["distribution"]
    wing, place = found["inputs"]["wing"], found["inputs"]["place"]

    assert found["rows"] == len(birds)
    assert len(wing["limits"]) == 9
    assert wing["shares"][-1] == pytest.approx(birds["wing"].isna().mean(), abs=1e-6)
    assert max(wing["shares"][:-1]) < 0.2
    categories = bundle.inputs("place")["categories"]
    expected = birds["place"].value_counts(normalize=True)
    assert place["shares"][: len(categories)] == pytest.approx(
        [expected[category] * birds["place"].notna().mean() for category in categories], abs=1e-6
    )
    assert "limits" not in place
    assert sum(found["answers"]["shares"]) == pytest.approx(1, abs=1e-5)
    assert len(found["answers"]["shares"]) == len(bundle.manifest["classes"])


@pytest.mark.parametrize(
    ("values", "limits", "shares"),
    [
        ([1.0] * 4, [1.0], [0.0, 1.0, 0.0]),
        ([0.0, 0.0, 0.0, 1.0, np.nan], [0.0, 1.0], [0.0, 0.6, 0.2, 0.2]),
        ([np.nan], [], [0.0, 1.0]),
        (range(20), list(range(2, 20, 2)), [0.1] * 10 + [0.0]),
    ],
    ids=["one value", "two values and null", "null only", "many"],
)
def test_ranges_have_about_equal_counts(values: Any, limits: Any, shares: Any) -> None:
    """A value that is a limit counts to the range that begins there; the last share is null's."""
    found = ranges(np.array(values, dtype=np.float32))

    assert found == {"limits": pytest.approx(limits), "shares": pytest.approx(shares)}


def test_who_and_what(bundle: Any) -> None:
    """Name, version, time, task, source and tools."""
    manifest = bundle.manifest

    assert manifest["format"] == 1
    assert (manifest["name"], manifest["task"], manifest["named"]) == (
        "birds",
        "classification",
        True,
    )
    assert bundle.folder.name == f"{manifest['version']}-{manifest['onnx']['sha256'][:8]}"
    assert (
        abs((datetime.now(UTC) - datetime.fromisoformat(manifest["created_at"])).total_seconds())
        < 600
    )
    assert manifest["created_at"].endswith("Z")
    assert set(manifest["source"]) == {
        "uri",
        "resolved",
        "run_id",
        "model_id",
        "flavor",
        "model_class",
    }
    assert manifest["source"]["flavor"] == "skops"
    assert manifest["source"]["model_class"] == "Pipeline(DecisionTreeClassifier)"
    assert {"scikit-learn", "skl2onnx", "onnx", "onnxruntime", "mlflow"} <= set(manifest["tools"])


def test_the_graph_is_the_one_described(bundle: Any) -> None:
    """File, hash, size, IR, opset; one input and the named outputs, with their types and shapes."""
    content = (bundle.folder / "model.onnx").read_bytes()
    inputs, outputs = bundle.session.get_inputs(), bundle.session.get_outputs()

    assert bundle.manifest["onnx"] == {
        "file": "model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "ir_version": 10,
        "opset": {"ai.onnx": 21, "ai.onnx.ml": 3},
    }
    assert [(i.name, i.type, i.shape) for i in inputs] == [("rows", "tensor(float)", ["N", 6])]
    assert [o.name for o in outputs] == bundle.manifest["outputs"] == ["label", "probabilities"]
    assert [(o.type, o.shape) for o in outputs] == [
        ("tensor(int64)", ["N"]),
        ("tensor(float)", ["N", 3]),
    ]


def test_the_inputs_are_those_of_the_signature(bundle: Any, birds: pd.DataFrame) -> None:
    """Kind, nullability, range and an example of each."""
    wing, eggs, tame, ring = (bundle.inputs(name) for name in ("wing", "eggs", "tame", "ring"))

    assert (wing["minimum"], wing["maximum"]) == (birds["wing"].min(), birds["wing"].max())
    assert (eggs["kind"], type(eggs["example"]), eggs["nullable"]) == ("integer", int, False)
    assert (tame["kind"], type(tame["example"]), tame["minimum"]) == ("boolean", bool, None)
    assert (ring["categories"], ring["minimum"], ring["maximum"]) == (["blue", "red"], None, None)
    assert ring["example"] in ring["categories"]


def test_the_golden_rows_give_the_golden_answers(bundle: Any) -> None:
    """About 32 rows, edges and nulls among them, with the registered model's label and
    probabilities."""
    golden = bundle.manifest["golden"]
    label, probabilities = bundle.answer(*(entry["row"] for entry in golden))

    assert 24 <= len(golden) <= 40
    assert any(None in entry["row"].values() for entry in golden)
    assert any(
        abs(entry["row"]["wing"] or 0.0) > 1e30 or abs(entry["row"]["eggs"]) > 1e6
        for entry in golden
    )
    assert [bundle.manifest["classes"][i] for i in label] == [
        entry["prediction"] for entry in golden
    ]
    expected = np.array([entry["probabilities"] for entry in golden])
    assert np.abs(probabilities - expected).max() <= bundle.manifest["parity"]["tolerance"]


@pytest.mark.parametrize(
    ("dtype", "named", "domain"),
    [
        ("uint8", False, [0, 255]),
        ("int16", False, [-32_768, 32_767]),
        ("uint64", False, [0, 2**53]),
        ("int32", True, [-(2**31), 2**31 - 1]),
        ("uint8", True, [-(2**31), 2**31 - 1]),
        ("int64", True, None),
    ],
)
def test_integers_are_served_within_their_type(
    dtype: str, named: bool, domain: Any, save: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """Beyond it MLflow refuses them. In a table MLflow knows only integers of 32 and of 64 bits."""
    x: Any = np.random.default_rng(2).integers(0, 99, (120, 2)).astype(dtype)
    labels = x[:, 0] > x[:, 1] / 2
    x = pd.DataFrame(x, columns=["eggs", "young"]) if named else x
    bundle = export(save(DecisionTreeClassifier(max_depth=3).fit(x, labels), x), gate_rows=1_000)

    assert [entry.get("domain") for entry in bundle.manifest["inputs"]] == [domain] * 2


def test_rows_beyond_a_type_are_left_out() -> None:
    """A number that NumPy would make another one of, and a boolean that is none."""
    schema = Schema((Column("eggs", "integer", "uint8"), Column("tame", "boolean", "bool")), True)
    frame = pd.DataFrame({"eggs": [300, -1, 255, 0, 3], "tame": [0, 1, 1, 0, 2]})

    assert from_frame(frame, schema)[1].tolist() == [False, False, True, True, False]
