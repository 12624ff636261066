"""Ed25519 keys made as the documentation says, by openssl."""

import subprocess
from pathlib import Path


def openssl(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def make_key(folder: Path, name: str = "signing", kind: str = "ed25519") -> tuple[Path, Path]:
    """A new private key and its public key, both PEM."""
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    made = openssl("genpkey", "-algorithm", kind, "-out", private)
    assert made.returncode == 0, made.stderr
    assert openssl("pkey", "-in", private, "-pubout", "-out", public).returncode == 0
    return private, public


def sign(bundle: Path, private: Path) -> None:
    """Sign a bundle by hand."""
    file = bundle / "manifest.json"
    done = openssl(
        *("pkeyutl", "-sign", "-rawin", "-inkey", private),
        *("-in", file, "-out", bundle / "manifest.json.sig"),
    )
    assert done.returncode == 0, done.stderr
