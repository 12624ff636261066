"""The service against a real MLflow server: what it tags, what it uploads, and what it survives."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model_export.watch import heartbeat
from support.mlflow_registry import Registry
from support.mlflow_server import ADMIN
from support.watching import watching

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from support.mlflow_server import MlflowServer


def settled(registry: Registry, name: str, version: str) -> dict[str, str]:
    """A version's tags, once the watch has given its claim back."""
    while "halfcore.export.claim" in (tags := registry.tags(name, version)):
        time.sleep(0.01)
    return tags


def uploaded(registry: Registry, tags: dict[str, str]) -> dict[str, Any]:
    """The manifest of a bundle that was tagged as passed, after every digest on the way to it has
    been checked."""
    assert (tags["halfcore.export"], tags["halfcore.bundle.format"]) == ("passed", "1")
    _, run_id, path = tags["halfcore.bundle"].split("/", 2)
    content = registry.download(run_id, f"{path}/manifest.json")
    assert hashlib.sha256(content).hexdigest() == tags["halfcore.manifest_sha256"]
    manifest: dict[str, Any] = json.loads(content)
    graph = registry.download(run_id, f"{path}/model.onnx")
    assert (hashlib.sha256(graph).hexdigest(), len(graph)) == (
        manifest["onnx"]["sha256"],
        manifest["onnx"]["size_bytes"],
    )
    assert (
        path
        == f"halfcore/{manifest['name']}/{manifest['version']}-{manifest['onnx']['sha256'][:8]}"
    )
    return manifest


def test_an_alias_is_followed_through_a_refusal_and_an_outage(
    tracking: MlflowServer, registry: Registry, sound: Path, differing: Path, tmp_path: Path
) -> None:
    """Version 1 passes; MLflow goes away and returns; version 2 is refused with the reason, and 1
    stays as it was."""
    beat = tmp_path / "beat"
    registry.set_alias("watched", "champion", registry.create_version("watched", folder=sound))
    with watching(
        tracking.url, tmp_path, "models:/watched@champion", "--heartbeat", str(beat)
    ) as watch:
        watch.wait_for("watched/1: passed")
        first = settled(registry, "watched", "1")
        assert (
            uploaded(registry, first)["source"]["run_id"]
            == registry.version("watched", "1")["run_id"]
        )

        with tracking.stopped():
            watch.wait_for("MLflow does not answer")
            assert heartbeat.check(beat, 120.0)[0], "MLflow's absence is no illness of the watch"

        registry.set_alias(
            "watched", "champion", registry.create_version("watched", folder=differing)
        )
        watch.wait_for("watched/2: refused")
        second = settled(registry, "watched", "2")
        assert second["halfcore.export"] == "refused"
        assert "a tie at step 'knnimputer'" in second["halfcore.export.reason"]
        assert "halfcore.bundle" not in second
        assert registry.tags("watched", "1") == first

        assert watch.stop() == 0
        assert "stopped" in watch.said()
        assert watch.said().count(": exporting") == 2
        assert not [left for left in watch.work.iterdir() if left.is_dir()]


def test_a_copy_gets_a_verdict_of_its_own(
    tracking: MlflowServer, registry: Registry, sound: Path, tmp_path: Path
) -> None:
    """A copy with all tags, in a model whose name cannot be a folder's: its own bundle, and the
    original's stays."""
    registry.create_version("developed", folder=sound)
    with watching(tracking.url, tmp_path, "models:/in production", "models:/developed") as watch:
        watch.wait_for("developed/1: passed")
        original = settled(registry, "developed", "1")
        registry.copy_version("developed", "1", "in production")
        watch.wait_for("in production/1: passed")
        copy = settled(registry, "in production", "1")
        assert watch.stop() == 0
        assert watch.said().count(": exporting") == 2

    manifest = uploaded(registry, copy)
    assert (manifest["name"], manifest["source"]["resolved"]) == (
        "in-production",
        "models:/in production/1",
    )
    assert copy.keys() == original.keys()
    assert copy["halfcore.export.created"] != original["halfcore.export.created"]
    assert registry.tags("developed", "1") == original


def test_what_a_killed_watch_left_is_completed_by_the_next(
    tracking: MlflowServer, registry: Registry, sound: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle of an export: no verdict, the export ends with its watch, and the next
    watch finishes the version."""
    version = registry.create_logged_version("interrupted", sound)
    with watching(tracking.url, tmp_path, "models:/interrupted") as watch:
        watch.wait_for("interrupted/1: exporting")
        (order,) = await_files(watch.work, "*/order.json")
        watch.process.kill()
        watch.process.wait()
    assert "halfcore.export" not in registry.tags("interrupted", version)
    await_gone(str(order))

    with watching(tracking.url, tmp_path, "models:/interrup*") as watch:
        watch.wait_for("interrupted/1: passed")
        tags = settled(registry, "interrupted", version)
        assert not list(watch.work.glob("*/order.json")), "what the killed watch left is gone, too"
    uploaded(registry, tags)
    made = registry.call("GET", "runs/get", run_id=tags["halfcore.bundle"].split("/")[1])["run"]
    own = registry.call("GET", "experiments/get-by-name", experiment_name="halfcore-bundles")[
        "experiment"
    ]
    assert made["info"]["experiment_id"] == own["experiment_id"], (
        "a version without a run gets one in an experiment of ours"
    )


def test_postgresql_s3_and_a_password_make_no_difference(
    guarded_tracking: MlflowServer, sound: Path, tmp_path: Path
) -> None:
    """A version in a stage is exported on the data logged to its run, uploaded through the proxy to
    a bucket, and tagged."""
    registry = Registry(guarded_tracking.url, ADMIN)
    run_id = registry.create_run()
    registry.log_dataset(
        run_id, "train.csv", b"a,b\n" + b"".join(b"%d,0.5\n" % i for i in range(120))
    )
    registry.set_stage(
        "guarded", registry.create_version("guarded", run_id=run_id, folder=sound), "Production"
    )
    password = {"MLFLOW_TRACKING_USERNAME": ADMIN[0], "MLFLOW_TRACKING_PASSWORD": ADMIN[1]}
    with watching(
        guarded_tracking.url, tmp_path, "models:/guarded/Production", "--once", **password
    ) as watch:
        assert watch.process.wait(280) == 0, watch.said()

    parity = uploaded(registry, registry.tags("guarded", "1"))["parity"]
    assert parity["data_origin"] == "the dataset 'train.csv' logged to the run"
    assert (parity["data_rows"], parity["distinct_rows"], parity["warnings"]) == (120, 120, [])


def await_files(folder: Path, pattern: str) -> list[Path]:
    """The files, once there are any."""
    while not (found := list(folder.glob(pattern))):
        time.sleep(0.01)
    return found


def await_gone(argument: str) -> None:
    """Return once no process has the argument."""
    while any(argument in _command(entry) for entry in Path("/proc").glob("[0-9]*")):
        time.sleep(0.01)


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
