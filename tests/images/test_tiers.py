"""Every tier comes up by its profile, with the limits and the replicas that the compose file
writes."""

import json
import os
import subprocess
from typing import Any

import pytest
import yaml

from support.containers import ANSWER, ROOT, Compose, ask, docker, inspect

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())["services"]
TIERS = {
    name: service
    for name, service in SERVICES.items()
    if "io.halfcore.tier" in service.get("labels", {})
}
UNITS = {"M": 1 << 20, "G": 1 << 30}
CPUS = int(docker("info", "--format", "{{.NCPU}}"))


def _bytes(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def test_every_configuration_that_was_asked_for_is_a_tier() -> None:
    """CPUs, megabytes and replicas of each."""
    limits = {name: service["deploy"]["resources"]["limits"] for name, service in TIERS.items()}
    assert {
        name: (float(one["cpus"]), _bytes(one["memory"]) >> 20, TIERS[name]["deploy"]["replicas"])
        for name, one in limits.items()
    } == {
        "tenth-core": (0.1, 128, 1),
        "tenth-core-256m": (0.1, 256, 1),
        "fifth-core": (0.2, 256, 1),
        "quarter-core": (0.25, 256, 1),
        "half-core": (0.5, 512, 1),
        "one-core": (1, 1024, 1),
        "two-and-half-core": (2.5, 5632, 1),
        "three-core": (3, 6144, 1),
        "two-by-015": (0.15, 256, 2),
        "three-by-015": (0.15, 256, 3),
        "four-by-one": (1, 600, 4),
        "four-by-two": (2, 1024, 4),
        "three-by-one-and-half": (1.5, 2560, 3),
    }


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_is_its_name_its_profile_and_its_label(tier: str) -> None:
    """The load lab finds it by any of them."""
    assert TIERS[tier]["profiles"] == [tier]
    assert TIERS[tier]["labels"] == {"io.halfcore.tier": tier}


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_runs_within_its_limits(tier: str) -> None:
    """As the engine says they are; and it answers the README's request. An engine with fewer cores
    says so."""
    deploy = TIERS[tier]["deploy"]
    cpus = float(deploy["resources"]["limits"]["cpus"])
    with Compose(tier) as compose:
        if cpus > CPUS:
            assert "Range of CPUs is from 0.01" in compose("up", "--wait", check=False)
            return
        compose("up", "--wait")
        assert ask(compose.port) == (200, ANSWER)
        replicas = compose.containers(tier)
        found = {_limits(inspect(name)["HostConfig"]) for name in replicas}
    memory = _bytes(deploy["resources"]["limits"]["memory"])
    assert len(replicas) == deploy["replicas"]
    assert found == {(round(cpus * 1e9), memory, memory, 128, True, ("ALL",))}, (
        "CPU, memory, memory and swap, processes, root, capabilities"
    )


def _limits(host: dict[str, Any]) -> tuple[object, ...]:
    return (
        host["NanoCpus"],
        host["Memory"],
        host["MemorySwap"],
        host["PidsLimit"],
        host["ReadonlyRootfs"],
        tuple(host["CapDrop"]),
    )


def test_the_readmes_command_starts_a_tier() -> None:
    """Without a profile the compose file's folder and the repository's root start half a core."""
    with Compose() as compose:
        compose("up", "--wait", "--detach")
        assert ask(compose.port) == (200, ANSWER)
        assert len(compose.containers("half-core")) == 1


def test_the_model_that_is_named_outside_is_the_default() -> None:
    """MODEL_NAME reaches the tiers and the server that follows, and is not there if it is not
    set."""
    with Compose("half-core", MODEL_NAME="penguins-svm") as compose:
        compose("up", "--wait", "--detach")
        assert json.loads(ask(compose.port, "/health", None)[1])["default_model"] == "penguins-svm"
    for set_ in ({}, {"MODEL_NAME": "a"}, {"HALFCORE_DEFAULT_MODEL": "b"}):
        services = configured(**set_)
        for name in (*TIERS, "live"):
            found = {
                key: value
                for key, value in services[name]["environment"].items()
                if value is not None
            }
            assert {
                key: found.get(key)
                for key in ("MODEL_NAME", "HALFCORE_DEFAULT_MODEL")
                if key in found
            } == set_, name


def test_no_image_of_ours_is_pulled_under_a_name_that_is_not_ours() -> None:
    """Without NAMESPACE they are built here and never pulled; with it they are pulled from there,
    and only then."""
    ours = {name: service for name, service in configured().items() if "build" in service}
    assert (
        len(ours)
        == len(TIERS)
        + len(("live", "migrate", "examples", "exporter", "mlflow", "mlflow-s3", "bucket"))
        + 2
    )
    for name, service in ours.items():
        assert (service["pull_policy"], "/" in service["image"]) == ("never", False), name
    published = configured(NAMESPACE="registry.example/team", TAG="1.2.3")
    for name in ours:
        service = published[name]
        assert service["pull_policy"] == "missing", name
        assert service["image"].startswith("registry.example/team/halfcore"), name
        assert service["image"].endswith(":1.2.3"), name


def test_no_service_asks_for_open_files() -> None:
    """An engine refuses a container whose limit is above its own: what is there is taken, by the
    programs themselves."""
    for name, service in SERVICES.items():
        assert "nofile" not in service.get("ulimits", {}), name


def configured(**environment: str) -> dict[str, Any]:
    """Every service as Compose understands the file, with these variables set and none of the
    caller's."""
    free = ("NAMESPACE", "TAG", "MODEL_NAME", "HALFCORE_DEFAULT_MODEL", "PULL_POLICY")
    clean = {name: value for name, value in os.environ.items() if name not in free}
    told = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stderr == ""
    services: dict[str, Any] = json.loads(told.stdout)["services"]
    return services


def test_nothing_but_the_door_is_published_beyond_loopback() -> None:
    """Every port of every service names its address, which is loopback by default."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${BIND:-127.0.0.1}:")), (
                f"{name} publishes {port}"
            )
    assert os.environ.get("BIND", "127.0.0.1") == "127.0.0.1"


def test_every_service_has_limits() -> None:
    """No service may take the machine from the others."""
    for name, service in SERVICES.items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        assert {"cpus", "memory"} <= limits.keys(), f"{name} has no limits"
