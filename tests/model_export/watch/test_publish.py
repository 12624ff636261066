"""Upload and tags: a reader never sees half a bundle, whatever ends the upload, and several watches
do not fight."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from model_export.errors import REASON_CHARACTERS, InfrastructureError
from model_export.publish import publish, refuse, verdict
from model_export.registry.client import resolve
from model_export.registry.download import files_of
from model_export.registry.missing import hint
from model_export.watch.claim import Claim
from model_export.watch.targets import find, parse
from support.relay import relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.mlflow_registry import Registry
    from support.mlflow_server import MlflowServer
    from support.relay import Relay


@pytest.fixture
def between(tracking: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """MLflow's client, connected through a relay that can cut."""
    import mlflow

    from model_export.registry import client as registry

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = mlflow.get_tracking_uri()
    with relay(tracking.port) as found:
        registry.connect(found.url)
        yield found
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two files where a bundle would have them; their contents are not looked at."""
    folder = tmp_path / "named" / "7-0123abcd"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 1000)
    (folder / "manifest.json").write_bytes(b'{"first": true}')
    return folder


def test_what_is_uploaded_is_what_lies_there(
    between: Relay, registry: Registry, bundle: Path
) -> None:
    """Both files byte by byte, in the version's own run, under the bundle's name; the tags say
    where and which."""
    version = registry.create_version("uploaded")

    uri = publish(bundle, "uploaded", version)

    run_id = registry.version("uploaded", version)["run_id"]
    assert uri == f"runs:/{run_id}/halfcore/named/7-0123abcd"
    assert registry.tags("uploaded", version) == {
        "halfcore.export": "passed",
        "halfcore.bundle": uri,
        "halfcore.bundle.format": "1",
        "halfcore.export.created": str(registry.version("uploaded", version)["creation_timestamp"]),
        "halfcore.manifest_sha256": hashlib.sha256(b'{"first": true}').hexdigest(),
    }
    for name in ("model.onnx", "manifest.json"):
        assert (
            registry.download(run_id, f"halfcore/named/7-0123abcd/{name}")
            == (bundle / name).read_bytes()
        )


@pytest.mark.parametrize(
    "cut_at",
    [
        b"manifest.json HTTP",
        pytest.param(b"model.onnx HTTP", marks=pytest.mark.slow),
        pytest.param(b"set-tag", marks=pytest.mark.slow),
    ],
)
def test_an_upload_that_breaks_off_leaves_no_verdict(
    cut_at: bytes, between: Relay, registry: Registry, bundle: Path
) -> None:
    """Not even that of the upload before: its manifest may be half overwritten. The next try
    completes it."""
    version = registry.create_version("broken-off")
    publish(bundle, "broken-off", version)
    (bundle / "manifest.json").write_bytes(b'{"first": false}')

    between.cut_at = cut_at
    with pytest.raises(InfrastructureError, match="cannot be uploaded"):
        publish(bundle, "broken-off", version)
    assert not [
        tag
        for tag in registry.tags("broken-off", version)
        if tag in ("halfcore.export", "halfcore.bundle")
    ]

    between.cut_at = None
    publish(bundle, "broken-off", version)
    assert registry.tags("broken-off", version)["halfcore.export"] == "passed"


def test_a_registry_before_mlflow_3_gets_bundles_too(
    between: Relay, registry: Registry, bundle: Path
) -> None:
    """It has no logged models: a client that asked for them would upload the bundle, fail, and
    export the version again and again."""
    version = registry.create_version("before-three")
    between.cut_at = b"logged-models"

    publish(bundle, "before-three", version)

    assert registry.tags("before-three", version)["halfcore.export"] == "passed"


def test_a_refusal_is_one_line_and_takes_a_former_bundle_away(
    between: Relay, registry: Registry, bundle: Path
) -> None:
    """Bounded, so that no registry refuses it."""
    version = registry.create_version("refused")
    publish(bundle, "refused", version)

    refuse("refused", version, "two\nlines " + 2 * REASON_CHARACTERS * "x", fingerprint="f")

    tags = registry.tags("refused", version)
    assert (tags.pop("halfcore.export"), tags.pop("halfcore.export.fingerprint")) == (
        "refused",
        "f",
    )
    reason = tags.pop("halfcore.export.reason")
    assert reason.startswith("two lines xxx")
    assert len(reason) == REASON_CHARACTERS
    assert tags.pop("halfcore.export.created") == str(
        registry.version("refused", version)["creation_timestamp"]
    )
    assert not tags


def test_a_copy_has_no_verdict_and_a_renamed_version_keeps_its_own(
    between: Relay, registry: Registry, bundle: Path
) -> None:
    """MLflow copies every tag with a version, and none of them is about the copy; a rename changes
    nothing but the name."""
    version = registry.create_version("original")
    publish(bundle, "original", version)
    client = MlflowClient()

    copy = client.copy_model_version(f"models:/original/{version}", "a-copy")
    assert (copy.tags["halfcore.export"], verdict(copy)) == ("passed", None)
    refuse("a-copy", copy.version, "for a reason of its own")
    assert verdict(client.get_model_version("a-copy", copy.version)) == "refused"
    assert "halfcore.bundle" not in registry.tags("a-copy", copy.version)

    assert verdict(client.get_model_version("original", version)) == "passed"
    client.rename_registered_model("original", "renamed")
    assert verdict(client.get_model_version("renamed", version)) == "passed"


def test_a_claim_holds_until_it_is_given_back_or_its_time_is_up(
    between: Relay, registry: Registry
) -> None:
    """Of two watches one works; a dead one's versions are not lost."""
    version = registry.create_version("claimed")
    client = MlflowClient()
    mine, other = (
        Claim(client, "claimed", version, "me", 60.0),
        Claim(client, "claimed", version, "you", 60.0),
    )
    dead = Claim(client, "claimed", version, "dead", -1.0)

    assert mine.take()
    assert not other.take()
    assert mine.take(), "once more for the same watch"
    other.release()
    assert not other.take(), "nobody gives back what another has"
    mine.release()
    assert dead.take()
    assert other.take()


def test_targets_stand_for_versions(between: Relay, registry: Registry) -> None:
    """By alias, stage, number and pattern, each version once; what does not exist may come and is
    no error."""
    for _ in range(2):
        registry.create_version("target-one")
    registry.create_version("target-two")
    registry.set_alias("target-one", "champion", "1")
    registry.set_stage("target-one", "2", "Production")

    def found(*uris: str) -> list[str]:
        versions, without = find(MlflowClient(), [parse(uri) for uri in uris])
        return [
            *(f"{version.name}/{version.version}" for version in versions),
            *(f"none: {target}" for target in without),
        ]

    assert found("models:/target-one@champion") == ["target-one/1"]
    assert found("models:/target-one/Production", "models:/target-one/2") == ["target-one/2"]
    assert found("models:/target-one") == ["target-one/2", "target-one/1"]
    assert found("models:/target-*@champion", "models:/target-two") == [
        "target-one/1",
        "target-two/1",
    ]
    assert found("models:/target-one@nobody", "models:/nothing", "models:/target-two/Staging") == [
        "none: models:/target-one@nobody",
        "none: models:/nothing",
        "none: models:/target-two/Staging",
    ]


@pytest.mark.parametrize("name", ["team@model", "Bob's model", "model [EU]", "good?"])
def test_any_registered_name_is_watched_and_exported(
    between: Relay, registry: Registry, sound: Path, name: str
) -> None:
    """Also with an @, with a quote, and with marks that are a pattern elsewhere."""
    version = registry.create_version(name, folder=sound)
    registry.set_alias(name, "champion", version)
    for reference in ("@champion", f"/{version}", "/latest"):
        uri = f"models:/{name}{reference}"
        watched, _ = find(MlflowClient(), [parse(uri)])
        assert [(one.name, str(one.version)) for one in watched] == [(name, version)]
        assert resolve(uri).resolved == f"models:/{name}/{version}"
    assert (files_of(f"models:/{name}/{version}") / "MLmodel").is_file()
    assert f'"{name}" has no alias "nobody"; it has version {version}' in str(
        hint(f"models:/{name}@nobody")
    )
