"""Every setting of the server: one frozen object, read once from the environment and the command
line.

Only `__main__`, `app` and `lifespan` see `Settings`; below them functions take plain keyword
arguments with units.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from halfcore import challenger_spec

PREFIX = "HALFCORE_"
SEED_NAMES = {
    "default_model": "MODEL_NAME",
    "model_stage": "MODEL_STAGE",
    "database_url": "DATABASE_URL",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "tracking_token": "MLFLOW_TRACKING_TOKEN",
    "tracking_username": "MLFLOW_TRACKING_USERNAME",
    "tracking_password": "MLFLOW_TRACKING_PASSWORD",
    "tracking_ca_file": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "tracking_workspace": "MLFLOW_WORKSPACE",
}
"""Settings that teams already have under another name; `HALFCORE_…` wins over it, a command-line
flag over both."""
OLD_NAMES = {"sandbox_memory_mb": "canary_memory_mb", "sandbox_timeout_s": "canary_timeout_s"}
"""Settings that were renamed: the old names are still read in this release, with a warning; the new
ones win."""
SECRETS = frozenset(
    {"database_url", "tracking_token", "tracking_password", "admin_token", "webhook_secret"}
)
"""Settings that no message shows and no flag takes, for everybody sees a command line."""
FILE = "_FILE"
"""Added to a secret's variable, it names a file that holds the value, as container secrets do."""


class SettingsError(ValueError):
    """A setting is wrong; the message names it, the value that was given and what was expected."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The server's settings. Each says its unit, its default's reason, and is read from `HALFCORE_`
    + its name."""

    host: Annotated[
        str,
        Meta(
            description="address to listen on; loopback, because the service has no access control "
            "of its own"
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="TCP port; the port that the FastAPI services being replaced use",
        ),
    ] = 8000
    bundles: Annotated[
        Path, Meta(description="directory of bundles; where `model-export` writes by default")
    ] = Path(".halfcore/bundles")
    default_model: Annotated[
        str,
        Meta(
            description="model that /predict serves; empty: the only model there is, or the only "
            "one that is followed"
        ),
    ] = ""
    fallback_model: Annotated[
        str,
        Meta(
            description="model that /predict serves if default_model leaves the choice open; the "
            "images name their example"
        ),
    ] = ""
    model_stage: Annotated[
        str,
        Meta(
            description="serve the default model only from a bundle exported as "
            "models:/NAME/STAGE; empty: from any"
        ),
    ] = ""
    follow: Annotated[
        str,
        Meta(
            description="models to follow in the registry, as "
            "models:/NAME@ALIAS,OTHER=models:/NAME/STAGE; empty: none"
        ),
    ] = ""
    tracking_uri: Annotated[
        str,
        Meta(
            description="address of the MLflow server whose registry is followed; needed by "
            "`follow` alone"
        ),
    ] = ""
    tracking_token: Annotated[
        str, Meta(description="bearer token for the MLflow server; wins over user and password")
    ] = ""
    tracking_username: Annotated[
        str, Meta(description="user for the MLflow server, if it asks for one")
    ] = ""
    tracking_password: Annotated[str, Meta(description="that user's password")] = ""
    tracking_ca_file: Annotated[
        str, Meta(description="certificates to trust for the MLflow server; empty: the system's")
    ] = ""
    tracking_workspace: Annotated[
        str,
        Meta(
            pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
            description="workspace of the MLflow server whose models are followed; a server "
            "without workspaces is then refused; "
            "empty: the server's default one",
        ),
    ] = ""
    store: Annotated[
        Path,
        Meta(
            description="directory in which bundles of followed models are kept; must be writable"
        ),
    ] = Path(".halfcore/store")
    keep_versions: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="bundles to keep in the store per model: the served one, the one before, "
            "and two older ones to go back to",
        ),
    ] = 4
    follow_period_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="seconds between polls of the registry, varied by 20 %: how long a moved "
            "alias may take; every worker polls",
        ),
    ] = 10.0
    follow_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="timeout of one call of the registry's API, seconds; it runs in the "
            "background and delays no prediction",
        ),
    ] = 5.0
    follow_schema_changes: Annotated[
        Literal["allow", "refuse"],
        Meta(
            description="refuse: keep the served version if the next one is not compatible with it "
            "(columns, their values, classes); "
            "allow: swap and warn, because whoever moves an alias decides"
        ),
    ] = "allow"
    download_timeout_s: Annotated[
        float,
        Meta(gt=0, le=86400, description="seconds for one file of a bundle; 1 GiB at 2 MB/s fits"),
    ] = 600.0
    max_bundle_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="largest model.onnx that is downloaded, MiB; a forest needs many times its "
            "file size while it loads",
        ),
    ] = 512
    sandbox_memory_mb: Annotated[
        int,
        Meta(
            ge=64,
            le=1 << 20,
            description="most memory of the sandbox, the process that tries a new bundle, MiB; "
            "less if the memory limit leaves less",
        ),
    ] = 2048
    sandbox_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="timeout of the sandbox, seconds; then the bundle is refused: its model "
            "may never answer",
        ),
    ] = 60.0
    admin_token: Annotated[
        str,
        Meta(
            description="bearer token for POST /models/NAME/reload; empty: there is no such route"
        ),
    ] = ""
    webhook_secret: Annotated[
        str,
        Meta(
            description="secret with which MLflow signs POST /webhooks/mlflow; empty: there is no "
            "such route"
        ),
    ] = ""
    address_file: Annotated[
        str,
        Meta(
            description="file that gets the server's address, for the health check of a container; "
            "empty: none"
        ),
    ] = ""
    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="worker processes, each with its own copy of the models; 0: as many as "
            "whole cores of CPU quota",
        ),
    ] = 0
    pin_cpu: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="run each worker on one CPU; auto: if the CPU quota is below one core"),
    ] = "auto"
    batch_scheduling: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="run workers as SCHED_BATCH; auto: if the CPU quota is below one core"),
    ] = "auto"
    coalesce: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="let requests gather while much of the CPU quota is used; auto: if "
            "the quota is below one core and there is one worker"
        ),
    ] = "auto"
    coalesce_above: Annotated[
        float,
        Meta(
            gt=0,
            le=0.8,
            description="share of the CPU quota that may be used before requests gather; 0.3 "
            "leaves room for three times the load",
        ),
    ] = 0.3
    coalesce_delay_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="longest time that requests then gather, milliseconds; 0: 2 divided by the "
            "CPU quota, at most 20",
        ),
    ] = 0.0
    max_connections: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="most open connections per worker, including idle ones; 0: 12,000, or what "
            "memory and nofile allow",
        ),
    ] = 0
    backlog: Annotated[
        int,
        Meta(
            ge=128,
            le=65535,
            description="connections waiting to be accepted; 8 s of 500 users/s (the kernel caps "
            "it at net.core.somaxconn)",
        ),
    ] = 4096
    idle_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=60,
            description="seconds until an idle connection is closed; the longest that granian "
            "allows, because users pause between requests",
        ),
    ] = 60
    connection_buffer_bytes: Annotated[
        int,
        Meta(
            ge=8192,
            le=1 << 22,
            description="read buffer per connection, bytes; the smallest that hyper allows, "
            "because 10,000 connections have one each",
        ),
    ] = 8192
    max_in_flight: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="most predictions in progress per worker, then 503; 0: as many as "
            "connections, or what memory allows",
        ),
    ] = 0
    max_body_bytes: Annotated[
        int,
        Meta(
            ge=64,
            le=1 << 30,
            description="largest request body, bytes; 10,000 records of 12 columns fit",
        ),
    ] = 4 << 20
    body_timeout_s: Annotated[
        float,
        Meta(gt=0, le=600, description="seconds a client may take to send its body; then 408"),
    ] = 10.0
    max_rows: Annotated[
        int, Meta(ge=1, le=10_000_000, description="most rows in one request, then 413")
    ] = 10_000
    max_batch_size: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="most rows in one session.run; more than 128 gain nothing per row",
        ),
    ] = 128
    max_queue_size: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="most rows waiting per model, then 503; two bulk requests of the largest "
            "size",
        ),
    ] = 20_000
    max_queue_delay_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="milliseconds a row waits for other requests; 0: one turn of the event "
            "loop, because waiting longer gains less than it costs",
        ),
    ] = 0.0
    solo_after_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="run a row immediately if it arrives at least this many milliseconds after "
            "one that ran alone; 0: never",
        ),
    ] = 0.1
    queue_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="seconds a row may wait for inference, then 503; the client has given up "
            "by then",
        ),
    ] = 5.0
    inline_budget_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="batches expected to take less run on the event loop, which they block; "
            "more expensive ones cost a thread switch",
        ),
    ] = 1.0
    drain_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=1800,
            description="seconds that accepted requests may take after SIGTERM; less than the 30 "
            "after which Docker and Kubernetes kill",
        ),
    ] = 25
    predrain_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="seconds between SIGTERM, when readiness becomes 503, and the end of the "
            "listener; 0: none, because only a load balancer needs it",
        ),
    ] = 0.0
    database_url: Annotated[
        str,
        Meta(
            pattern="^(postgres(ql)?://.*)?$",
            description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE of the feature catalogue; "
            "empty: bundles describe themselves",
        ),
    ] = ""
    database_pooler: Annotated[
        Literal["none", "session", "transaction"],
        Meta(
            description="what is between the server and PostgreSQL; transaction: a pooler such as "
            "PgBouncer with pool_mode = transaction, "
            "without prepared statements and notifications; session: a pooler that keeps "
            "sessions; none: nothing, or unknown"
        ),
    ] = "none"
    database_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="timeout of a connection to the database or a statement, seconds; no "
            "request waits for it",
        ),
    ] = 5.0
    catalog_refresh_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="seconds between reads of the feature catalogue without a notification; "
            "each finds out whether the connection still works",
        ),
    ] = 30.0
    state: Annotated[
        Path,
        Meta(
            description="directory of what is kept over a restart: the last good feature "
            "catalogue; next to the bundles"
        ),
    ] = Path(".halfcore/state")
    prediction_log: Annotated[
        bool,
        Meta(
            description="write every answered prediction to PostgreSQL (database_url); off, "
            "because it needs a database"
        ),
    ] = False
    prediction_log_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="part of the predictions that is logged, chosen at random; all of them, so "
            "that none is missing",
        ),
    ] = 1.0
    prediction_log_inputs: Annotated[
        bool,
        Meta(
            description="log the JSON of the requests; false: leave it out, if it is personal data"
        ),
    ] = True
    prediction_log_spool: Annotated[
        Path,
        Meta(
            description="directory for predictions while PostgreSQL cannot be reached; on a disk "
            "that is kept over a restart"
        ),
    ] = Path(".halfcore/spool")
    prediction_log_spool_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 44,
            description="largest size of that directory, bytes; 3.5 million predictions of iris",
        ),
    ] = 1 << 30
    prediction_log_memory_bytes: Annotated[
        int,
        Meta(
            ge=1 << 16,
            le=1 << 34,
            description="memory for predictions that are not written yet, bytes per worker; 30,000 "
            "of iris",
        ),
    ] = 16 << 20
    challengers: Annotated[
        str,
        Meta(
            description="models that shadow served ones or answer a share for them: "
            "NAME=SOURCE[;mode=canary][;share=0.1], "
            "separated by blanks, SOURCE being version:N or models:/NAME@ALIAS; empty: none"
        ),
    ] = ""
    loop: Annotated[
        Literal["uvloop", "asyncio"], Meta(description="event loop; uvloop costs less per request")
    ] = "uvloop"
    hot_lane: Annotated[
        bool,
        Meta(
            description="answer predictions over RSGI instead of the ASGI app, which costs less "
            "CPU time; false: everything through ASGI"
        ),
    ] = True
    server_timing: Annotated[
        bool,
        Meta(
            description="report each stage's milliseconds in a Server-Timing header; off, because "
            "it is 70 bytes per answer"
        ),
    ] = False
    bench_routes: Annotated[
        bool,
        Meta(
            description="answer GET and POST /bench/null, and POST /bench/decode; off, because "
            "only the load lab needs them"
        ),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="lowest level that is logged"),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="json: one object per line, for machines")
    ] = "text"

    @classmethod
    def load(cls, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Self:
        """Read the settings; a flag wins over `HALFCORE_…`, which wins over the names that teams
        already use.

        Raises:
            SettingsError: a value of the wrong type or out of range, an unknown `HALFCORE_`
                variable, or an unreadable `…_FILE`.
        """
        fields = cls.__struct_fields__
        environ = {**environ, **_from_files(environ)}
        old = {name: PREFIX + before.upper() for name, before in OLD_NAMES.items()}
        known = (
            {PREFIX + name.upper() for name in fields}
            | set(old.values())
            | {PREFIX + name.upper() + FILE for name in SECRETS}
        )
        if unknown := sorted(
            name for name in environ if name.startswith(PREFIX) and name not in known
        ):
            raise SettingsError(
                f"{unknown[0]} is not a setting; `halfcore serve --help` lists them"
            )
        given: dict[str, str] = {}
        origin: dict[str, str] = {}
        for name in fields:
            variables = (SEED_NAMES.get(name, ""), old.get(name, ""), PREFIX + name.upper())
            for source, key in (
                *((environ, variable) for variable in variables),
                (flags or {}, name),
            ):
                if key in source:
                    given[name], origin[name] = (
                        source[key],
                        key if source is environ else flag(name),
                    )
        for name, text in given.items():
            try:
                msgspec.convert({name: text}, cls, strict=False, dec_hook=_decode)
            except msgspec.ValidationError as error:
                if name in SECRETS:
                    raise SettingsError(
                        f"{origin[name]}: its value is not shown, expected {describe(name)}"
                    ) from None
                raise SettingsError(
                    f"{origin[name]}={text!r}: {str(error).split(' - at')[0]} ({describe(name)})"
                ) from None
        settings = msgspec.convert(given, cls, strict=False, dec_hook=_decode)
        _check(settings)
        return settings


def flag(name: str) -> str:
    """The command-line spelling of a setting."""
    return "--" + name.replace("_", "-")


def renamed(command_line: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The old names that are in use, each with the new one."""
    found = []
    for name, before in OLD_NAMES.items():
        if (variable := PREFIX + before.upper()) in environ:
            found.append((variable, PREFIX + name.upper()))
        if any(argument.partition("=")[0] == flag(before) for argument in command_line):
            found.append((flag(before), flag(name)))
    return found


def describe(name: str) -> str:
    """What a setting means, from the annotation where it is defined."""
    return str(_meta(name).description)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser one option per setting, with its default, its reason and its environment
    names."""
    for name, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        seed = f", {SEED_NAMES[name]}" if name in SEED_NAMES else ""
        if name in SECRETS:
            variables = f"{PREFIX}{name.upper()}{seed} (or a file named by ..._FILE)"
            parser.epilog = (
                f"{parser.epilog or 'Only from the environment:'} {variables}: {describe(name)}."
            )
            continue
        parser.add_argument(
            flag(name),
            dest=name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=(
                f"{describe(name)} (default: {str(default) or 'empty'}; environment: "
                f"{PREFIX}{name.upper()}{seed})"
            ).replace("%", "%%"),
        )
        if name in OLD_NAMES:
            parser.add_argument(
                flag(OLD_NAMES[name]), dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )


def from_command_line(arguments: Sequence[tuple[str, Any]], environ: Mapping[str, str]) -> Settings:
    """The settings of a parsed command line; see `Settings.load` for the errors."""
    return Settings.load(environ, {name: str(value) for name, value in arguments})


def _check(settings: Settings) -> None:
    """What no single setting can say."""
    if settings.max_rows > settings.max_queue_size:
        raise SettingsError(
            f"max_rows={settings.max_rows}: so many rows never fit "
            f"max_queue_size={settings.max_queue_size}"
        )
    if settings.prediction_log and not settings.database_url:
        raise SettingsError(
            "prediction_log needs database_url, expected HALFCORE_DATABASE_URL or DATABASE_URL"
        )
    try:
        challenger_spec.parse(settings.challengers)
    except ValueError as error:
        raise SettingsError(f"challengers={settings.challengers!r}: {error}") from None


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets whose variable, with `_FILE` behind it, names a file."""
    found = {}
    for name in SECRETS:
        for variable in filter(None, (PREFIX + name.upper(), SEED_NAMES.get(name))):
            if (path := environ.get(variable + FILE)) is None:
                continue
            if variable in environ:
                raise SettingsError(
                    f"{variable} and {variable}{FILE} are both set, expected one of them"
                )
            try:
                found[variable] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise SettingsError(f"{variable}{FILE}={path!r}: {reason}") from None
    return found


def _meta(name: str) -> Meta:
    meta: Meta = Settings.__annotations__[name].__metadata__[0]
    return meta


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
