"""Signs a bundle's manifest with an Ed25519 key (docs/bundle-format.md, "The signature")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_export.errors import InfrastructureError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_FILE = "manifest.json.sig"
SIGNATURE_BYTES = 64


def read_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        file: PEM (PKCS #8), without a password.

    Raises:
        InfrastructureError: names the file, what was found and what was expected.
    """
    # Late: most exports are not signed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = "expected an Ed25519 key from openssl genpkey -algorithm ed25519"
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise InfrastructureError(
            f"the signing key {file} cannot be read: {error.strerror or type(error).__name__}"
        ) from error
    except TypeError as error:  # it is encrypted
        raise InfrastructureError(
            f"the signing key {file} has a password, expected one without"
        ) from error
    except ValueError as error:
        raise InfrastructureError(f"the signing key {file} is not PEM, {expected}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InfrastructureError(f"the signing key {file} is of another kind, {expected}")
    return key
