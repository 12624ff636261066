"""The exporter signs a bundle, the server checks it, and openssl agrees with both, as
docs/bundle-format.md says."""

import json
from pathlib import Path
from typing import Any

import pytest

from halfcore import bundle
from halfcore.bundle_signature import Signers
from model_export.__main__ import main
from model_export.bundle import write as writing
from model_export.bundle.sign import read_key
from support.bundles import write_bundle
from support.signing import make_key, openssl


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public key."""
    return make_key(tmp_path / "keys")


@pytest.fixture
def content(tmp_path: Path) -> tuple[dict[str, Any], bytes]:
    """A manifest and its graph."""
    path = write_bundle(tmp_path / "made")
    return json.loads((path / "manifest.json").read_text()), (path / "model.onnx").read_bytes()


def write(root: Path, content: tuple[dict[str, Any], bytes], key: Path | None) -> Path:
    """Write a bundle as an export does."""
    return writing.write(root, *content, key=read_key(key) if key else None)


def test_the_server_and_openssl_accept_what_the_exporter_signed(
    tmp_path: Path, content: tuple[dict[str, Any], bytes], keys: tuple[Path, Path]
) -> None:
    """A changed manifest neither of them."""
    path = write(tmp_path, content, keys[0])
    check = [
        *("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", keys[1]),
        *("-in", path / "manifest.json", "-sigfile", path / "manifest.json.sig"),
    ]
    bundle.read(path, signers=Signers(keys[1]))
    assert openssl(*check).returncode == 0
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace("skops", "pickle"))
    assert openssl(*check).returncode == 1
    with pytest.raises(bundle.BundleError, match="no key"):
        bundle.read(path, signers=Signers(keys[1]))


def test_a_reader_finds_a_signed_bundle_at_every_moment_of_another_export(
    tmp_path: Path,
    content: tuple[dict[str, Any], bytes],
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same graph with another manifest: three files are replaced one by one."""
    manifest, graph = content
    path, signers = write(tmp_path, content, keys[0]), Signers(keys[1])
    replace, seen = writing.replace_file_durably, []

    def replace_and_read(file: Path, data: bytes) -> None:
        replace(file, data)
        seen.append(bundle.read(path, signers=signers).manifest.created_at)

    monkeypatch.setattr(writing, "replace_file_durably", replace_and_read)
    newer = manifest | {"created_at": "2026-02-02T00:00:00Z"}
    assert write(tmp_path, (newer, graph), keys[0]) == path
    assert seen == [manifest["created_at"], newer["created_at"], newer["created_at"]]
    assert (path / "manifest.json.sig").stat().st_size == 64


def test_an_unsigned_export_removes_the_signature(
    tmp_path: Path, content: tuple[dict[str, Any], bytes], keys: tuple[Path, Path]
) -> None:
    """It is that of another manifest."""
    path = write(tmp_path, content, keys[0])
    assert write(tmp_path, content, None) == path
    assert not (path / "manifest.json.sig").exists()


def test_signing_keys_that_cannot_be_used(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The export ends before it asks MLflow, with the file's name and what was expected."""
    locked, other = tmp_path / "locked.pem", make_key(tmp_path / "other", kind="x25519")[0]
    openssl("pkey", "-in", keys[0], "-aes256", "-passout", "pass:secret", "-out", locked)
    for file, words in (
        (tmp_path / "missing.pem", "cannot be read: No such file or directory"),
        (keys[1], "is not PEM, expected an Ed25519 key from openssl genpkey"),
        (other, "is of another kind, expected an Ed25519 key"),
        (locked, "has a password, expected one without"),
    ):
        for command in (["export", "models:/iris/1", "--out", tmp_path], ["watch", "models:/iris"]):
            store = f"sqlite:///{tmp_path}/none.db"
            given = [*map(str, command), "--tracking-uri", store, "--signing-key", str(file)]
            assert main(given, within_limits=True) == 3
            assert f"the signing key {file} {words}" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # MLflow's own
def test_a_signed_export(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command line, with the key in the environment; the server reads the bundle."""
    from mlflow import sklearn as mlflow_sklearn
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(rows, labels)
    mlflow_sklearn.save_model(model, tmp_path / "model", input_example=rows)
    monkeypatch.setenv("MODEL_EXPORT_SIGNING_KEY", str(keys[0]))
    command = ["export", f"{tmp_path}/model", "--name", "iris", "--out", f"{tmp_path}/bundles"]
    assert main([*command, "--gate-rows", "1000"], within_limits=True) == 0
    (path,) = (tmp_path / "bundles/iris").iterdir()
    assert bundle.read(path, signers=Signers(keys[1])).manifest.name == "iris"
