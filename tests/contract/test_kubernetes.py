"""The Kubernetes manifests are what the API takes, checked against its schemas, and agree with one
another and with the server."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from halfcore.settings.names import PREFIX
from halfcore.settings.reading import load

FOLDER = Path(__file__).parents[2] / "kubernetes"
RESOURCES: list[str] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
MANIFESTS: dict[str, Any] = {
    f"{document['kind']} in {name}": document
    for name in RESOURCES
    for document in yaml.safe_load_all((FOLDER / name).read_text())
}
OF_KUBERNETES = {
    name: manifest
    for name, manifest in MANIFESTS.items()
    if "monitoring.coreos.com" not in manifest["apiVersion"]
}
LABELS = {"app.kubernetes.io/name": "halfcore"}


def the(kind: str) -> Any:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in MANIFESTS.values() if manifest["kind"] == kind)
    return found


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
@pytest.mark.parametrize("name", OF_KUBERNETES)
def test_a_manifest_is_valid(name: str, version: str) -> None:
    """To the strict schema of old and new versions: an unknown field is an error."""
    kubernetes_validate.validate(OF_KUBERNETES[name], version, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    """The check can fail."""
    wrong = the("Deployment") | {"spec": the("Deployment")["spec"] | {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_all_kinds_that_a_service_needs_are_there() -> None:
    """And all stand in kustomization.yaml."""
    kinds = {manifest["kind"] for manifest in MANIFESTS.values()}
    assert kinds == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "ServiceMonitor",
    }
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*RESOURCES, "kustomization.yaml"}


def test_they_select_the_same_pods() -> None:
    """Service, budget and monitor mean the Deployment's pods and their port."""
    deployment = the("Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert (
        pod["metadata"]["labels"]
        == deployment["spec"]["selector"]["matchLabels"]
        == the("Service")["spec"]["selector"]
        == LABELS
    )
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    assert (
        the("ServiceMonitor")["spec"]["selector"]["matchLabels"]
        == the("Service")["metadata"]["labels"]
        == LABELS
    )
    assert (
        the("ServiceMonitor")["spec"]["endpoints"][0]["port"]
        == the("Service")["spec"]["ports"][0]["name"]
    )
    assert the("Service")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert (
        the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == deployment["metadata"]["name"]
    )


def test_the_server_takes_its_settings_and_has_time_to_end() -> None:
    """The environment loads, and Kubernetes waits longer than the server may take."""
    spec = the("Deployment")["spec"]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
    assert all(name.startswith(PREFIX) for name in environment)
    settings = load(environment)
    assert settings.predrain_s + settings.drain_timeout_s < spec["terminationGracePeriodSeconds"]
