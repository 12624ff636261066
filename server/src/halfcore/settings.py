"""Every setting of the server: one frozen object, read once from the environment and the command line.

Only `__main__`, `app` and `lifespan` see `Settings`; below them functions take plain keyword arguments with units.
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
"""Settings that teams already have under another name; `HALFCORE_…` wins over it, a command-line flag over both."""
SECRETS = frozenset({"database_url", "tracking_token", "tracking_password", "admin_token", "webhook_secret"})
"""Settings that no message shows and no flag takes, for everybody sees a command line."""
FILE = "_FILE"
"""Added to a secret's variable, it names a file that holds the value, as container secrets do."""


class SettingsError(ValueError):
    """A setting is wrong; the message names it, what came and what was expected."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The server's settings. Each says its unit, its default's reason, and is read from `HALFCORE_` + its name."""

    host: Annotated[str, Meta(description="address to listen on; loopback, because the service has no keys of its own")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; the port that the FastAPI services being replaced use")] = 8000
    bundles: Annotated[Path, Meta(description="directory of bundles; where `model-export` writes by default")] = Path(".halfcore/bundles")
    default_model: Annotated[
        str, Meta(description="model that /predict serves; empty: the only model there is, or the only one that is followed")
    ] = ""
    fallback_model: Annotated[
        str, Meta(description="model that /predict serves if default_model leaves the choice open; the images name their example")
    ] = ""
    model_stage: Annotated[
        str, Meta(description="serve the default model only from a bundle exported as models:/NAME/STAGE; empty: from any")
    ] = ""
    follow: Annotated[
        str,
        Meta(description="models to follow in the registry, as models:/NAME@ALIAS,OTHER=models:/NAME/STAGE; empty: none"),
    ] = ""
    tracking_uri: Annotated[str, Meta(description="address of the MLflow server whose registry is followed; needed by `follow` alone")] = ""
    tracking_token: Annotated[str, Meta(description="bearer token for the MLflow server; wins over user and password")] = ""
    tracking_username: Annotated[str, Meta(description="user for the MLflow server, if it asks for one")] = ""
    tracking_password: Annotated[str, Meta(description="that user's password")] = ""
    tracking_ca_file: Annotated[str, Meta(description="certificates to trust for the MLflow server; empty: the system's")] = ""
    tracking_workspace: Annotated[
        str,
        Meta(
            pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
            description="workspace of the MLflow server whose models are followed; a server without workspaces is then refused; "
            "empty: the server's default one",
        ),
    ] = ""
    store: Annotated[Path, Meta(description="directory in which bundles of followed models are kept; must be writable")] = Path(
        ".halfcore/store"
    )
    keep_versions: Annotated[
        int,
        Meta(ge=2, le=1000, description="bundles to keep in the store per model: the one served, the one before, and a way further back"),
    ] = 4
    follow_period_s: Annotated[
        float, Meta(gt=0, le=3600, description="seconds between polls, varied by 20 %; how long a moved alias may wait; every worker polls")
    ] = 10.0
    follow_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="seconds for one call of the registry's API; it waits for nobody who predicts")
    ] = 5.0
    follow_schema_changes: Annotated[
        Literal["allow", "refuse"],
        Meta(
            description="refuse: keep the served version if the next one is not compatible with it (columns, their values, classes); "
            "allow: swap and warn, for whoever moves an alias decides"
        ),
    ] = "allow"
    download_timeout_s: Annotated[float, Meta(gt=0, le=86400, description="seconds for one file of a bundle; 1 GiB at 2 MB/s fits")] = 600.0
    max_bundle_mb: Annotated[
        int,
        Meta(ge=1, le=1 << 20, description="largest model.onnx that is fetched, MiB; a forest takes many times its file while it loads"),
    ] = 512
    canary_memory_mb: Annotated[
        int,
        Meta(
            ge=64, le=1 << 20, description="most memory of the process that tries a new bundle, MiB; less if the memory limit leaves less"
        ),
    ] = 2048
    canary_timeout_s: Annotated[
        float,
        Meta(gt=0, le=3600, description="seconds until that process is ended, and the bundle refused; for a model that never answers"),
    ] = 60.0
    admin_token: Annotated[str, Meta(description="bearer token for POST /models/NAME/reload; empty: there is no such route")] = ""
    webhook_secret: Annotated[
        str, Meta(description="secret with which MLflow signs POST /webhooks/mlflow; empty: there is no such route")
    ] = ""
    address_file: Annotated[
        str, Meta(description="file to write the address to that is listened on, for the health check of a container; empty: none")
    ] = ""
    workers: Annotated[
        int,
        Meta(ge=0, le=256, description="worker processes, each with its own copy of the models; 0: as many as whole cores of CPU quota"),
    ] = 0
    pin_cpu: Annotated[
        Literal["auto", "on", "off"], Meta(description="run each worker on one CPU; auto: if the CPU quota is below one core")
    ] = "auto"
    batch_scheduling: Annotated[
        Literal["auto", "on", "off"], Meta(description="run workers as SCHED_BATCH; auto: if the CPU quota is below one core")
    ] = "auto"
    coalesce: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="let requests gather while much of the CPU quota is used; auto: if the quota is below one core, with one worker"),
    ] = "auto"
    coalesce_above: Annotated[
        float,
        Meta(
            gt=0, le=0.8, description="share of the CPU quota that may be used before requests gather; 0.3 leaves room for thrice the load"
        ),
    ] = 0.3
    coalesce_delay_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="milliseconds that requests then gather at most; 0: 2 divided by the quota, at most 20: little CPU needs company",
        ),
    ] = 0.0
    max_connections: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="open connections per worker, idle ones included; 0: 12,000, or what memory and nofile allow"),
    ] = 0
    backlog: Annotated[
        int,
        Meta(
            ge=128,
            le=65535,
            description="connections waiting to be accepted; 8 s of 500 users/s (the kernel caps it at net.core.somaxconn)",
        ),
    ] = 4096
    idle_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=60,
            description="seconds until an idle connection is closed; the longest that granian allows, because users think",
        ),
    ] = 60
    connection_buffer_bytes: Annotated[
        int,
        Meta(
            ge=8192,
            le=1 << 22,
            description="read buffer per connection, bytes; the least that hyper allows, for it is paid 10,000 times",
        ),
    ] = 8192
    max_in_flight: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="predictions in progress per worker, beyond it 503; 0: as many as connections, or what memory allows",
        ),
    ] = 0
    max_body_bytes: Annotated[int, Meta(ge=64, le=1 << 30, description="largest request body, bytes; 10,000 records of 12 columns fit")] = (
        4 << 20
    )
    body_timeout_s: Annotated[float, Meta(gt=0, le=600, description="seconds a client may take to send its body; then 408")] = 10.0
    max_rows: Annotated[int, Meta(ge=1, le=10_000_000, description="most rows in one request; beyond it 413")] = 10_000
    max_batch_size: Annotated[int, Meta(ge=1, le=65536, description="rows in one session.run; beyond 128 the gain per row is spent")] = 128
    max_queue_size: Annotated[
        int,
        Meta(ge=1, le=100_000_000, description="rows waiting per model; beyond it 503; two bulk requests of the largest size"),
    ] = 20_000
    max_queue_delay_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="milliseconds a row waits for company; 0: one turn of the event loop, since waiting longer buys less than it costs",
        ),
    ] = 0.0
    solo_after_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="a row that comes so many milliseconds after the one before, which ran alone, is run at once; 0: never",
        ),
    ] = 0.1
    queue_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="seconds a row may wait for inference; then 503, for the client has given up")
    ] = 5.0
    inline_budget_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="batches predicted to cost less run on the event loop, which they stall; dearer ones cost a thread switch",
        ),
    ] = 1.0
    drain_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=1800,
            description="seconds that accepted requests may take after SIGTERM; under Docker's and Kubernetes's patience of 30",
        ),
    ] = 25
    predrain_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="seconds between SIGTERM, when readiness turns 503, and the listener's end; 0: none, for only a balancer needs it",
        ),
    ] = 0.0
    database_url: Annotated[
        str,
        Meta(
            pattern="^(postgres(ql)?://.*)?$",
            description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE of the feature catalogue; empty: bundles describe themselves",
        ),
    ] = ""
    database_pooler: Annotated[
        Literal["none", "session", "transaction"],
        Meta(
            description="what stands before PostgreSQL; transaction: a pooler such as PgBouncer with pool_mode = transaction, through "
            "which nothing is prepared and no notification comes; session: one that keeps sessions; none: nothing, or unknown"
        ),
    ] = "none"
    database_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="seconds a connection to the database or a statement may take; no request waits for it")
    ] = 5.0
    catalog_refresh_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="seconds between reads of the feature catalogue that no notification asks for; finds a dead connection",
        ),
    ] = 30.0
    state: Annotated[
        Path, Meta(description="directory of what outlives a restart: the last good feature catalogue; beside the bundles")
    ] = Path(".halfcore/state")
    prediction_log: Annotated[
        bool, Meta(description="write every answered prediction to PostgreSQL (database_url); off, for it needs one")
    ] = False
    prediction_log_share: Annotated[
        float,
        Meta(gt=0, le=1, description="part of the predictions that is logged, chosen at random; all of them, so that none is missing"),
    ] = 1.0
    prediction_log_inputs: Annotated[bool, Meta(description="log the requests' own JSON; false: leave it out, where it is personal")] = True
    prediction_log_spool: Annotated[
        Path, Meta(description="directory for predictions while PostgreSQL is away; a disk that outlives the process")
    ] = Path(".halfcore/spool")
    prediction_log_spool_bytes: Annotated[
        int,
        Meta(ge=1 << 20, le=1 << 44, description="largest size of that directory, bytes; 3.5 million predictions of iris"),
    ] = 1 << 30
    prediction_log_memory_bytes: Annotated[
        int,
        Meta(ge=1 << 16, le=1 << 34, description="memory for predictions on their way to the log, bytes per worker; 30,000 of iris"),
    ] = 16 << 20
    challengers: Annotated[
        str,
        Meta(
            description="models that shadow served ones or answer a share for them: NAME=SOURCE[;mode=canary][;share=0.1], "
            "separated by blanks, SOURCE being version:N or models:/NAME@ALIAS; empty: none"
        ),
    ] = ""
    loop: Annotated[Literal["uvloop", "asyncio"], Meta(description="event loop; uvloop costs less per request")] = "uvloop"
    hot_lane: Annotated[bool, Meta(description="answer predictions over RSGI, beside the ASGI app; false: everything through ASGI")] = True
    server_timing: Annotated[
        bool, Meta(description="tell each stage's milliseconds in a Server-Timing header; off, for it is 70 bytes")
    ] = False
    bench_routes: Annotated[
        bool, Meta(description="answer GET and POST /bench/null, and POST /bench/decode; off, for only the load lab needs them")
    ] = False
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="json: one object per line, for machines")] = "text"

    @classmethod
    def load(cls, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Self:
        """Read the settings; a flag wins over `HALFCORE_…`, which wins over the names that teams already use.

        Raises:
            SettingsError: a value of the wrong type or out of range, an unknown `HALFCORE_` variable, or an unreadable `…_FILE`.
        """
        fields = cls.__struct_fields__
        environ = {**environ, **_from_files(environ)}
        known = {PREFIX + name.upper() for name in fields} | {PREFIX + name.upper() + FILE for name in SECRETS}
        if unknown := sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
            raise SettingsError(f"{unknown[0]} is not a setting; `halfcore serve --help` lists them")
        given: dict[str, str] = {}
        origin: dict[str, str] = {}
        for name in fields:
            for source, key in ((environ, SEED_NAMES.get(name, "")), (environ, PREFIX + name.upper()), (flags or {}, name)):
                if key in source:
                    given[name], origin[name] = source[key], key if source is environ else flag(name)
        for name, text in given.items():
            try:
                msgspec.convert({name: text}, cls, strict=False, dec_hook=_decode)
            except msgspec.ValidationError as error:
                if name in SECRETS:
                    raise SettingsError(f"{origin[name]}: its value is not shown, expected {describe(name)}") from None
                raise SettingsError(f"{origin[name]}={text!r}: {str(error).split(' - at')[0]} ({describe(name)})") from None
        settings = msgspec.convert(given, cls, strict=False, dec_hook=_decode)
        _check(settings)
        return settings


def flag(name: str) -> str:
    """The command-line spelling of a setting."""
    return "--" + name.replace("_", "-")


def describe(name: str) -> str:
    """What a setting means, from the annotation where it is defined."""
    return str(_meta(name).description)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser one option per setting, with its default, its reason and its environment names."""
    for name, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        seed = f", {SEED_NAMES[name]}" if name in SEED_NAMES else ""
        if name in SECRETS:
            variables = f"{PREFIX}{name.upper()}{seed} (or a file named by ..._FILE)"
            parser.epilog = f"{parser.epilog or 'Only from the environment:'} {variables}: {describe(name)}."
            continue
        parser.add_argument(
            flag(name),
            dest=name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{describe(name)} (default: {str(default) or 'empty'}; environment: {PREFIX}{name.upper()}{seed})".replace("%", "%%"),
        )


def from_command_line(arguments: Sequence[tuple[str, Any]], environ: Mapping[str, str]) -> Settings:
    """The settings of a parsed command line; see `Settings.load` for the errors."""
    return Settings.load(environ, {name: str(value) for name, value in arguments})


def _check(settings: Settings) -> None:
    """What no single setting can say."""
    if settings.max_rows > settings.max_queue_size:
        raise SettingsError(f"max_rows={settings.max_rows}: so many rows never fit max_queue_size={settings.max_queue_size}")
    if settings.prediction_log and not settings.database_url:
        raise SettingsError("prediction_log needs database_url, expected HALFCORE_DATABASE_URL or DATABASE_URL")
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
                raise SettingsError(f"{variable} and {variable}{FILE} are both set, expected one of them")
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
