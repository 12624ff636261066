"""The whole chain in containers: trained in MLflow, exported with proof, served by alias, logged in
PostgreSQL."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import EXPORT, ROOT, Compose, ask, await_ready, container, docker, until
from support.mlflow_registry import Registry
from support.serving import free_port

OWNER = 4321
"""A user that no image knows."""
TRAIN = """
import mlflow, skops, sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
mlflow.set_experiment("test-images")
frame, target = load_iris(return_X_y=True, as_frame=True)
frame = frame.astype("float64")
names = load_iris().target_names
model = LogisticRegression(max_iter=1000).fit(frame, names[target])
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model, name="iris", registered_model_name="iris", input_example=frame[:5],
        signature=mlflow.models.infer_signature(frame, model.predict(frame)),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
    )
print("trained")
"""
"""What a data scientist runs: another kind of model under the same name."""


@pytest.fixture(scope="module")
def mlflow_port() -> int:
    """Where MLflow is seen from this machine."""
    return free_port()


@pytest.fixture(scope="module")
def compose(mlflow_port: int) -> Iterator[Compose]:
    """The registry's profile, up."""
    subprocess.run([ROOT / "compose/make-secrets.sh"], check=True)
    with Compose(
        "registry", MLFLOW_PORT=str(mlflow_port), FOLLOW_PERIOD_S="1", WATCH_INTERVAL_S="1"
    ) as compose:
        compose("up", "--detach")
        yield compose


def served(compose: Compose) -> str:
    """The version that answers; every answer on the way must be right."""
    status, body = ask(compose.port)
    answer = json.loads(body)
    assert (status, answer["prediction"]) == (200, "setosa"), body
    return str(answer["version"])


def logged(compose: Compose, version: str) -> int:
    """Predictions of a version in the database."""
    # A number
    query = (
        "SELECT coalesce(sum(row_count), 0) FROM halfcore.prediction_log WHERE version = "  # noqa: S608
        f"'{version}'"
    )
    return int(
        compose(
            "exec",
            "-T",
            "postgres",
            "psql",
            "-qtA",
            "-U",
            "halfcore",
            "-d",
            "halfcore",
            "-c",
            query,
        )
    )


def following(compose: Compose) -> str:
    """The version that the server follows, as it tells."""
    return json.dumps(json.loads(ask(compose.port, "/models/iris", None)[1])["following"])


@pytest.mark.timeout(390)
def test_a_moved_alias_is_served_and_what_was_answered_is_in_the_database(
    compose: Compose, mlflow_port: int
) -> None:
    """The example is trained and served; a data scientist trains another and moves the alias there
    and back."""
    registry = Registry(f"http://127.0.0.1:{mlflow_port}")
    until(lambda: _answers(compose), "the server does not answer", 120)
    until(lambda: registry_version(registry) == "1", "the examples were not registered", 120)
    until(
        lambda: registry.tags("iris", "1").get("halfcore.export") == "passed",
        "version 1 was not exported",
        120,
    )

    assert "trained" in compose(
        "run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "examples", "-c", TRAIN
    )
    registry.set_alias("iris", "champion", "2")
    until(lambda: served(compose) == "2", "version 2 is not served", 120)
    for _ in range(20):
        assert served(compose) == "2"
    until(lambda: logged(compose, "2") >= 21, "the answers are not in the database", 60)

    registry.set_alias("iris", "champion", "1")
    until(lambda: served(compose) == "1", "the way back was not taken", 60)


@pytest.mark.timeout(390)
def test_a_user_of_the_host_exports_into_a_folder_of_theirs_and_serves_it(
    compose: Compose, tmp_path: Path
) -> None:
    """The commands of docs/deploy.md: whoever runs the exporter owns the bundle, and the server may
    read it."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    shutil.chown(folder, OWNER, OWNER)
    docker(
        *(
            "run",
            "--rm",
            "--user",
            f"{OWNER}:{OWNER}",
            "--network",
            f"{compose.project}_data",
            "-v",
            f"{folder}:/work/bundles",
        ),
        *(
            "-e",
            "MLFLOW_TRACKING_URI=http://mlflow:5000",
            EXPORT,
            "export",
            "models:/iris@champion",
            "--out",
            "bundles",
        ),
    )
    assert {path.stat().st_uid for path in folder.rglob("*")} == {OWNER}
    with container("-v", f"{folder}:/bundles:ro") as (_, port):
        await_ready(port)
        status, body = ask(port)
    answer = json.loads(body)
    assert (status, answer["model"], answer["prediction"]) == (200, "iris", "setosa")


def _answers(compose: Compose) -> bool:
    try:
        return ask(compose.port)[0] == 200
    except OSError:
        return False


def registry_version(registry: Registry) -> str:
    """The version that the alias stands for; empty before there is one."""
    answer = registry.http.get(
        "/api/2.0/mlflow/registered-models/alias", params={"name": "iris", "alias": "champion"}
    )
    return str(answer.json()["model_version"]["version"]) if answer.status_code == 200 else ""
