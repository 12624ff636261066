"""One server, one model, one regime, once: start it in its group, load it, and read what it used.

The real servers that some of the measured ones use are started here too, on loopback: a PostgreSQL
for prediction log and feature catalogue, with the proof that both were used, and an MLflow server
and a PostgreSQL that the first baselines ask on every request. They run in control groups of their
own, on the client's CPU: in production registry and database are on other machines, so their work
is not charged to the measured server. What the server itself spends on them is in its figures.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from loadlab.experiments.bench.stored import Figures, Load, Round
from loadlab.experiments.bench.subjects import Place, Subject
from loadlab.generator.epoll import Outcome, Plan
from loadlab.generator.http import ask, post
from loadlab.record.cgroup import Limits, Memory
from loadlab.target.cgroup import Group
from loadlab.target.process import CannotStart, Command, free_port, running
from loadlab.target.programs import Case, baseline_program, clean_environment

_CLIENT_GRACE_S, _HELPER_START_S = 60.0, 120.0
_MIN_SERVER_CORES = 0.9
_MAX_LAG_MS = 5.0
_MAX_CLIENT_CORES = 0.9
_MAX_FOREIGN_CORES = 0.15
_MAX_STEAL = 0.01
_ASKED = ("regime", "connections", "seconds", "warmup_s", "timeout_s", "rate", "think_s")
"""Fields that the client's plan has from the load."""
_FOUND = ("requests", "seconds", "failures", "failures_before", "response", "lag")
"""Fields that the figures have from the client's outcome."""
_SQLITE = "sqlite:///"
_BOUNDED = ("number", "integer")
_WIDE = 1 << 53
"""Bounds that no row of a case exceeds: the catalogue is applied, and refuses nothing. Beyond it an
integer column takes none."""

_helping = partial(
    running,
    limits=Limits(),
    cpus=str((os.cpu_count() or 1) - 1),
    ready_timeout_s=_HELPER_START_S,
)


class ClientFailed(RuntimeError):
    """The load client could not do its work: a fault of the lab or the machine, not of the
    server."""


class _NoFigures(Exception):
    """The server cannot carry the load in its limits; the message is the round's reason."""


def measure(
    place: Place, subject: Subject, case: Case, load: Load, *, number: int, seed: int
) -> Round:
    """Measure once; a server that cannot carry the load in its limits is a result too."""
    found, reason = None, ""
    try:
        found = _measure(place, subject, case, load, seed)
    except _NoFigures as error:
        reason = str(error)
    except CannotStart as error:
        reason = f"cannot start in these limits: {error}".replace(f"{place.root}/", "")
    except (ClientFailed, OSError) as error:  # one round is lost; the others of a long run are not
        reason = f"the lab failed: {error}"
    label = Round(server=subject.key, model=case.model, regime=load.regime, number=number)
    settings = dict(subject.environment)
    return msgspec.structs.replace(label, environment=settings, figures=found, reason=reason)


def answer_of(place: Place, subject: Subject, case: Case) -> bytes:
    """The body of a server's answer to the case, in a process without limits; raises
    `CannotStart`."""
    port = free_port()
    plan = Plan(regime="saturated", port=port, body=case.body, prefix=case.prefix)
    with running("first", subject.command(place, case, port), port=port, limits=Limits()):
        try:
            return _first_answer(plan)
        except _NoFigures as error:
            raise CannotStart(f"{case.model}: {error}") from None


def _measure(place: Place, subject: Subject, case: Case, load: Load, seed: int) -> Figures:
    port, logs = free_port(), "log" in subject.needs
    if logs:
        prepare_log(place, case)
    label = "".join(letter if letter.isalnum() else "-" for letter in subject.key).lower()
    start = partial(running, port=port, limits=load.limits, cpus=load.server_cpus)
    with start(label, subject.command(place, case, port)) as server:
        plan = Plan(
            port=port,
            path=subject.path,
            body=case.body,
            prefix=subject.prefix or case.prefix,
            others=case.others if load.rows == "golden" else (),
            seed=seed,
            group=server.group.name,
            helper_group=place.log.group.name if logs and place.log else "",
            **{name: getattr(load, name) for name in _ASKED},
        )
        _first_answer(plan)
        if logs and (reason := _catalogue_missing(case, port)):
            raise _NoFigures(reason)
        cpu = _client_cpu(server.group)
        outcome, memory = _load(plan, cpu), server.group.memory()
        if (code := server.process.poll()) is not None:
            raise _NoFigures(f"ended with {code} under load; {_failures(outcome)}")
    if not outcome.requests:
        raise _NoFigures(f"answers nothing in these limits; {_failures(outcome)}")
    # The log's last rows are written by the server's end; the first answer is the lab's, before
    # the client's.
    answers = 1 + outcome.requests_before + outcome.requests
    doubt = rows_doubt(place, answers=answers, open_at_end=load.connections) if logs else ""
    return figures(outcome, memory, load, client_cpu=cpu, doubt=doubt)


def figures(
    outcome: Outcome, memory: Memory, load: Load, *, client_cpu: int, doubt: str = ""
) -> Figures:
    """Put together what client, group and machine say; `doubt` is one that is known already."""
    if outcome.server is None:
        raise ClientFailed("the client read no control group")
    times_s = outcome.client_cpu_s, outcome.server.cpu_s, outcome.helper_cpu_s
    client, server, helper = (time_s / outcome.seconds for time_s in times_s)
    foreign = max(outcome.machine.busy_s / outcome.seconds - client - server - helper, 0.0)
    steal = outcome.machine.steal_s / max(outcome.machine.total_s, 1e-9)
    found: dict[str, Any] = {name: getattr(outcome, name) for name in _FOUND}
    measured = Figures(
        **found,
        usage=outcome.server,
        memory=memory,
        client_cpu=client_cpu,
        client_cores=client,
        foreign_cores=foreign,
        steal=steal,
        doubts=[doubt] if doubt else [],
        helper_cores=helper,
    )
    measured.doubts.extend(_doubts(measured, load, server))
    return measured


def _doubts(found: Figures, load: Load, server_cores: float) -> list[str]:
    """What makes a round less than trustworthy."""
    client_cores, lag_ms = found.client_cores, found.lag.quantiles_ms["p99"]
    late = client_cores > _MAX_CLIENT_CORES or lag_ms > _MAX_LAG_MS
    doubts = {
        f"others used {found.foreign_cores:.2f} cores": found.foreign_cores > _MAX_FOREIGN_CORES,
        f"the hypervisor stole {found.steal:.1%}": found.steal > _MAX_STEAL,
        f"not saturated: the server used {server_cores:.2f} cores, the client {client_cores:.2f}": (
            load.regime == "saturated" and server_cores < _MIN_SERVER_CORES
        ),
        f"the client was late: {client_cores:.2f} cores, lag p99 {lag_ms:.1f} ms": (
            load.regime == "sparse" and late
        ),
    }
    return [text for text, holds in doubts.items() if holds]


def _first_answer(plan: Plan) -> bytes:
    """The body of the server's first answer; raises `_NoFigures` if it is wrong."""
    try:
        status, body = ask(
            plan.host,
            plan.port,
            post((plan.host, plan.port), plan.path, plan.body),
            timeout_s=plan.timeout_s,
        )
    except (OSError, ValueError) as error:
        raise _NoFigures(f"does not answer in these limits: {error}") from None
    if status != 200 or not body.startswith(plan.prefix.encode()):
        said = body[:200].decode(errors="replace")
        raise _NoFigures(f"answers wrongly: {status} {said}, expected {plan.prefix}…")
    return body


def _client_cpu(group: Group) -> int:
    """The last CPU that no process of the server is held to: a server below one core may have
    chosen one for itself."""
    cpus = range(os.cpu_count() or 1)
    allowed = [os.sched_getaffinity(pid) for pid in group.processes()]
    held = {cpu for each in allowed if len(each) == 1 for cpu in each}
    return max((cpu for cpu in cpus if cpu not in held), default=cpus[-1])


def _load(plan: Plan, cpu: int) -> Outcome:
    """Run the client as a separate process, on one CPU."""
    opening_s = plan.connections / plan.rate if plan.regime == "sparse" else 0.0
    timeout_s = opening_s + plan.warmup_s + plan.seconds + plan.timeout_s + _CLIENT_GRACE_S
    client = [sys.executable, "-m", "loadlab.generator.epoll", "-"]
    try:
        done = subprocess.run(  # noqa: S603
            ["taskset", "--cpu-list", str(cpu), *client],  # noqa: S607
            input=msgspec.json.encode(plan),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"the client did not end within {timeout_s:.0f} s") from None
    if done.returncode:
        raise ClientFailed(done.stderr.decode(errors="replace").strip()[-500:])
    return msgspec.json.decode(done.stdout, type=Outcome)


def _failures(outcome: Outcome) -> str:
    counts = Counter(outcome.failures) + Counter(outcome.failures_before)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no failures"


@contextmanager
def with_log(place: Place) -> Iterator[Place]:
    """Start PostgreSQL, apply halfcore's migrations, and yield the place with it; raises
    `CannotStart`, `cgroup.Unavailable`."""
    port = free_port()
    command = baseline_program(place.root, "rival.database", "serve", "--port", str(port))
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
    command = baseline_program(place.root, "rival.surroundings", *words)
    with _helping("surroundings", command, port=registry):
        # The registry's first seconds are busy, and would be the first server's noise.
        time.sleep(1.0)
        url = url or f"postgresql+psycopg://rival@127.0.0.1:{database}/postgres"
        uri = uri or f"http://127.0.0.1:{registry}"
        yield replace(place, tracking_uri=uri, database=url)


HELPERS = {"surroundings": with_surroundings, "log": with_log}
"""By the need of a subject."""


def prepare_log(place: Place, case: Case) -> None:
    """Empty the log, and give each of the model's numbers bounds in the catalogue."""
    manifest = json.loads((case.bundle / "manifest.json").read_text())
    values = ", ".join(
        f"({_quoted(manifest['name'])}, {_quoted(column['name'])}, {-_WIDE}, {_WIDE})"
        for column in manifest["inputs"]
        if column["kind"] in _BOUNDED
    )
    _query(place, "TRUNCATE halfcore.prediction_log; TRUNCATE halfcore.feature_catalogue")
    if values:
        names = "model, column_name, minimum, maximum"
        _query(place, f"INSERT INTO halfcore.feature_catalogue ({names}) VALUES {values}")  # noqa: S608


def _catalogue_missing(case: Case, port: int) -> str:
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
    return _output(baseline_program(place.root, "rival.database", "ask", "--port", port, sql))


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
