"""The settings in groups: each with its type and bounds, its default, and below it its unit, its
meaning and the default's reason.

`--help`, error messages and docs/operations.md show these docstrings as they are.
"""

import ast
import inspect
import sys
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where the server listens, and its connections."""

    host: str = "127.0.0.1"
    """address to listen on; loopback, because no access control is on by default"""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """TCP port; the port that the FastAPI services being replaced use"""
    grpc_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """TCP port of the Open Inference Protocol over gRPC, which the extra halfcore[grpc] installs;
    others use 8001; 0: none, because most clients speak HTTP"""
    admin_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """TCP port of health, metrics and the administrative routes, which answers while the other port
    refuses or its event loop stands still; the last two are then there alone; 0: none, because one
    port is simpler"""
    address_file: str = ""
    """file that gets the server's address, for the health check of a container; empty: none"""
    tls_certificate: str = ""
    """file with the server's certificate chain, PEM; empty: plain HTTP, because a proxy usually
    ends TLS"""
    tls_key: str = ""
    """file with the certificate's private key, PEM, without a password"""
    tls_oldest: Literal["1.2", "1.3"] = "1.3"
    """oldest version of TLS that clients may use, 1.2 or 1.3; 1.3, which all clients since 2018
    have"""
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """most open connections per worker, including idle ones; 0: 12,000, or what memory and nofile
    allow"""
    backlog: Annotated[int, Meta(ge=128, le=65535)] = 4096
    """connections waiting to be accepted; 8 s of 500 users/s (the kernel caps it at
    net.core.somaxconn)"""
    idle_timeout_s: Annotated[int, Meta(ge=1, le=60)] = 60
    """seconds until an idle connection is closed; the longest that granian allows, because users
    pause between requests"""
    connection_buffer_bytes: Annotated[int, Meta(ge=8192, le=1 << 22)] = 8192
    """read buffer per connection, bytes; the smallest that hyper allows, because 10,000 connections
    have one each"""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What a request may be."""

    max_in_flight: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """most predictions in progress per worker, then 503; 0: as many as connections, or what memory
    allows"""
    max_body_bytes: Annotated[int, Meta(ge=64, le=1 << 30)] = 4 << 20
    """largest request body, bytes; 10,000 records of 12 columns fit"""
    max_bytes_in_flight: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    """most bytes of large bodies, rows and answers in memory per worker, then 503; 0: half of what
    the memory limit leaves next to the connections, and room for one body at least"""
    body_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """seconds a client may take to send its body; then 408"""
    max_rows: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """most rows in one request, then 413"""
    server_timing: bool = False
    """report each stage's milliseconds in a Server-Timing header; off, because it is 70 bytes per
    answer"""


@dataclass(frozen=True, kw_only=True)
class ServedModels:
    """Which models are served."""

    bundles: Path = Path(".halfcore/bundles")
    """directory of bundles; where `model-export` writes by default"""
    default_model: str = ""
    """model that /predict serves; empty: the only model there is, or the only one that is
    followed"""
    fallback_model: str = ""
    """model that /predict serves if default_model leaves the choice open; the images name their
    example"""
    model_stage: str = ""
    """serve the default model only from a bundle exported as models:/NAME/STAGE; empty: from any"""
    bundle_keys: str = ""
    """file with Ed25519 public keys, PEM, one of which must have signed each bundle (`model-export
    export --signing-key`); read at the start; empty: bundles need no signature"""
    challengers: str = ""
    """models that shadow served ones or answer a share for them:
    NAME=SOURCE[;mode=canary][;share=0.1], separated by blanks or commas, SOURCE being version:N or
    models:/NAME@ALIAS; empty: none"""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Models that are followed in an MLflow registry."""

    follow: str = ""
    """models to follow in the registry, separated by blanks or commas: models:/NAME@ALIAS,
    OTHER=models:/NAME/STAGE; empty: none"""
    tracking_uri: str = ""
    """address of the MLflow server whose registry is followed; needed by `follow` alone"""
    tracking_token: str = ""
    """bearer token for the MLflow server; wins over user and password"""
    tracking_username: str = ""
    """user for the MLflow server, if it asks for one"""
    tracking_password: str = ""
    """that user's password"""
    tracking_ca_file: str = ""
    """file with certificates to trust for the MLflow server, PEM, or a folder that `openssl rehash`
    has indexed; empty: the system's"""
    tracking_workspace: Annotated[str, Meta(pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")] = ""
    """workspace of the MLflow server whose models are followed; a server without workspaces is then
    refused; empty: the server's default one"""
    follow_period_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """seconds between polls of the registry, varied by 20 %: how long a moved alias may take; every
    worker polls"""
    follow_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """timeout of one call of the registry's API, seconds; it runs in the background and delays no
    prediction"""
    follow_schema_changes: Literal["allow", "refuse"] = "allow"
    """refuse: keep the served version if the next one is not compatible with it (columns, their
    values, classes); allow: swap and warn, because whoever moves an alias decides"""
    follow_rollback: Literal["allow", "refuse"] = "allow"
    """refuse: keep the served version if the next one's bundle was made before it, also over a
    restart; allow: because moving an alias back is how a release is undone"""
    store: Path = Path(".halfcore/store")
    """directory in which bundles of followed models are kept; must be writable"""
    keep_versions: Annotated[int, Meta(ge=2, le=1000)] = 4
    """bundles to keep in the store per model: the served one, the one before, and two older ones to
    go back to"""
    max_bundle_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    """largest model.onnx that is downloaded, MiB; a forest needs many times its file size while it
    loads"""
    download_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 600.0
    """seconds for one file of a bundle; 1 GiB at 2 MB/s fits"""
    sandbox_memory_mb: Annotated[int, Meta(ge=64, le=1 << 20)] = 2048
    """most memory of the sandbox, the process that tries a new bundle, MiB; less if the memory
    limit leaves less"""
    sandbox_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    """timeout of the sandbox, seconds; then the bundle is refused: its model may never answer"""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask for predictions, and who may use the administrative routes."""

    api_keys: str = ""
    """file with the hashes of the API keys, one of which every prediction then needs (`halfcore
    key` makes one); read again when it changes; empty: predictions need no key"""
    admin_token: str = ""
    """bearer token for POST /models/NAME/reload; empty: there is no such route"""
    webhook_secret: str = ""
    """secret with which MLflow signs POST /webhooks/mlflow; empty: there is no such route"""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows of several requests become one run of the model."""

    max_batch_size: Annotated[int, Meta(ge=1, le=65536)] = 128
    """most rows in one session.run; more than 128 gain nothing per row"""
    max_queue_size: Annotated[int, Meta(ge=1, le=100_000_000)] = 20_000
    """most rows waiting per model, then 503; two bulk requests of the largest size"""
    max_queue_delay_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """milliseconds a row waits for other requests; 0: one turn of the event loop, because waiting
    longer gains less than it costs"""
    solo_after_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.1
    """run a row immediately if it arrives at least this many milliseconds after one that ran alone;
    0: never"""
    queue_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """seconds a row may wait for inference, then 503; the client has given up by then"""
    queue_target_ms: Annotated[float, Meta(ge=0, le=60_000)] = 0.0
    """longest wait in a queue that has stood for half a second, milliseconds, then 503; 0:
    queue_timeout_s alone, because refusing costs more than it saves unless rows are expensive"""
    inline_budget_ms: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    """batches expected to take less run on the event loop, which they block; more expensive ones
    cost a thread switch"""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Worker processes, and how they use the CPU."""

    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    """worker processes, each with its own copy of the models; 0: as many as whole cores of CPU
    quota"""
    pin_cpu: Literal["auto", "on", "off"] = "auto"
    """run each worker on one CPU: on, off or auto; auto: if the server may use one core at most"""
    batch_scheduling: Literal["auto", "on", "off"] = "auto"
    """run workers as SCHED_BATCH: on, off or auto; auto: if each of them runs on one CPU"""
    coalesce: Literal["auto", "on", "off"] = "auto"
    """let requests gather while much of the CPU quota is used: on, off or auto; auto: if the server
    may use one core at most and has one worker"""
    coalesce_above: Annotated[float, Meta(gt=0, le=0.8)] = 0.3
    """share of the CPU quota that may be used before requests gather; 0.3 leaves room for three
    times the load"""
    coalesce_delay_ms: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """longest time that requests then gather, milliseconds; 0: 2 divided by the CPU quota, at most
    20"""
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    """event loop, uvloop or asyncio; uvloop costs less per request"""
    hot_lane: bool = True
    """answer predictions over RSGI instead of the ASGI app, which costs less CPU time; false:
    everything through ASGI"""


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """How the server ends after SIGTERM."""

    drain_timeout_s: Annotated[int, Meta(ge=1, le=1800)] = 25
    """seconds that accepted requests may take after SIGTERM; less than the 30 after which Docker
    and Kubernetes kill"""
    predrain_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    """seconds between SIGTERM, when readiness becomes 503, and the end of the listener; 0: none,
    because only a load balancer needs it"""


@dataclass(frozen=True, kw_only=True)
class FeatureCatalogue:
    """PostgreSQL, and the feature catalogue in it."""

    database_url: Annotated[str, Meta(pattern="^(postgres(ql)?://.*)?$")] = ""
    """postgresql://USER:PASSWORD@HOST:PORT/DATABASE of the feature catalogue; empty: bundles
    describe themselves"""
    database_pooler: Literal["none", "session", "transaction"] = "none"
    """what is between the server and PostgreSQL; transaction: a pooler such as PgBouncer with
    pool_mode = transaction, without prepared statements and notifications; session: a pooler that
    keeps sessions; none: nothing, or unknown"""
    database_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """timeout of a connection to the database or a statement, seconds; no request waits for it"""
    catalog_refresh_s: Annotated[float, Meta(gt=0, le=86400)] = 30.0
    """seconds between reads of the feature catalogue without a notification; each finds out whether
    the connection still works"""
    state: Path = Path(".halfcore/state")
    """directory of what is kept over a restart: the last good feature catalogue; next to the
    bundles"""


@dataclass(frozen=True, kw_only=True)
class PredictionLogging:
    """The log of predictions in PostgreSQL."""

    prediction_log: bool = False
    """write every answered prediction to PostgreSQL (database_url); off, because it needs a
    database"""
    prediction_log_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """part of the predictions that is logged, chosen at random; all of them, so that none is
    missing"""
    prediction_log_inputs: bool = True
    """log the JSON of the requests; false: leave it out, if it is personal data"""
    prediction_log_spool: Path = Path(".halfcore/spool")
    """directory for predictions while PostgreSQL cannot be reached; on a disk that is kept over a
    restart"""
    prediction_log_spool_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 44)] = 1 << 30
    """largest size of that directory, bytes; 3.5 million predictions of iris"""
    prediction_log_memory_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 34)] = 16 << 20
    """memory for predictions that are not written yet, bytes per worker; 30,000 of iris"""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The server's log and its measuring routes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """lowest level that is logged: debug, info, warning or error"""
    log_format: Literal["text", "json"] = "text"
    """text, or json: one object per line, for machines"""
    bench_routes: bool = False
    """answer GET and POST /bench/null, and POST /bench/decode; off, because only the load lab needs
    them"""
    home_page: bool = True
    """GET / is a page that shows the models, tries them and shows the live figures; false: it leads
    to /docs"""


GROUPS = (
    Network,
    Requests,
    ServedModels,
    Registry,
    Access,
    Batching,
    Processes,
    Stopping,
    FeatureCatalogue,
    PredictionLogging,
    Diagnosis,
)
"""In the order of `--help` and docs/operations.md."""


@dataclass(frozen=True, kw_only=True)
class Settings(
    Diagnosis,  # dataclasses take the fields of the last base first
    PredictionLogging,
    FeatureCatalogue,
    Stopping,
    Processes,
    Batching,
    Access,
    Registry,
    ServedModels,
    Requests,
    Network,
):
    """All settings of the server. Each is read from `HALFCORE_` + its name in capitals."""


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}
"""Setting → default, in the order of the groups."""


@cache
def descriptions() -> dict[str, str]:
    """Setting → its docstring, read from this module's source; for `--help` and error messages."""
    tree = ast.parse(inspect.getsource(sys.modules[__name__]))
    found = {}
    for group in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in pairwise(group.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return found
