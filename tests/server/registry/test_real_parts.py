"""The real parts that other tests rely on: an MLflow server that proxies to disk and to S3, and
that can be stopped and hung."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from support.mlflow_registry import Registry
from support.mlflow_server import ADMIN

if TYPE_CHECKING:
    from support.mlflow_server import MlflowServer


def test_a_version_with_its_files_is_found_by_alias_and_stage(registry: Registry) -> None:
    """What is uploaded comes back byte by byte, and alias and stage lead to the version."""
    run_id = registry.create_run()
    registry.upload(run_id, "folder/file.bin", bytes(range(256)))
    version = registry.create_version("parts", run_id=run_id)
    registry.set_alias("parts", "champion", version)
    registry.set_stage("parts", version, "Production")
    registry.set_tag("parts", version, "colour", "grün")

    found = registry.call("GET", "registered-models/alias", name="parts", alias="champion")[
        "model_version"
    ]
    (staged,) = registry.call(
        "GET", "registered-models/get-latest-versions", name="parts", stages="Production"
    )["model_versions"]

    assert found["version"] == staged["version"] == version
    assert registry.tags("parts", version) == {"colour": "grün"}
    assert registry.download(run_id, "folder/file.bin") == bytes(range(256))


@pytest.mark.slow
def test_a_hung_server_is_silent_and_a_restarted_one_remembers(
    tracking: MlflowServer, registry: Registry
) -> None:
    """The three states that clients must survive: hung, gone, back."""
    version = registry.create_version("remembered")
    with tracking.hung(), pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{tracking.url}/health", timeout=0.2)
    with tracking.stopped(), pytest.raises(httpx.ConnectError):
        httpx.get(f"{tracking.url}/health")

    assert Registry(tracking.url).version("remembered", version)["version"] == version


@pytest.mark.slow  # with the other tests of that server, which takes long to start
def test_a_guarded_server_refuses_strangers_and_keeps_artifacts_in_s3(
    guarded_tracking: MlflowServer,
) -> None:
    """Two refusals that clients must tell apart, no password and another Host; and what lies in the
    bucket after a success."""
    search = f"{guarded_tracking.url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(search, auth=ADMIN, headers={"host": "elsewhere:5000"}).status_code == 403
    assert httpx.get(search).status_code == 401
    assert httpx.get(search, auth=ADMIN, headers={"host": "mlflow:5000"}).status_code == 200

    registry = Registry(guarded_tracking.url, ADMIN)
    run_id = registry.create_run()
    registry.upload(run_id, "a/b.txt", b"in a bucket")
    listed = httpx.get(f"{guarded_tracking.environment['MLFLOW_S3_ENDPOINT_URL']}/artifacts").text
    assert f"{run_id}/artifacts/a/b.txt" in listed
