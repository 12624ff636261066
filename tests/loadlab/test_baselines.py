"""The baselines: every way from a record to a label gives the registered model's label, and a step
of the ladder changes one thing."""

import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from loadlab.experiments.bench.subjects import LADDER

BASELINE = Path(__file__).parents[2] / "loadlab/baseline"
WAYS = ("no-database", "typical", "no-pyfunc", "no-frame", "one-job")
"""One variant for each way, and none that asks other servers: `just prove-baselines` starts
those."""


@pytest.fixture(scope="module")
def baseline():
    """The baseline's modules; its environment is another, but its packages are in this one too."""
    sys.path.insert(0, str(BASELINE))
    from baseline import encoding, predictors, switches

    yield encoding, predictors, switches
    sys.path.remove(str(BASELINE))


@pytest.fixture(scope="module", params=["penguins", "cover", "iris"])
def saved(request, tmp_path_factory):
    """A model of each kind, its records, and the registered model's labels."""
    from support import pipelines

    return pipelines.saved(request.param, tmp_path_factory.mktemp("saved") / "model")


@pytest.mark.filterwarnings(
    "ignore"
)  # MLflow's and scikit-learn's own, about how the model was saved
@pytest.mark.parametrize("variant", WAYS)
def test_every_way_to_a_label_gives_the_registered_model_s(baseline, saved, variant):
    """Nulls, categories and unnamed rows included: what is not equal is not compared."""
    _, predictors, switches = baseline
    folder, records, expected = saved

    predict = predictors.predictor(switches.VARIANTS[variant], folder)

    assert [predict(record)["prediction"] for record in records] == expected


def test_an_unknown_step_of_a_pipeline_is_refused(baseline):
    """Rather than a column be passed on as it is, and the labels differ."""
    encoding, _, _ = baseline
    from support.pipelines import with_a_power_transformer

    with pytest.raises(TypeError, match="column wing: PowerTransformer is unknown"):
        encoding.Encoding.of(with_a_power_transformer())


def test_a_step_changes_one_thing(baseline):
    """The last also leaves the thread pool: ONNX Runtime's microseconds are less than a change of
    threads."""
    _, _, switches = baseline
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


def test_the_ladder_climbs_all_variants_in_their_order(baseline):
    """And at least ten steps in all."""
    _, _, switches = baseline

    keys = [step.key for step in LADDER]
    assert keys[: len(switches.VARIANTS)] == list(switches.VARIANTS)
    assert len(keys) >= 10
    for step in LADDER[: len(switches.VARIANTS)]:
        asks = "surroundings" in step.needs
        assert asks == switches.VARIANTS[step.key].needs_surroundings
