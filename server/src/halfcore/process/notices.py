"""What is said at the start of settings with which a server runs, and clients are refused."""

from pathlib import Path

from halfcore.predict.keys import NO_KEYS, read
from halfcore.settings.groups import Settings

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""


def warnings(settings: Settings) -> list[str]:
    """Sentences for the log; the settings are `checks.checked`."""
    found = []
    if settings.tls_certificate:
        found += _of_certificate(settings.tls_certificate, settings.tls_key)
    if settings.api_keys and not read(Path(settings.api_keys)):
        found.append(NO_KEYS)
    return found


def _of_certificate(chain: str, key: str) -> list[str]:
    """Whether the certificate is out of date.

    Python's `ssl` reads no dates from a file: a handshake in memory, with a client that trusts this
    very certificate, finds nothing else to refuse.
    """
    import ssl  # late: a server without TLS does not need it

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(chain)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
                state = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
                warning = (
                    f"the certificate in tls_certificate={chain!r} {state}, so clients refuse the "
                    "connection; replace it, or set this machine's clock, and restart the server"
                )
                return [warning]
            break
        except ssl.SSLError:
            break
    return []
