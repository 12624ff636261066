"""With public keys set, only signed bundles are read; which signatures, keys and files are
refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from halfcore import bundle
from halfcore.bundle import BundleError
from halfcore.bundle_signature import Signers, SignersError
from support.bundles import write_bundle
from support.signing import make_key, sign


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public key."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A signed bundle."""
    path = write_bundle(tmp_path)
    sign(path, keys[0])
    return path


def test_a_signed_bundle_is_read_with_and_without_keys(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    """A server that asks for no signature takes it too."""
    assert bundle.read(signed, signers=Signers(keys[1])) == bundle.read(signed)


def _manifest_changed(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["inputs"][0]["maximum"] = 8.0
    (path / "manifest.json").write_text(json.dumps(manifest))


def _model_changed(path: Path) -> None:
    with (path / "model.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")


def _signature(content: bytes) -> Callable[[Path], object]:
    return lambda path: (path / "manifest.json.sig").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda path: (path / "manifest.json.sig").unlink(), "signature", "it has no signature"),
        (_manifest_changed, "signature", "manifest.json.sig: no key"),
        (_model_changed, "model_sha256", "model.onnx: sha256"),
        (_signature(b""), "signature", "manifest.json.sig: no key"),
        (_signature(b"x" * 64), "signature", "manifest.json.sig: no key"),
        (_signature(b"x" * 63), "signature", "manifest.json.sig: no key"),
        (_signature(b"x" * (1 << 20)), "signature", "manifest.json.sig: no key"),
    ],
)
def test_what_is_refused(
    signed: Path,
    keys: tuple[Path, Path],
    damage: Callable[[Path], object],
    code: str,
    words: str,
) -> None:
    """A missing or wrong signature, and any change of the manifest or the model."""
    damage(signed)
    with pytest.raises(BundleError) as raised:
        bundle.read(signed, signers=Signers(keys[1]))
    assert raised.value.code == code
    assert raised.value.reason.startswith(words)


def test_a_folder_in_place_of_the_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    """It is refused like a wrong signature."""
    (signed / "manifest.json.sig").unlink()
    (signed / "manifest.json.sig").mkdir()
    with pytest.raises(BundleError, match="Is a directory"):
        bundle.read(signed, signers=Signers(keys[1]))


def test_the_signature_of_another_key(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """It counts as soon as its public key is in the file, next to the older one."""
    private, public = make_key(tmp_path / "new")
    sign(signed, private)
    with pytest.raises(BundleError, match=r"manifest\.json\.sig: no key in HALFCORE_BUNDLE_KEYS"):
        bundle.read(signed, signers=Signers(keys[1]))
    both = tmp_path / "both.pem"
    both.write_bytes(keys[1].read_bytes() + b"# the new one\n" + public.read_bytes())
    bundle.read(signed, signers=Signers(both))


def test_the_signature_of_another_bundle(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is no signature of this one."""
    other = write_bundle(tmp_path, "other")
    shutil.copy(signed / "manifest.json.sig", other)
    with pytest.raises(BundleError, match="no key"):
        bundle.read(other, signers=Signers(keys[1]))


def test_old_and_new_signature_while_a_manifest_is_replaced(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    """At every step of the exporter a reader finds a bundle that is signed."""
    file = signed / "manifest.json.sig"
    old, signers = file.read_bytes(), Signers(keys[1])
    before = (signed / "manifest.json").read_bytes()
    _manifest_changed(signed)
    sign(signed, keys[0])
    file.write_bytes(file.read_bytes() + old)
    bundle.read(signed, signers=signers)
    (signed / "manifest.json").write_bytes(before)
    bundle.read(signed, signers=signers)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no public key in it, expected PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "key 1 is damaged"),
    ],
)
def test_files_without_a_usable_key(tmp_path: Path, content: bytes, words: str) -> None:
    """The message says what was expected."""
    (tmp_path / "keys.pem").write_bytes(content)
    with pytest.raises(SignersError, match=words):
        Signers(tmp_path / "keys.pem")


def test_keys_of_another_kind(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """The message names the key by its place."""
    _, public = make_key(tmp_path, kind="x25519")
    (tmp_path / "keys.pem").write_bytes(keys[1].read_bytes() + public.read_bytes())
    with pytest.raises(SignersError, match="key 2 is of another kind, expected Ed25519"):
        Signers(tmp_path / "keys.pem")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """The system's own words."""
    with pytest.raises(SignersError, match="No such file"):
        Signers(tmp_path / "keys.pem")


def test_without_the_package(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra that installs it."""
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(SignersError, match=r"halfcore\[signed\]"):
        Signers(keys[1])
