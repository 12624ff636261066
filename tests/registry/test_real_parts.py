"""The real parts that other tests rely on: an MLflow server that proxies to disk and to S3, and that can be stopped and hung."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from support.mlflow_registry import Registry
from support.mlflow_server import ADMIN, mlflow_server, s3_endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from support.mlflow_server import MlflowServer


def test_a_version_with_its_files_is_found_by_alias_and_stage(registry: Registry) -> None:
    """What is uploaded comes back byte by byte, and alias and stage lead to the version."""
    run_id = registry.create_run()
    registry.upload(run_id, "folder/file.bin", bytes(range(256)))
    version = registry.create_version("parts", run_id=run_id)
    registry.set_alias("parts", "champion", version)
    registry.set_stage("parts", version, "Production")
    registry.set_tag("parts", version, "colour", "grün")

    found = registry.call("GET", "registered-models/alias", name="parts", alias="champion")["model_version"]
    (staged,) = registry.call("GET", "registered-models/get-latest-versions", name="parts", stages="Production")["model_versions"]

    assert found["version"] == staged["version"] == version
    assert registry.tags("parts", version) == {"colour": "grün"}
    assert registry.download(run_id, "folder/file.bin") == bytes(range(256))


def test_a_hung_server_is_silent_and_a_restarted_one_remembers(tracking: MlflowServer, registry: Registry) -> None:
    """The three states that clients must survive: hung, gone, back."""
    version = registry.create_version("remembered")
    with tracking.hung(), pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{tracking.url}/health", timeout=0.2)
    with tracking.stopped(), pytest.raises(httpx.ConnectError):
        httpx.get(f"{tracking.url}/health")

    assert Registry(tracking.url).version("remembered", version)["version"] == version


def test_artifacts_go_to_s3_behind_a_server_that_asks_for_a_password_and_knows_its_host(tmp_path: Path) -> None:
    """One server for three refusals and a success: no password, another Host, and what lies in the bucket in the end."""
    with (
        s3_endpoint(tmp_path) as environment,
        mlflow_server(tmp_path, "--allowed-hosts", "mlflow:5000", artifacts="s3://artifacts", auth=True, **environment) as server,
    ):
        known = {"host": "mlflow:5000"}
        stranger = httpx.get(f"{server.url}/api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=ADMIN)
        nobody = httpx.get(f"{server.url}/api/2.0/mlflow/experiments/search", params={"max_results": 1}, headers=known)
        assert (stranger.status_code, nobody.status_code) == (403, 401)

        registry = Registry(server.url, ADMIN)
        registry.http.headers["host"] = "mlflow:5000"
        run_id = registry.create_run()
        registry.upload(run_id, "a/b.txt", b"in a bucket")
        listed = httpx.get(f"{environment['MLFLOW_S3_ENDPOINT_URL']}/artifacts").text
        assert f"{run_id}/artifacts/a/b.txt" in listed
