"""How the tracking server is reached: through which proxy, and whose certificates are trusted.

Proxies are those of the environment, by the rules of MLflow's own client and of curl. httpx reads
these variables too, but refuses some lists and ignores networks such as 10.0.0.0/8 in them.
"""

import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

CA_ADVICE = (
    "let HALFCORE_TRACKING_CA_FILE or MLFLOW_TRACKING_SERVER_CERT_PATH name the certificate of the "
    "authority that signed the MLflow server's, PEM"
)
_ADVICE = {
    9: "correct this machine's clock",  # not yet valid
    10: "renew the MLflow server's certificate, or correct this machine's clock",
    62: "use a host name that the certificate has in the tracking URI",
    64: "use an address that the certificate has in the tracking URI",
}
"""What to do about a certificate, by OpenSSL's code for what is wrong with it."""
_SEPARATORS = re.compile(r"[\s,]+")


class ConnectionSettingError(ValueError):
    """The environment or a setting cannot be used for a connection; the message says which."""


class Proxy(NamedTuple):
    """A forward proxy between this server and the tracking server."""

    url: str
    """With its login, if it has one."""
    variable: str
    """Where it was given."""

    @property
    def place(self) -> str:
        """Host and port, without a password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


def proxy_for(uri: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an address: `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` lists
    its host; a variable in small letters wins.

    Raises:
        ConnectionSettingError: it is not the address of a proxy that can be used.
    """
    target = urlsplit(uri)
    no_proxy = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    for name in (f"{target.scheme}_proxy", "all_proxy"):
        variable = name if name in environ else name.upper()
        if text := environ.get(variable, "").strip():
            if _is_direct(target, no_proxy):
                return None
            return Proxy(_checked(variable, text, target.hostname or ""), variable)
    return None


def _is_direct(target: SplitResult, no_proxy: str) -> bool:
    """Whether `NO_PROXY` lists a host: as a name, which is also that of a domain, as an address, as
    a network, each with a port or without, or as `*`."""
    host, port = target.hostname or "", target.port
    port = port or (443 if target.scheme == "https" else 80)
    for entry in filter(None, _SEPARATORS.split(no_proxy.lower())):
        if entry == "*" or _is_in_network(host, entry.strip("[]")):
            return True
        name = entry.removeprefix("*").removeprefix(".").removesuffix(f":{port}").strip("[]")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _is_in_network(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # one of them is a name
        return False


def _checked(variable: str, text: str, host: str) -> str:
    """A proxy's address, with `http://` if it has no scheme."""
    url = text if "://" in text else f"http://{text}"
    received = re.sub("//.*@", "//", url)  # before the @ may be a password
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that does not end
        usable = False
    expected = f"expected http://HOST:PORT; list {host} in NO_PROXY to connect without a proxy"
    if usable and parts.scheme in ("socks5", "socks5h"):
        if find_spec("socksio") is not None:
            return url
        raise ConnectionSettingError(
            f"{variable}={received!r}: a SOCKS proxy needs the package socksio; install it, or "
            f"list {host} in NO_PROXY to connect without a proxy"
        )
    if not usable or parts.scheme not in ("http", "https"):
        raise ConnectionSettingError(f"{variable}={received!r}: not a proxy's address, {expected}")
    return url


def trust(ca_file: str) -> ssl.SSLContext:
    """Trust the certificates in a file, or in a folder that `openssl rehash` has indexed; the
    system's if none is given.

    Raises:
        ConnectionSettingError: there are no certificates.
    """
    if not ca_file:
        return ssl.create_default_context()
    path = Path(ca_file)
    try:
        if not path.is_dir():
            return ssl.create_default_context(cafile=ca_file)
        indexed = any(path.glob("*.0"))
    except ssl.SSLError:
        raise ConnectionSettingError(
            f"tracking_ca_file={ca_file!r}: no certificate in it, expected some as PEM"
        ) from None
    except OSError as error:
        raise ConnectionSettingError(
            f"tracking_ca_file={ca_file!r}: {error.strerror}; {CA_ADVICE}"
        ) from None
    if not indexed:
        raise ConnectionSettingError(
            f"tracking_ca_file={ca_file!r}: a folder without an index, expected a file; or run "
            "openssl rehash on it"
        )
    return ssl.create_default_context(capath=ca_file)


def untrusted(error: ssl.SSLError) -> str:
    """Why TLS failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _ADVICE.get(error.verify_code, CA_ADVICE)
        return f"{error.verify_message.rstrip('.')}; {advice}"
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return "it does not speak TLS there; is http:// right in the tracking URI?"
    return f"{error.reason or error}; see which versions of TLS it accepts"
