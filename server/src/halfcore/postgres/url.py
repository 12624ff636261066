"""Checks the database's URL: libpq's form as far as asyncpg supports it, with a clear message for
each error.

asyncpg ignores parameters, quotes passwords and raises many kinds of errors. So the URL is checked
here first, at the start. A message quotes no part that may belong to a password: a port may, if the
user is missing; the name of a parameter or of a file does not.
"""

import configparser
import getpass
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from halfcore.postgres.errors import DatabaseError

SCHEMES = ("postgresql", "postgres")
FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_PORT = re.compile(r"[0-9]{1,5}")
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": (
        "any",
        "primary",
        "standby",
        "read-write",
        "read-only",
        "prefer-standby",
    ),
    "gsslib": ("gssapi", "sspi"),
}
_VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "gsslib": "PGGSSLIB",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
}
"""libpq's variables, which are used for parameters that the URL lacks."""
_TIMEOUT = "HALFCORE_DATABASE_TIMEOUT_S says how long a connection may take"
_PROOF = "sslmode=verify-full with sslrootcert proves the server"
_POOLER = "HALFCORE_DATABASE_POOLER=transaction is for poolers"
_UNSUPPORTED = {
    "connect_timeout": _TIMEOUT,
    "tcp_user_timeout": _TIMEOUT,
    "channel_binding": _PROOF,
    "require_auth": _PROOF,
    "requirepeer": _PROOF,
    "requiressl": "sslmode=require says the same",
    "hostaddr": "host accepts an address, too",
    "ssl": "for example sslmode=require",
    "pgbouncer": _POOLER,
    "prepared_statement_cache_size": _POOLER,
    "statement_cache_size": _POOLER,
    "command_timeout": _TIMEOUT,
} | dict.fromkeys(
    (
        "authtype",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "replication",
        "schema",
        "scram_client_key",
        "scram_server_key",
        "sslcertmode",
        "sslcompression",
        "sslcrldir",
        "sslkeylogfile",
        "sslsni",
        "tty",
    ),
    "",
)
"""Parameters of libpq and of other clients, which asyncpg would pass to PostgreSQL as settings → a
hint at what to use instead."""


def place(url: str) -> str:
    """Host, port and database, without the user and the parameters.

    Raises:
        DatabaseError: not a PostgreSQL URL; the message quotes nothing of it.
    """
    parts = _split(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def secrets(url: str) -> set[str]:
    """The passwords in a URL, as written and decoded."""
    parts = urlsplit(url)
    found = {
        parts.password or "",
        *parse_qs(parts.query).get("password", []),
        *parse_qs(parts.query).get("sslpassword", []),
    }
    return {spelling for secret in found for spelling in (secret, unquote(secret)) if spelling}


def check(url: str) -> None:
    """Check a URL as asyncpg will read it, with the variables, files and certificates that it uses.

    Does not connect.

    Raises:
        DatabaseError: what is wrong and what was expected.
    """
    parts = _split(url)
    if _BAD_PERCENT.search(url) or "\ufffd" in unquote(url):
        raise DatabaseError(
            "the database's URL has a % that is not an escape: write a % in a password as %25"
        )
    given = _parameters(parts)
    _check_supported(given)
    login, _, hosts = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    service = _service(given["service"]) if given.get("service") else {}
    found = _environment() | service | given
    origins = {name: _origin(name, given, service) for name in found}
    _check_hosts(hosts.split(",") if hosts else [], found, origins)
    _check_user(user or found.get("user", ""))
    for name, choices in _CHOICES.items():
        if (value := found.get(name)) is not None and value not in choices:
            raise DatabaseError(
                f"{origins[name]} is {value[:30]!r}, expected one of {', '.join(choices)}"
            )
    _check_tls(found, origins)


def _check_supported(given: Mapping[str, str]) -> None:
    for name, instead in _UNSUPPORTED.items():
        if name in given:
            hint = f" ({instead})" if instead else ""
            raise DatabaseError(
                f"the database's URL has the parameter {name}, which is not supported: remove "
                f"it{hint}"
            )


def _environment() -> dict[str, str]:
    """The parameters that libpq's variables set."""
    return {
        name: os.environ[variable]
        for name, variable in _VARIABLES.items()
        if os.environ.get(variable)
    }


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes user and password
        # Since Python's fix of CVE-2025-0938, which distributions also have in older versions,
        # brackets are for a single host, here and in asyncpg.
        raise DatabaseError(
            f"the database's URL cannot be read, expected {FORM}: special characters in a "
            "password are percent-encoded, and an IPv6 address is in brackets; several hosts with "
            "one of IPv6 among them are written as /DATABASE?host=one,[::1]&port=5432,5433"
        ) from None
    if parts.scheme not in SCHEMES:
        raise DatabaseError(
            f"the database's URL does not begin with postgresql://, expected {FORM}"
        )
    # A password with an unescaped / ends its part of the URL, and would be shown as a path.
    if "@" in parts.path + parts.query + parts.fragment or parts.netloc.count("@") > 1:
        raise DatabaseError(
            "the database's URL has an @ in a wrong place: in a password, write @ / # ? as "
            "%40 %2F %23 %3F"
        )
    if parts.fragment:
        raise DatabaseError(
            "the database's URL has a #, and what follows it would be ignored: write it as %23"
        )
    return parts


def _parameters(parts: SplitResult) -> dict[str, str]:
    try:
        found = (
            parse_qs(parts.query, strict_parsing=True, keep_blank_values=True)
            if parts.query
            else {}
        )
    except ValueError:
        raise DatabaseError(
            "the database's URL has a text after its ? that is not NAME=VALUE&NAME=VALUE"
        ) from None
    return {name: values[-1] for name, values in found.items() if values[-1]}


def _origin(name: str, given: Mapping[str, str], service: Mapping[str, str]) -> str:
    """The origin of a parameter, for messages."""
    if name in given:
        return f"{name} in the database's URL"
    return f"{name} in the service file" if name in service else _VARIABLES[name]


def _service(name: str) -> dict[str, str]:
    """A section of libpq's service file; asyncpg would ignore one that does not exist."""
    file = Path(os.environ.get("PGSERVICEFILE") or _home() / ".pg_service.conf")
    title = f"service={name} in the database's URL"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with file.open(encoding="utf-8") as stream:
            parser.read_file(stream)
    except OSError as error:
        raise DatabaseError(
            f"{title}: the service file {file}: {error.strerror}; PGSERVICEFILE names another"
        ) from None
    except (configparser.Error, UnicodeDecodeError):
        raise DatabaseError(
            f"{title}: the service file {file} cannot be read, expected [NAME] and below it lines "
            "NAME=VALUE"
        ) from None
    if name not in parser:
        raise DatabaseError(
            f"{title}: the service file {file} has no [{name}], expected one of: "
            f"{', '.join(parser.sections()) or 'none'}"
        )
    return dict(parser[name])


def _check_hosts(
    hosts: Sequence[str], found: Mapping[str, str], origins: Mapping[str, str]
) -> None:
    """Check hosts and ports, several of them separated by commas."""
    ports = found["port"].split(",") if found.get("port") else []
    if not all(map(_is_port, ports)):
        raise DatabaseError(f"{origins['port']} is not a number from 1 to 65535")
    where = "the database's URL"
    if not hosts and found.get("host"):
        hosts, where = found["host"].split(","), origins["host"]
    for number, host in enumerate(hosts, 1):
        which = f"host {number} of {where}" if len(hosts) > 1 else f"the host of {where}"
        if not host and len(hosts) > 1:
            raise DatabaseError(f"{which} is empty, expected HOST or HOST:PORT between the commas")
        _check_host(host, which)
    if len(ports) > 1 and len(ports) != max(len(hosts), 1):
        raise DatabaseError(
            f"{origins['port']} has {len(ports)} ports for {len(hosts)} hosts, expected one, or "
            "one per host"
        )


def _check_host(host: str, which: str) -> None:
    if host.startswith("/"):  # the folder of a Unix socket
        return
    match = re.fullmatch(r"(?:\[[^\]]+\]|[^\[\]:]*)(?::(?P<port>[^:]*))?", host)
    if match is None:
        raise DatabaseError(
            f"{which} cannot be read, expected HOST:PORT; an IPv6 address is in brackets: "
            "[::1]:5432"
        )
    if match["port"] and not _is_port(unquote(match["port"])):
        raise DatabaseError(
            f"{which} has a port that is not a number from 1 to 65535, expected {FORM}"
        )


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and 1 <= int(text) <= 65535


def _check_user(user: str) -> None:
    if not user:
        try:
            getpass.getuser()
        except (KeyError, OSError, ImportError):  # a container's user without a name
            raise DatabaseError(
                "the database's URL names no user, and this process's user has no name: expected "
                f"{FORM}"
            ) from None


def _check_tls(found: Mapping[str, str], origins: Mapping[str, str]) -> None:
    """Check the certificates that the parameters require."""
    mode = found.get("sslmode", "prefer")
    if mode not in ("require", "verify-ca", "verify-full"):
        if found.get("sslnegotiation") == "direct":
            raise DatabaseError(
                f"{origins['sslnegotiation']} is direct, which needs sslmode=require, verify-ca "
                "or verify-full"
            )
        return
    _check_root(mode, found, origins)
    if crl := found.get("sslcrl"):
        _check_certificates(origins["sslcrl"], Path(crl))
    if certificate := found.get("sslcert"):
        key = found.get("sslkey") or str(_home() / ".postgresql/postgresql.key")
        _check_client(
            origins["sslcert"], Path(certificate), Path(key), found.get("sslpassword", "")
        )


def _check_root(mode: str, found: Mapping[str, str], origins: Mapping[str, str]) -> None:
    root = found.get("sslrootcert")
    default = _home() / ".postgresql/root.crt"
    if root == "system":
        raise DatabaseError(
            f"{origins['sslrootcert']} is system, which is not supported: give the system's "
            "file, such as /etc/ssl/certs/ca-certificates.crt"
        )
    if root:
        _check_certificates(origins["sslrootcert"], Path(root))
    elif default.exists():
        _check_certificates("the root certificate", default)
    elif mode != "require":
        raise DatabaseError(
            f"{origins['sslmode']} is {mode}, and there is no root certificate to verify the "
            "server's with: give the file with the authority's certificate as "
            f"sslrootcert=/PATH/root.crt in the URL or in PGSSLROOTCERT, or put it at {default}"
        )


def _check_certificates(title: str, file: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise DatabaseError(f"{title}: {file} holds no certificate in PEM form") from None
    except OSError as error:
        raise DatabaseError(f"{title}: {file}: {error.strerror}") from None


def _check_client(title: str, certificate: Path, key: Path, password: str) -> None:
    """Check the client's certificate and its key, which may be in the certificate's file."""
    if not certificate.exists():
        raise DatabaseError(f"{title}: {certificate}: there is no such file")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(
            certificate, key if key.exists() else None, password=lambda: password
        )
    except ssl.SSLError as error:
        why = (error.reason or "no certificate in PEM form").replace("_", " ").lower()
        raise DatabaseError(
            f"{title}: {certificate} cannot be used with its key (sslkey, {key}): {why}"
        ) from None
    except OSError as error:
        raise DatabaseError(
            f"{title}: {certificate}, with its key (sslkey, {key}): {error.strerror}"
        ) from None


def _home() -> Path:
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return Path("~")
