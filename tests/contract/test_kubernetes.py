"""The Kubernetes manifests are what the API takes, checked against its schemas, with each component
alone and with all of them; they agree with one another and with the server, the exporter and the
images.

Kustomize builds them, as kubectl has it from 1.21 on; without it what is built is not checked.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from halfcore.settings.names import PREFIX
from halfcore.settings.reading import load
from model_export import __main__ as exporter
from model_export.watch import settings as watch_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "kubernetes"
COMPONENTS = sorted(path.name for path in FOLDER.glob("components/*"))
CHOICES = [(), *((name,) for name in COMPONENTS), tuple(COMPONENTS)]
OPERATOR = "monitoring.coreos.com"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGES = {"halfcore": "server", "halfcore-export": "export"}
"""Each with the stage of the Dockerfile that makes it."""


def _kubectl() -> str:
    """Why kubectl cannot build; empty if it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    command = ["kubectl", "version", "--client", "--output", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    version = found["clientVersion"]["gitVersion"]
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    assert numbers is not None, version
    enough = (int(numbers[1]), int(numbers[2])) >= (1, 21)
    return "" if enough else f"kubectl {version} has no components, which came with 1.21"


_REASON = _kubectl()
builds = pytest.mark.skipif(bool(_REASON), reason=_REASON)


@cache
def built(components: tuple[str, ...], tmp: Path) -> list[Any]:
    """What Kustomize makes of a copy of the folder with these components."""
    folder = tmp / "-".join(("kubernetes", *components))
    shutil.copytree(FOLDER, folder)
    file = folder / "kustomization.yaml"
    overlay = yaml.safe_load(file.read_text())
    overlay["components"] = [f"components/{name}" for name in components]
    file.write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all builds, so that none is made twice."""
    return tmp_path_factory.mktemp("kubernetes")


@pytest.fixture(params=CHOICES, ids=lambda names: "+".join(names) or "base")
def manifests(request: pytest.FixtureRequest, tmp: Path) -> list[Any]:
    """What is applied, with every choice of components."""
    return built(request.param, tmp)


@pytest.fixture
def everything(tmp: Path) -> list[Any]:
    """What is applied with all components."""
    return built(tuple(COMPONENTS), tmp)


def the(kind: str, manifests: list[Any], name: str | None = None) -> Any:
    """The only manifest of a kind, or of a kind and a name."""
    (found,) = (
        one for one in manifests if one["kind"] == kind and name in (None, one["metadata"]["name"])
    )
    return found


def pods(manifests: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each pod's template, with the only container of it."""
    for one in manifests:
        if "template" in one.get("spec", {}):
            (container,) = one["spec"]["template"]["spec"]["containers"]
            yield one["spec"]["template"], container


def environment(container: Any, manifests: list[Any]) -> dict[str, str]:
    """A container's environment, without that of Secrets."""
    found = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= the("ConfigMap", manifests, source["configMapRef"]["name"])["data"]
    return found


@builds
@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_what_is_built_is_valid(manifests: list[Any], version: str) -> None:
    """To the strict schema of old and new versions: an unknown field is an error."""
    for one in manifests:
        if OPERATOR not in one["apiVersion"]:
            kubernetes_validate.validate(one, version, strict=True)


@builds
def test_a_wrong_field_would_be_found(tmp: Path) -> None:
    """The check can fail."""
    deployment = the("Deployment", built((), tmp))
    wrong = deployment | {"spec": deployment["spec"] | {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@builds
def test_a_bare_cluster_takes_the_base(tmp: Path) -> None:
    """It needs no operator and no adapter; a component adds its own kinds, and no file is left
    out."""
    base = [one["kind"] for one in built((), tmp)]
    assert sorted(base) == ["Deployment", "PodDisruptionBudget", "Service"]
    added = {
        name: sorted(one["kind"] for one in built((name,), tmp) if one["kind"] not in base)
        for name in COMPONENTS
    }
    assert added == {
        "bundle": ["ConfigMap", "Job", "PersistentVolumeClaim"],
        "monitoring": ["ServiceMonitor"],
        "registry": ["ConfigMap"],
        "scaling": ["HorizontalPodAutoscaler"],
        "watch": ["ConfigMap"],
    }
    for file in FOLDER.glob("**/kustomization.yaml"):
        others = {path.name for path in file.parent.glob("*.yaml")} - {file.name}
        assert others <= set(yaml.safe_load(file.read_text()).get("resources", [])), file


@builds
def test_they_select_the_same_pods(everything: list[Any]) -> None:
    """Service, budget, autoscaler and monitor mean the server's pods, and no other's."""
    labels = {"app.kubernetes.io/name": "halfcore"}
    server = the("Deployment", everything, "halfcore")
    service = the("Service", everything)
    pod = server["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert [one for one, _ in pods(everything) if one["metadata"]["labels"] == labels] == [pod]
    assert server["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert the("PodDisruptionBudget", everything)["spec"]["selector"]["matchLabels"] == labels
    monitor = the("ServiceMonitor", everything)["spec"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"] == labels
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    autoscaler = the("HorizontalPodAutoscaler", everything)["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == server["metadata"]["name"]
    assert "replicas" not in server["spec"]  # the autoscaler's


@builds
def test_the_server_has_what_the_manifests_name(everything: list[Any]) -> None:
    """Ports, paths, folders, metrics and settings."""
    template = the("Deployment", everything, "halfcore")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    settings = load({**image_environment("server"), **environment(container, everything)})
    assert container["ports"][0]["containerPort"] == settings.port
    assert settings.follow
    assert settings.tracking_uri
    mounts = {
        Path(one["mountPath"]): one.get("readOnly", False) for one in container["volumeMounts"]
    }
    assert mounts == {settings.store.parent: False, settings.bundles: True}
    assert settings.state.parent == settings.prediction_log_spool.parent == settings.store.parent
    routes = (ROOT / "server/src/halfcore/http/routes").glob("*.py")
    known = "".join(file.read_text() for file in routes)
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")}
    paths |= {container["livenessProbe"]["httpGet"]["path"]}
    paths |= {the("ServiceMonitor", everything)["spec"]["endpoints"][0]["path"]}
    assert all(f'"{path}"' in known for path in paths)
    metrics = the("HorizontalPodAutoscaler", everything)["spec"]["metrics"]
    (queue,) = (one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods")
    assert f'"{queue}"' in (ROOT / "server/src/halfcore/metrics/exposition.py").read_text()


@builds
def test_the_exporter_takes_its_commands(everything: list[Any]) -> None:
    """The watch reads its settings, its health check and the Job's command parse."""
    parser = exporter._parser()
    watch = the("Deployment", everything, "halfcore-watch")["spec"]["template"]
    (container,) = watch["spec"]["containers"]
    settings = watch_settings.read(
        parser.parse_args(container["args"]), environment(container, everything)
    )
    assert settings.models
    command = container["livenessProbe"]["exec"]["command"]
    asked = parser.parse_args(command[1:])
    assert asked.file == settings.heartbeat

    job = the("Job", everything)["spec"]["template"]
    (container,) = job["spec"]["containers"]
    given = environment(container, everything)
    words = [
        re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], each) for each in container["args"]
    ]
    asked = parser.parse_args(words)
    assert asked.uri.startswith("models:/")
    assert str(asked.out) in {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in given:
        assert name in {exporter._MEMORY_LIMIT, "MLFLOW_TRACKING_URI"} or f"$({name})" in str(
            container["args"]
        )


@builds
def test_no_request_is_lost_by_a_rolling_update(tmp: Path) -> None:
    """A new pod is ready before an old one leaves; Kubernetes sends requests elsewhere before the
    server stops to accept them, and waits longer than it may take to end. Its probes may fail for
    less time than that."""
    deployment = the("Deployment", built((), tmp))["spec"]
    update = deployment["strategy"]["rollingUpdate"]
    assert (update["maxUnavailable"], update["maxSurge"]) == (0, 1)
    spec = deployment["template"]["spec"]
    (container,) = spec["containers"]
    settings = load(environment(container, []))
    most_s = settings.predrain_s + settings.drain_timeout_s
    assert most_s < spec["terminationGracePeriodSeconds"]
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < settings.predrain_s
    budget = the("PodDisruptionBudget", built((), tmp))["spec"]
    assert budget["maxUnavailable"] < deployment["replicas"]


@builds
def test_a_pod_that_waits_for_the_registry_is_not_restarted(tmp: Path) -> None:
    """It polls, and a restart would only delay that. A folder of bundles is read at the start
    alone, so a pod that finds none is."""
    started = {
        name: next(
            container["startupProbe"]["httpGet"]["path"]
            for _, container in pods(built((name,), tmp))
            if "startupProbe" in container
        )
        for name in ("registry", "bundle")
    }
    assert started == {"registry": "/health/live", "bundle": "/health/ready"}


@builds
def test_every_pod_is_restricted(everything: list[Any]) -> None:
    """As the Pod Security Standard `restricted` asks, and with limits; the user is the images'."""
    assert len(list(pods(everything))) == 3
    for template, container in pods(everything):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        user, group = (spec["securityContext"][name] for name in ("runAsUser", "runAsGroup"))
        assert f"USER {user}:{group}" in stage("base")
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert set(container["resources"]) == {"requests", "limits"}
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


@builds
def test_images_are_named_once(everything: list[Any]) -> None:
    """In kustomization.yaml, and each is one that `just image` builds."""
    overlay = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    named = {one["name"]: f"{one['newName']}:{one['newTag']}" for one in overlay["images"]}
    assert set(named) == set(IMAGES)
    recipe = (ROOT / "justfile").read_text()
    for name, target in IMAGES.items():
        assert f"[{target}]={name}" in recipe
    assert {container["image"] for _, container in pods(everything)} == set(named.values())


def stage(name: str) -> str:
    """A stage of the Dockerfile."""
    found = re.search(
        rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM )", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


def image_environment(name: str) -> dict[str, str]:
    """The settings that a stage of the Dockerfile sets."""
    return dict(re.findall(rf"\b({PREFIX}\w+)=(\S+)", stage(name)))
