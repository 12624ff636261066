"""The baselines: every way from a record to a label gives the registered model's label, and a step
of the ladder changes one thing."""

import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from loadlab.experiments.bench.subjects import LADDER

BASELINE = Path(__file__).parents[2] / "loadlab/baseline"
ROWS = 60
WAYS = ("no-database", "typical", "no-pyfunc", "no-frame", "one-job")
"""One variant for each way, and none that asks other servers: `just prove-rivals` starts those."""


@pytest.fixture(scope="module")
def rival():
    """The baseline's modules; its environment is another, but its packages are in this one too."""
    sys.path.insert(0, str(BASELINE))
    from rival import encoding, predictors, switches

    yield encoding, predictors, switches
    sys.path.remove(str(BASELINE))


@pytest.fixture(scope="module")
def birds():
    """Sixty made-up birds, some measures and rings missing."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "wing": rng.normal(20, 4, ROWS),
            "weight": rng.normal(300, 90, ROWS),
            "ring": rng.choice(["blue", "red"], ROWS),
        }
    )
    frame.loc[::7, "weight"] = np.nan
    frame["ring"] = frame["ring"].where(np.arange(ROWS) % 5 > 0)
    return frame


def pipeline_of(kind):
    """As the example models are built."""
    if kind == "penguins":
        numbers = Pipeline(
            [("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]
        )
        names = Pipeline(
            [("impute", SimpleImputer(strategy="most_frequent")), ("encode", OneHotEncoder())]
        )
        return Pipeline(
            [
                (
                    "prepare",
                    ColumnTransformer(
                        [("numbers", numbers, ["wing", "weight"]), ("names", names, ["ring"])]
                    ),
                ),
                ("model", LogisticRegression()),
            ]
        )
    encode = OneHotEncoder(categories=[["blue", "red"]])
    prepare = ColumnTransformer([("names", encode, ["ring"])], remainder="passthrough")
    return Pipeline(
        [
            ("prepare", prepare),
            ("model", RandomForestClassifier(9, max_depth=4, random_state=1, n_jobs=-1)),
        ]
    )


@pytest.fixture(scope="module", params=["penguins", "cover", "iris"])
def saved(request, birds, tmp_path_factory):
    """A model of each kind as MLflow keeps it, its records, and pyfunc's own labels."""
    frame = birds if request.param == "penguins" else birds.fillna({"weight": 300.0, "ring": "red"})
    labels = np.where(frame["wing"] + (frame["ring"] == "red") * 4 > 21, "hawk", "gull")
    rows = frame if request.param != "iris" else frame[["wing", "weight"]].to_numpy()
    model = (
        RandomForestClassifier(9, random_state=1)
        if request.param == "iris"
        else pipeline_of(request.param)
    ).fit(rows, labels)
    folder = tmp_path_factory.mktemp("saved") / "model"
    signature = mlflow.models.infer_signature(rows)
    mlflow.sklearn.save_model(
        model, folder, signature=signature, serialization_format="cloudpickle", pip_requirements=[]
    )
    expected = mlflow.pyfunc.load_model(str(folder)).predict(rows).tolist()
    named = pd.DataFrame(rows, columns=["x0", "x1"]) if request.param == "iris" else rows
    records = [
        {key: None if pd.isna(value) else value for key, value in record.items()}
        for record in named.to_dict("records")
    ]
    return str(folder), records, expected


@pytest.mark.filterwarnings(
    "ignore"
)  # MLflow's and scikit-learn's own, about how the model was saved
@pytest.mark.parametrize("variant", WAYS)
def test_every_way_to_a_label_gives_the_registered_model_s(rival, saved, variant):
    """Nulls, categories and unnamed rows included: what is not equal is not compared."""
    _, predictors, switches = rival
    folder, records, expected = saved

    predict = predictors.predictor(switches.VARIANTS[variant], folder)

    assert [predict(record)["prediction"] for record in records] == expected


def test_an_unknown_step_of_a_pipeline_is_refused(rival, birds):
    """Rather than a column be passed on as it is, and the labels differ."""
    encoding, _, _ = rival
    scaled = Pipeline(
        [("power", __import__("sklearn.preprocessing").preprocessing.PowerTransformer())]
    )
    pipeline = Pipeline(
        [
            ("prepare", ColumnTransformer([("all", scaled, ["wing"])])),
            ("model", LogisticRegression()),
        ]
    )
    pipeline.fit(birds, np.arange(ROWS) % 2)

    with pytest.raises(TypeError, match="column wing: PowerTransformer is unknown"):
        encoding.Encoding.of(pipeline)


def test_a_step_changes_one_thing(rival):
    """The last also leaves the thread pool: ONNX Runtime's microseconds are less than a change of
    threads."""
    _, _, switches = rival
    changes = [
        {
            field.name
            for field in dataclasses.fields(before)
            if getattr(before, field.name) != getattr(after, field.name)
        }
        for before, after in pairwise(switches.VARIANTS.values())
    ]

    assert [len(change) for change in changes] == [1] * 8 + [2]
    assert changes[-1] == {"predictor", "async_handler"}


def test_the_ladder_climbs_all_variants_in_their_order(rival):
    """And at least ten steps in all."""
    _, _, switches = rival

    keys = [step.key for step in LADDER]
    assert keys[: len(switches.VARIANTS)] == list(switches.VARIANTS)
    assert len(keys) >= 10
    for step in LADDER[: len(switches.VARIANTS)]:
        asks = "surroundings" in step.needs
        assert asks == switches.VARIANTS[step.key].needs_surroundings
