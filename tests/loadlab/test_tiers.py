"""Tiers and scenarios, as their files say them."""

import random
import statistics
from pathlib import Path

import pytest
import yaml

from loadlab.generator.plan import scenarios
from loadlab.run.order import cores_needed
from loadlab.target import tiers
from loadlab.words import UsageError

ROOT = Path(__file__).parents[2]


def test_every_profile_with_a_limit_is_a_tier():
    """The lab's tiers are the compose file's, limit by limit."""
    services = yaml.safe_load((ROOT / tiers.FILE).read_text())["services"]
    found = tiers.read(ROOT / tiers.FILE, {})
    assert set(found) == {
        name
        for name, service in services.items()
        if "io.halfcore.tier" in service.get("labels", {})
    }
    for name, tier in found.items():
        assert tier.cpus == float(services[name]["deploy"]["resources"]["limits"]["cpus"])
        assert services[name]["profiles"] == [name]
    assert (
        found["half-core"].cpus,
        found["half-core"].memory_bytes,
        found["half-core"].replicas,
    ) == (0.5, 512 << 20, 1)
    assert found["three-by-015"].replicas == 3
    assert found["half-core"].image == "halfcore:latest"


def test_variables_are_filled_as_compose_fills_them():
    """A published image is measured by naming it."""
    found = tiers.read(ROOT / tiers.FILE, {"NAMESPACE": "registry.example/team", "TAG": "1.2"})
    assert found["half-core"].image == "registry.example/team/halfcore:1.2"


def test_a_variable_without_a_value_is_not_the_tiers(tmp_path):
    """Compose passes it on from who types the command; a run is the same whoever starts it."""
    file = tmp_path / "compose.yaml"
    limits = "deploy: {resources: {limits: {cpus: '1', memory: 1G}}}"
    environment = "environment: {MODEL_NAME: , B: '${B:-b}', C: '${B:+c}'}"
    file.write_text(f"services: {{a: {{labels: [io.halfcore.tier=a], {environment}, {limits}}}}}")
    assert tiers.read(file, {"MODEL_NAME": "x"})["a"].environment == {"B": "b", "C": ""}
    assert tiers.read(file, {"B": "1"})["a"].environment == {"B": "1", "C": "c"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: [", "no services"),
        ("nothing: 1", "no services"),
        (
            "services: {a: {labels: {io.halfcore.tier: a}}}",
            "tier a: deploy.resources.limits needs cpus and memory",
        ),
        (
            (
                "services: {a: {labels: [io.halfcore.tier=a], deploy: {resources: {limits: {cpus: "
                "'1', memory: much}}}}}"
            ),
            "'much' is no size",
        ),
    ],
)
def test_a_wrong_compose_file_is_named(tmp_path, text, says):
    """The message says what was found and what was expected."""
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        tiers.read(file, {})


def test_outside_of_a_clone_it_says_so(tmp_path):
    """The packages install without a clone, but the tiers are in it."""
    with pytest.raises(UsageError, match=r"compose\.yaml: no such file; run this in a clone"):
        tiers.read(tmp_path / tiers.FILE, {})


def test_a_tier_needs_its_own_cores_and_one_for_the_generator():
    """Below that, server and generator measure each other."""
    found = tiers.read(ROOT / tiers.FILE, {})
    assert [
        cores_needed(found[name])
        for name in ("tenth-core", "half-core", "one-core", "three-core", "three-by-015")
    ] == [2, 2, 2, 4, 2]


def test_the_scenarios_offer_what_they_say():
    """Requests a second of 10,000 users whose answers take no time."""
    rates = {name: round(each.users / each.mean_think_s) for name, each in scenarios().items()}
    assert rates == {
        "steady": 1538,
        "course": 5714,
        "second": 10_000,
        "poisson": 1538,
        "overload": 1538,
        "soak": 1538,
    }


@pytest.mark.parametrize("name", ["steady", "course", "poisson"])
def test_think_times_have_the_mean_that_the_rate_is_computed_from(name):
    """10,000 draws, seeded."""
    scenario, draw = scenarios()[name], random.Random(1)  # noqa: S311  reproducible
    drawn = [scenario.think_s(draw) for _ in range(10_000)]
    assert statistics.fmean(drawn) == pytest.approx(scenario.mean_think_s, rel=0.03)
    if not scenario.open:
        assert scenario.think[0] <= min(drawn)
        assert max(drawn) <= scenario.think[1]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('says = ""\nthink = [4.0, 1.0]\nusers = 1\nsteady = 1', "think"),
        ('says = ""\nthink = [1.0]\nusers = 0\nsteady = 1', "above 0"),
        ('says = ""\nthink = [1.0]\nusers = 1\nsteady = 1\nspeed = 2', "speed"),
        (
            (
                'says = ""\nthink = [1.0]\nusers = 1\nsteady = 10\nsurge = {factor = 2.0, after = '
                "5, seconds = 6}"
            ),
            "surge",
        ),
    ],
)
def test_a_wrong_scenario_is_named(tmp_path, table, says):
    """An unknown field is an error too."""
    file = tmp_path / "scenarios.toml"
    file.write_text(f"[mine]\n{table}\n")
    with pytest.raises(UsageError, match=says):
        scenarios(file)
