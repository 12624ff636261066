"""Who may make bundles: the public keys, one of which must have signed a bundle's manifest
(docs/bundle-format.md, "The signature").

The manifest holds the hash of the model file, so its signature covers the whole bundle. Ed25519 of
RFC 8032, by `cryptography`, which the extra halfcore[signed] installs.
"""

import re
from pathlib import Path

SIGNATURE_FILE = "manifest.json.sig"
SIGNATURE_BYTES = 64
MOST_SIGNATURE_BYTES = 16 * SIGNATURE_BYTES
"""Of the file: while an exporter replaces a manifest, its signature and that of the new one."""
UNSIGNED = "it has no signature, and HALFCORE_BUNDLE_KEYS is set: export it with --signing-key"
"""Why a bundle without the file is refused."""
_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class SignersError(ValueError):
    """The file of keys cannot be used; the message says why and what was expected."""


class Signers:
    """The public keys in a file.

    Args:
        file: PEM, one key or several: while keys are changed, the old one and the new one.

    Raises:
        SignersError: the file cannot be read, holds no key or another kind of key, or
            `cryptography` is not installed.
    """

    def __init__(self, file: Path) -> None:
        # Late: a server without this setting does not need the package
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        except ImportError:
            raise SignersError(
                "cryptography is not installed; install the extra halfcore[signed], or build the "
                "image with SERVER_EXTRAS=signed"
            ) from None
        try:
            blocks = _KEY.findall(file.read_bytes())
        except OSError as error:
            raise SignersError(error.strerror or type(error).__name__) from None
        if not blocks:
            raise SignersError("no public key in it, expected PEM (openssl pkey -pubout)")
        self._invalid = InvalidSignature
        self._keys: list[Ed25519PublicKey] = []
        for number, block in enumerate(blocks, 1):
            try:
                key = load_pem_public_key(block)
            except ValueError:
                raise SignersError(f"key {number} is damaged, expected PEM") from None
            if not isinstance(key, Ed25519PublicKey):
                raise SignersError(f"key {number} is of another kind, expected Ed25519")
            self._keys.append(key)

    def accept(self, content: bytes, signatures: bytes) -> bool:
        """Whether one of the keys made one of the signatures of this content.

        Args:
            content: that was signed.
            signatures: one after the other, 64 bytes each.
        """
        if not 0 < len(signatures) <= MOST_SIGNATURE_BYTES:
            return False
        for start in range(0, len(signatures), SIGNATURE_BYTES):
            for key in self._keys:
                try:
                    key.verify(signatures[start : start + SIGNATURE_BYTES], content)
                except self._invalid:
                    continue
                return True
        return False


def signers_in(file: str) -> Signers | None:
    """The keys in a file; None without a file: then bundles need no signature."""
    return Signers(Path(file)) if file else None
