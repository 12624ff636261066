"""The servers that are measured, from the tables of `subjects.toml`, and the real servers that some
of them use.

Those are a PostgreSQL for prediction log and feature catalogue, with the proof that both were used,
and an MLflow server and a PostgreSQL that the first baselines ask on every request. They run on
loopback in control groups of their own, on the client's CPU: in production registry and database
are on other machines, so their work is not charged to the measured server. What the server itself
spends on them is in its figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from loadlab.bundles import read_manifest
from loadlab.generator.epoll import Regime
from loadlab.generator.http import ask
from loadlab.record import machine
from loadlab.record.cgroup import Limits
from loadlab.target import peers, programs
from loadlab.target.process import CannotStart, Command, Running, free_port, running
from loadlab.target.programs import Case, baseline_program, clean_environment

REGIMES: tuple[Regime, ...] = ("saturated", "sparse")
PEER_REGIMES: tuple[Regime, ...] = ("single", "saturated", "crowd", "bulk", "sparse")
"""In the order in which one started server carries them."""
Form = Literal["own", "instances", "tensor", "binary", "rows", "listed", "v2", "inputs"]
"""Of the request: see `forms`; the last four are other servers'."""
Need = Literal["baseline", "surroundings", "log"]
_START_S, _HELPER_START_S, _PEER_START_S = 60.0, 120.0, 180.0
"""Until a server is ready; one that imports MLflow may be slow where its modules are not compiled
yet."""
_SQLITE = "sqlite:///"
_BOUNDED = ("number", "integer")
_WIDE = 1 << 53
"""Bounds that no row of a case exceeds: the catalogue is applied, and refuses nothing. Beyond it an
integer column takes none."""


@dataclass(frozen=True)
class Place:
    """Where things are on this machine."""

    root: Path
    """The checkout."""
    tracking_uri: str
    scratch: Path
    """A temporary directory of this run."""
    database: str = ""
    """URL of the PostgreSQL that some baselines ask on every request."""
    log: Running | None = None
    """The PostgreSQL that takes the prediction log, alone in its control group."""

    def answer_file(self, model: str) -> Path:
        """Holds the body that halfcore answered, for the null server to repeat."""
        return self.scratch / f"{model}.answer"

    @property
    def log_url(self) -> str:
        """As halfcore takes it; empty without a log."""
        return f"postgresql://baseline@127.0.0.1:{self.log.port}/postgres" if self.log else ""


class Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server of a comparison; `subjects.toml` says what the fields mean."""

    key: str
    says: str = ""
    program: Literal["halfcore", "null_server", "baseline", "peer"] = "halfcore"
    words: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    needs: tuple[Need, ...] = ()
    path: str = "/predict"
    form: Form = "own"
    prefix: str = ""
    """How a right answer begins, where it is not a prediction."""
    regimes: tuple[Regime, ...] = REGIMES
    left_out: str = "at saturation it answers far fewer requests than this load asks for"
    question: str = ""
    against: str = "default"
    docs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in words."""
        settings = (f"`HALFCORE_{name}={value}`" for name, value in self.settings.items())
        return self.says or " ".join(settings)

    @property
    def label(self) -> str:
        """Of its control group."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.key).lower()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the lab sets besides port and bundles; stored with the figures."""
        if self.program != "halfcore" and self.words[:1] != (peers.OURS,):
            return {}
        settings = {"WORKERS": "1"} | self.settings
        return {f"HALFCORE_{name}": value for name, value in settings.items()}

    @property
    def ready_timeout_s(self) -> float:
        """How long it may take to start."""
        longer = {"baseline": _HELPER_START_S, "peer": _PEER_START_S}
        return longer.get(self.program, _START_S)

    def command(self, place: Place, case: Case, port: int) -> Command:
        """Starts it for one model."""
        root = place.root
        if self.program == "null_server":
            return programs.null_server(root, place.answer_file(case.model), port, *self.words)
        if self.program == "baseline":
            uri, url = place.tracking_uri, place.database
            return programs.baseline(
                root, self.words[0], case, port, tracking_uri=uri, database=url
            )
        if self.program == "peer":
            return peers.command(
                root,
                self.words[0],
                case,
                port,
                scratch=place.scratch,
                settings=self.words[-1],
                ours=self.environment,
            )
        environment = dict(self.environment)
        if "log" in self.needs:
            scratch = place.scratch / f"{self.key}-{port}"
            environment["HALFCORE_PREDICTION_LOG_SPOOL"] = str(scratch / "spool")
            environment["HALFCORE_STATE"] = str(scratch / "state")
            environment["DATABASE_URL"] = place.log_url
        return programs.halfcore(root, case.bundle.parent.parent, port, environment)


_TABLES = msgspec.toml.decode(
    Path(__file__).with_name("subjects.toml").read_bytes(), type=dict[str, list[Subject]]
)
SUBJECTS = {subject.key: subject for subject in _TABLES["bench"]}
VARIANTS = {subject.key: subject for subject in _TABLES["ablate"]}
PROTOCOLS = {subject.key: subject for subject in _TABLES["protocol"]}
PEERS = {subject.key: subject for subject in _TABLES["peer"]}
LADDER, ENDPOINTS = _TABLES["step"], _TABLES["endpoint"]
STEPS = {subject.key: subject for subject in [*LADDER, *ENDPOINTS]}
OURS = SUBJECTS["b"]
HEAVY, BOOSTED = "cover-heavy", "cover-lightgbm"
MODELS = ("cover-small", "cover-middle", HEAVY)
"""Of the ablation: tiny, middle and heavy."""
QUESTIONS = tuple(
    (variant, regime)
    for variant in VARIANTS.values()
    for regime in variant.regimes
    if variant.question
)
"""Variants that differ in one thing from the default, or from another variant, and where that is
measured: the difference justifies the default or does not."""


def _helping(label: str, command: Command, *, port: int) -> AbstractContextManager[Running]:
    """Starts what works for servers, on the last CPU, which no server is held to."""
    return running(
        label,
        command,
        port=port,
        limits=Limits(),
        cpus=str(machine.usable_cpus()[-1]),
        ready_timeout_s=_HELPER_START_S,
    )


@contextmanager
def with_log(place: Place) -> Iterator[Place]:
    """Start PostgreSQL, apply halfcore's migrations, and yield the place with it; raises
    `CannotStart`, `cgroup.Unavailable`."""
    port = free_port()
    command = baseline_program(place.root, "baseline.database", "serve", "--port", str(port))
    with _helping("database", replace(command, ready_path=""), port=port) as server:
        found = replace(place, log=server)
        environment = clean_environment() | {"DATABASE_URL": found.log_url}
        migrate = [sys.executable, "-m", "halfcore", "migrate"]
        # PostgreSQL takes connections a moment before it answers.
        _output(Command(migrate, environment, place.root), patience_s=_HELPER_START_S)
        yield found


@contextmanager
def with_surroundings(place: Place) -> Iterator[Place]:
    """Start MLflow and PostgreSQL, and yield the place with their addresses;
    `BASELINE_TRACKING_URI` and `BASELINE_DATABASE_URL` name others instead. Raises `CannotStart`,
    also if the registry is no SQLite file to serve, and `cgroup.Unavailable`."""
    uri, url = os.environ.get("BASELINE_TRACKING_URI"), os.environ.get("BASELINE_DATABASE_URL")
    if uri and url:
        yield replace(place, tracking_uri=uri, database=url)
        return
    if not place.tracking_uri.startswith(_SQLITE):
        raise CannotStart(
            f"registry {place.tracking_uri}: expected {_SQLITE}FILE, or BASELINE_TRACKING_URI and "
            "BASELINE_DATABASE_URL"
        )
    registry, database = free_port(), free_port()
    ports = ["--mlflow-port", str(registry), "--postgres-port", str(database)]
    words = ["--store", place.tracking_uri.removeprefix(_SQLITE), *ports]
    command = baseline_program(place.root, "baseline.surroundings", *words)
    with _helping("surroundings", command, port=registry):
        # The registry's first seconds are busy, and would be the first server's noise.
        time.sleep(1.0)
        url = url or f"postgresql+psycopg://baseline@127.0.0.1:{database}/postgres"
        uri = uri or f"http://127.0.0.1:{registry}"
        yield replace(place, tracking_uri=uri, database=url)


HELPERS = {"surroundings": with_surroundings, "log": with_log}
"""By the need of a subject."""


def prepare_log(place: Place, case: Case) -> None:
    """Empty the log, and give each of the model's numbers bounds in the catalogue."""
    manifest = read_manifest(case.bundle)
    values = ", ".join(
        f"({_quoted(manifest['name'])}, {_quoted(column['name'])}, {-_WIDE}, {_WIDE})"
        for column in manifest["inputs"]
        if column["kind"] in _BOUNDED
    )
    _query(place, "TRUNCATE halfcore.prediction_log; TRUNCATE halfcore.feature_catalogue")
    if values:
        names = "model, column_name, minimum, maximum"
        _query(place, f"INSERT INTO halfcore.feature_catalogue ({names}) VALUES {values}")  # noqa: S608


def catalogue_missing(case: Case, port: int) -> str:
    """Why the running server does not apply the catalogue, or nothing."""
    head = f"GET /models/{case.model} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    status, body = ask("127.0.0.1", port, head.encode())
    columns = json.loads(body)["inputs"] if status == 200 else []
    sources = {column["source"] for column in columns if column["kind"] in _BOUNDED}
    if status == 200 and sources <= {"catalogue"}:
        return ""
    return f"the feature catalogue is not applied: {status} {body[:200].decode(errors='replace')}"


def rows_doubt(place: Place, *, answers: int, open_at_end: int) -> str:
    """What is wrong with the log after the server's end, or nothing: each right answer must have a
    row, and requests that were on the way when the client left may have one."""
    rows = int(_query(place, "SELECT count(*) FROM halfcore.prediction_log"))
    if answers <= rows <= answers + open_at_end:
        return ""
    return f"the log holds {rows:,} rows, expected {answers:,} (and at most {open_at_end} more)"


def _query(place: Place, sql: str) -> str:
    if place.log is None:
        raise CannotStart("no database was started for the prediction log")
    port = str(place.log.port)
    return _output(baseline_program(place.root, "baseline.database", "ask", "--port", port, sql))


def _output(command: Command, *, patience_s: float = 0.0) -> str:
    """What a program says, tried again while patience lasts; raises `CannotStart`."""
    deadline = time.monotonic() + patience_s
    where = {"cwd": command.folder, "env": command.environment}
    run = partial(subprocess.run, command.arguments, capture_output=True, text=True, **where)
    while (done := run()).returncode:
        if time.monotonic() > deadline:
            raise CannotStart(f"the log's database: {done.stderr.strip()[-300:]}")
        time.sleep(0.1)
    return done.stdout.strip()


def _quoted(text: str) -> str:
    """As SQL, for a driver to which a colon begins a parameter."""
    return "'" + text.replace("'", "''").replace(":", r"\:") + "'"
