"""Artifacts at s3:// themselves, not behind MLflow's server: the driver reaches them, and without
it nothing is said about the model."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import mlflow
import pytest

from model_export.__main__ import main
from model_export.errors import InfrastructureError
from model_export.publish import publish, verdict
from model_export.registry import client as registry
from model_export.study import data
from support.mlflow_server import s3_endpoint
from support.watching import watching

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISSING = "this needs the Python package 'boto3': install halfcore-export[s3]"


@pytest.fixture
def bucket(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store in SQLite whose artifacts are in a bucket: version 1 of `bucketed`, and its data;
    yields its address."""
    import boto3

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with s3_endpoint(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3 = boto3.client("s3", endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"])
        for file in sound.iterdir():
            s3.upload_file(str(file), "artifacts", f"x/model/{file.name}")
        s3.put_object(
            Bucket="artifacts",
            Key="x/train.csv",
            Body=b"a,b\n" + b"".join(b"%d,0.5\n" % i for i in range(120)),
        )
        before, uri = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path}/mlflow.db"
        registry.connect(uri)
        client = mlflow.MlflowClient()
        run = client.create_run(
            client.create_experiment("in a bucket", artifact_location="s3://artifacts/x")
        )
        dataset = mlflow.entities.Dataset(
            "train", "1", "s3", json.dumps({"uri": "s3://artifacts/x/train.csv"})
        )
        client.log_inputs(run.info.run_id, [mlflow.entities.DatasetInput(dataset)])
        client.create_registered_model("bucketed")
        client.create_model_version("bucketed", "s3://artifacts/x/model", run.info.run_id)
        yield uri
        registry.connect(before)


def test_a_bucket_is_reached_with_its_driver_and_a_missing_one_is_no_verdict(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without boto3: exit status 3, a sentence that names the extra, and no tag; with it the model,
    its data and the upload are there."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "boto3.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'boto3'\", name='boto3')\n"
    )
    arguments = [
        "export",
        "models:/bucketed/1",
        "--out",
        str(tmp_path / "out"),
        "--tracking-uri",
        bucket,
        "--upload",
    ]
    bundle = tmp_path / "bucketed/1-0123abcd"
    bundle.mkdir(parents=True)
    for name in ("model.onnx", "manifest.json"):
        (bundle / name).write_bytes(b"{}")

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "boto3", None)
        assert main(arguments, within_limits=True) == 3
        said = capsys.readouterr().err.splitlines()[-1]
        assert (
            said
            == f"model-export: models:/bucketed/1: the model's files cannot be fetched: {MISSING}"
        )
        with pytest.raises(InfrastructureError, match="boto3"):
            publish(bundle, "bucketed", "1")
    with watching(bucket, tmp_path, "models:/bucketed", "--once", PYTHONPATH=str(hidden)) as watch:
        assert watch.process.wait(280) == 1
        assert (
            f"bucketed/1: models:/bucketed/1: the model's files cannot be fetched: {MISSING}; "
            "trying again in"
        ) in watch.said()
        assert "Traceback" not in watch.said()
    client = mlflow.MlflowClient()
    assert client.get_model_version("bucketed", "1").tags == {}

    found = registry.fetch("models:/bucketed/1")
    assert found.origin.name == "bucketed"
    publish(bundle, "bucketed", "1")
    assert verdict(client.get_model_version("bucketed", "1")) == "passed"
    from model_export.study.study import study

    rows = study(found).data
    assert (len(rows.packed), rows.distinct_rows) == (120, 120), data.data_summary(rows)
