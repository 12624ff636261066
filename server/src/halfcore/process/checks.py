"""Checks of a server's settings before it starts, against each other and against this machine: what
would stop a worker later stops the start with one sentence."""

import errno
import os
import re
import socket
import stat
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from halfcore import challenger_spec
from halfcore.bundle_signature import Signers, SignersError
from halfcore.postgres.database import check
from halfcore.predict.keys import Keys
from halfcore.readable import unreadable_reason
from halfcore.registry import sources
from halfcore.settings.groups import Settings
from halfcore.settings.reading import SettingsError

_NOT_OF_A_HOST = re.compile(r"[\s\"'<>]")
_ADVICE = {
    errno.EADDRINUSE: "; end the program that listens there, or choose another port",
    errno.EADDRNOTAVAIL: "; expected an address of this machine, or 0.0.0.0 for all of them",
    errno.EACCES: "; ports below 1024 need a privilege: choose a higher one",
    socket.EAI_NONAME: "; expected a name or an address of this machine",
}
"""What to do where the server cannot listen, by the system's error."""


def checked(settings: Settings) -> Settings:
    """The settings of a server, with the address and port that it will have.

    Raises:
        SettingsError: a setting is wrong.
        DatabaseError: the database's URL is wrong.
        KeysError: the file of API keys is wrong.
    """
    if settings.database_url:
        check(settings.database_url)  # so that an error stops the start, and is not only logged
    if settings.tls_certificate or settings.tls_key:
        check_tls(settings)
    _check_follow(settings)
    if settings.api_keys:
        Keys(Path(settings.api_keys))  # so that an error stops the start, and not a worker
    if settings.bundle_keys:
        _check_bundle_keys(settings.bundle_keys)
    if not settings.follow:
        _check_bundles(settings.bundles)
    address, port = _address(settings.host, settings.port)
    check_grpc(settings.grpc_port, address, port)
    _check_admin_port(settings, address, port)
    return replace(settings, host=address, port=port)


def check_tls(settings: Settings) -> None:
    """Check that the certificate and its key belong together.

    Raises:
        SettingsError: they do not, or a file cannot be used.
    """
    import ssl  # late: a server without TLS does not need it

    certificate, key = settings.tls_certificate, settings.tls_key
    if not certificate or not key:
        raise SettingsError("only one of tls_certificate and tls_key is set, expected both or none")
    for name, file in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise SettingsError(f"{name}={file!r}: {error.strerror}") from None

    def no_password() -> str:
        raise SettingsError(f"tls_key={key!r}: it has a password, expected a key without one")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise SettingsError(
            f"tls_certificate={certificate!r}, tls_key={key!r}: {error.reason or error}; expected "
            "a chain of certificates and the key of the first, both PEM"
        ) from None


def _check_follow(settings: Settings) -> None:
    """Refuse what cannot be followed."""
    try:
        followed = sources.parse(settings.follow)
        for spec in challenger_spec.parse(settings.challengers):
            if spec.source.startswith("models:"):
                followed.append(sources.parse_one(f"{spec.name}={spec.source}"))
    except ValueError as error:
        raise SettingsError(f"follow or challengers: {error}") from None
    if followed and not _is_http(settings.tracking_uri):
        received = settings.tracking_uri.rpartition("@")[2]  # before the @ may be a password
        raise SettingsError(
            f"tracking_uri={received!r}: expected http://HOST:PORT or https://HOST:PORT, the "
            f"MLflow server of {followed[0].uri}; set MLFLOW_TRACKING_URI"
        )
    if followed:
        _check_connection(settings)


def _check_connection(settings: Settings) -> None:
    """Refuse a proxy or certificates with which no connection can be made."""
    from halfcore.registry import connection  # late: a server that follows nothing needs no TLS

    try:
        connection.proxy_for(settings.tracking_uri, os.environ)
        if settings.tracking_uri.startswith("https:"):
            connection.trust(settings.tracking_ca_file)
    except connection.ConnectionSettingError as error:
        raise SettingsError(str(error)) from None


def _is_http(uri: str) -> bool:
    """Whether an address has a host and a port that can exist; it may have a path."""
    try:
        parts = urlsplit(uri)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that does not end
        return False
    return named and parts.scheme in ("http", "https") and not _NOT_OF_A_HOST.search(parts.netloc)


def _check_bundles(directory: Path) -> None:
    """Refuse what is not a directory; the log and /health report what is in it."""
    try:
        status = directory.stat()
    except OSError as error:
        raise SettingsError(
            f"bundles={str(directory)!r}: {unreadable_reason(error, directory)}; "
            "`model-export export` makes one"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise SettingsError(
            f"bundles={str(directory)!r}: not a directory, expected one that `model-export "
            "export` wrote to"
        )


def _check_bundle_keys(file: str) -> None:
    try:
        Signers(Path(file))
    except SignersError as error:
        raise SettingsError(f"bundle_keys={file!r}: {error}") from None


def check_grpc(grpc_port: int, address: str, port: int) -> None:
    """Refuse a port of gRPC that cannot be served."""
    if not grpc_port:
        return
    if find_spec("grpc") is None:
        raise SettingsError(
            f"grpc_port={grpc_port}: gRPC is not installed; install the extra halfcore[grpc], or "
            "build the image with SERVER_EXTRAS=grpc"
        )
    if grpc_port == port:
        raise SettingsError(f"grpc_port={grpc_port}: HTTP has this port, expected another one")
    _address(address, grpc_port, "grpc_port")


def _check_admin_port(settings: Settings, address: str, port: int) -> None:
    """Refuse an admin port that cannot be served."""
    if not settings.admin_port:
        return
    if settings.admin_port in (port, settings.grpc_port):
        raise SettingsError(
            f"admin_port={settings.admin_port}: predictions have this port, expected another one"
        )
    _address(address, settings.admin_port, "admin_port")


def _address(host: str, port: int, setting: str = "port") -> tuple[str, int]:
    """Resolve the host to an address, IPv4 if it has one, and port 0 to a free port: granian
    accepts neither a name nor port 0.

    A port that another process listens on is refused: granian's workers share their port, so a
    second server would silently take half the requests.

    Raises:
        SettingsError: this machine has no such host or address, or the port is taken or not
            allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            name, free, *_ = probe.getsockname()
    except OSError as error:
        advice = _advice_on(host) or _ADVICE.get(error.errno or 0, "")
        raise SettingsError(f"host={host!r}, {setting}={port}: {error.strerror}{advice}") from None
    except UnicodeError:
        raise SettingsError(
            f"host={host!r}: not the name of a host, expected a name or an address"
        ) from None
    return str(name), int(free)


def _advice_on(host: str) -> str:
    """What to do about what is often written in the place of an address; empty for others."""
    if "://" in host:
        return "; expected a name or an address alone, without a scheme or a port"
    if "/" in host or host.startswith("unix:"):
        return (
            "; a Unix socket cannot be listened on: expected a name or an address of this machine, "
            "such as 127.0.0.1, and a proxy on this machine passes requests on to it"
        )
    if host.startswith("["):
        return "; expected an IPv6 address without brackets, such as ::1"
    name, _, port = host.partition(":")
    if name and port.isdecimal():
        return f"; expected the host alone: HALFCORE_PORT={port} or --port {port} sets the port"
    return ""
