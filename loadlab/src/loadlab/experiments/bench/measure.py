"""One server, one model, one regime, once: start it in its group, load it, and read what it used;
and the stored form of the rounds of bench, ablation and ladder, one JSON file for each run. A
figure that is in no stored run is in no document."""

import argparse
import os
import subprocess
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from loadlab.experiments import runner
from loadlab.experiments.bench.forms import asked
from loadlab.experiments.bench.subjects import (
    Place,
    Subject,
    catalogue_missing,
    prepare_log,
    rows_doubt,
)
from loadlab.experiments.runner import Experiment, R
from loadlab.generator.epoll import Counted, Outcome, Pace, Plan, Regime
from loadlab.generator.http import ask, post
from loadlab.parser import did_you_mean
from loadlab.record import machine
from loadlab.record.cgroup import Group, Limits, Memory, Usage
from loadlab.record.machine import Quiet
from loadlab.target.process import CannotStart, Running, free_port, running
from loadlab.target.programs import Case

T = TypeVar("T")
_CLIENT_GRACE_S = 60.0
_MIN_SERVER_CORES = 0.9
_MAX_LAG_MS = 5.0
_MAX_CLIENT_CORES = 0.9
_MAX_FOREIGN_CORES = 0.15
_MAX_STEAL = 0.01


class Load(Pace, frozen=True, kw_only=True):
    """What was asked of every server in one regime."""

    limits: Limits
    server_cpus: str
    """CPUs that the server was held to; empty: all."""
    rows: Literal["one", "golden"] = "one"
    """saturated: one row asked again and again, or all of the bundle's golden rows in turn."""


class Figures(Counted, frozen=True, kw_only=True):
    """What one round measured, in its window."""

    usage: Usage
    memory: Memory
    client_cpu: int
    """The CPU that the client was held to."""
    client_cores: float
    foreign_cores: float
    """CPU time of everything but server, client and what works for the server, per second."""
    steal: float
    doubts: list[str]
    """What makes this round less than trustworthy: a busy generator, others on the machine."""
    helper_cores: float = msgspec.field(default=0.0, name="beside_cores")
    """CPU time of the database that the server logs into, per second; not charged to the server."""

    @property
    def cpu_us(self) -> float:
        """The server's CPU time per right answer, microseconds."""
        return self.usage.cpu_s / self.requests * 1e6

    @property
    def failed(self) -> int:
        """Failures from the first connection on."""
        return sum(self.failures.values()) + sum(self.failures_before.values())


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One server measured once, or why it could not be."""

    server: str
    model: str
    regime: Regime
    number: int
    environment: dict[str, str] = {}
    """What of the server's environment the lab set."""
    figures: Figures | None = None
    reason: str = ""
    """Without figures: why."""


class Measured(Experiment[R], Generic[R], frozen=True, kw_only=True):
    """One invocation of the lab; its form is older than other experiments'."""

    format: int = 1
    kind: str = msgspec.field(name="what")

    quick: bool = False
    """A smoke test: its figures say that the tool works, nothing about the servers."""

    @property
    def about(self) -> str:
        """Whether it is a smoke test, and the commit."""
        commit = self.fingerprint.commit[:8] or "nocommit"
        dirty = "-dirty" if self.fingerprint.dirty else ""
        return f"{'quick-' if self.quick else ''}{commit}{dirty}"


class Run(Measured[Round], frozen=True, kw_only=True):
    """Of bench, ablation, ladder or protocols; the seed orders the servers within each round, and
    draws the think times."""

    kind: Literal["bench", "ablate", "ladder", "protocols", "peers"] = msgspec.field(name="what")
    quiet: Quiet
    loads: list[Load]
    rows: list[Round] = msgspec.field(name="rounds", default_factory=list)


def latest(folder: Path, what: str, model: str = "") -> Path | None:
    """The newest stored run of a kind that is no smoke test; with a model: that measured it."""
    files = sorted(folder.glob(f"*-{what}-*.json"), reverse=True)
    real = (file for file in files if "-quick-" not in file.name)
    return next((file for file in real if not model or _measured(file, model)), None)


def _measured(file: Path, model: str) -> bool:
    return any(each.model == model and each.figures for each in runner.load(file, Run).rows)


class Refused(RuntimeError):
    """The run would prove nothing; the message says why, and what would help."""


def check_rounds(rounds: int) -> None:
    """Raises `Refused` for none: a run without figures would be the newest that the pages show."""
    if rounds < 1:
        raise Refused(f"--rounds {rounds}: expected at least 1")


def check_cpus() -> None:
    """Raises `Refused` where server and client cannot have a CPU each."""
    usable = machine.usable_cpus()
    if len(usable) < 2:
        raise Refused(
            f"server and client need a CPU each, and this process may use only CPU {usable[0]}: "
            "give it a second one (`taskset`, the container's CPUs), or use a larger machine"
        )


def server_cpu() -> str:
    """The first CPU that the lab may use, to which a server under full load is held."""
    return str(machine.usable_cpus()[0])


def known(wanted: Sequence[str], there: Mapping[str, T], what: str = "") -> list[T]:
    """What has these names; raises `Refused`, with the known ones."""
    if unknown := [name for name in wanted if name not in there]:
        meant = did_you_mean(unknown[0], there)
        kind = f"unknown {what}".rstrip()
        raise Refused(f"{kind}: {', '.join(unknown)}; there are {', '.join(there)}{meant}")
    return [there[name] for name in wanted]


def watched(asked: argparse.Namespace) -> Quiet:
    """How quiet the machine is; raises `Refused` if others use it, unless the run was asked for all
    the same."""
    quiet = machine.watch()
    if quiet.reasons and not (asked.despite_noise or asked.quick):
        raise Refused(
            f"the machine is not quiet: {'; '.join(quiet.reasons)}. Wait, or accept doubtful "
            "figures with --despite-noise"
        )
    return quiet


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
    return Round(
        server=subject.key,
        model=case.model,
        regime=load.regime,
        number=number,
        environment=dict(subject.environment),
        figures=found,
        reason=reason,
    )


def loaded(server: Running, plan: Plan, load: Load) -> tuple[Figures | None, str]:
    """Carry out a plan against a server that runs: what it measured, or why it measured nothing.
    Raises `ClientFailed`."""
    try:
        outcome, memory, cpu = _driven(server, plan)
    except _NoFigures as error:
        return None, str(error)
    return figures(outcome, outcome.memory or memory, load, client_cpu=cpu), ""


def _driven(server: Running, plan: Plan) -> tuple[Outcome, Memory, int]:
    """What the client found, the server's memory after it, and the client's CPU; raises
    `_NoFigures`, `ClientFailed`."""
    cpu = _client_cpu(server.group)
    outcome, memory = _load(plan, cpu), server.group.memory()
    if (code := server.process.poll()) is not None:
        raise _NoFigures(f"ended with {code} under load; {_failures(outcome)}")
    if not outcome.requests:
        raise _NoFigures(f"answers nothing in these limits; {_failures(outcome)}")
    return outcome, memory, cpu


def line(found: Round) -> str:
    """One round for the terminal."""
    name = f"{found.number} {found.regime:9} {found.model:12} {found.server:16}"
    if (figures := found.figures) is None:
        return f"{name} {found.reason}"
    rate, latency = figures.requests / figures.seconds, figures.response.quantiles_ms
    doubts = f"  doubtful: {'; '.join(figures.doubts)}" if figures.doubts else ""
    return (
        f"{name} {figures.cpu_us:8.1f} µs/request {rate:8.0f}/s p50 {latency['p50']:.2f} p99 "
        f"{latency['p99']:.2f} ms, {figures.failed} failures{doubts}"
    )


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
    start = partial(
        running,
        port=port,
        limits=load.limits,
        cpus=load.server_cpus,
        ready_timeout_s=subject.ready_timeout_s,
    )
    with start(subject.label, subject.command(place, case, port)) as server:
        plan = Plan(
            port=port,
            **asked(subject, case),
            others=case.others if load.rows == "golden" else (),
            seed=seed,
            group=server.group.name,
            helper_group=place.log.group.name if logs and place.log else "",
            **{name: getattr(load, name) for name in Pace.__struct_fields__},
        )
        _first_answer(plan)
        if logs and (reason := catalogue_missing(case, port)):
            raise _NoFigures(reason)
        outcome, memory, cpu = _driven(server, plan)
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
    saturated, lag_ms = (
        load.regime in ("saturated", "crowd", "bulk"),
        outcome.lag.quantiles_ms["p99"],
    )
    late = client > _MAX_CLIENT_CORES or lag_ms > _MAX_LAG_MS
    doubts = {
        doubt: bool(doubt),
        f"others used {foreign:.2f} cores": foreign > _MAX_FOREIGN_CORES,
        f"the hypervisor stole {steal:.1%}": steal > _MAX_STEAL,
        f"not saturated: the server used {server:.2f} cores, the client {client:.2f}": (
            saturated and server < _MIN_SERVER_CORES
        ),
        f"the client was late: {client:.2f} cores, lag p99 {lag_ms:.1f} ms": (
            load.regime == "sparse" and late
        ),
    }
    counted: dict[str, Any] = {name: getattr(outcome, name) for name in Counted.__struct_fields__}
    return Figures(
        **counted,
        usage=outcome.server,
        memory=memory,
        client_cpu=client_cpu,
        client_cores=client,
        foreign_cores=foreign,
        steal=steal,
        doubts=[text for text, holds in doubts.items() if holds],
        helper_cores=helper,
    )


def _first_answer(plan: Plan) -> bytes:
    """The body of the server's first answer; raises `_NoFigures` if it is wrong."""
    request = post(
        (plan.host, plan.port),
        plan.path,
        plan.body,
        binary=b64decode(plan.binary),
        length_header=plan.length_header,
    )
    try:
        status, body = ask(plan.host, plan.port, request, timeout_s=plan.timeout_s)
    except (OSError, ValueError) as error:
        raise _NoFigures(f"does not answer in these limits: {error}") from None
    if status != 200 or not body.startswith(plan.prefix.encode()):
        said = body[:200].decode(errors="replace")
        raise _NoFigures(f"answers wrongly: {status} {said}, expected {plan.prefix}…")
    return body


def _client_cpu(group: Group) -> int:
    """The last CPU that no process of the server is held to: a server below one core may have
    chosen one for itself."""
    cpus = machine.usable_cpus()
    allowed = [os.sched_getaffinity(pid) for pid in group.processes()]
    held = {cpu for each in allowed if len(each) == 1 for cpu in each}
    return max((cpu for cpu in cpus if cpu not in held), default=cpus[-1])


def _load(plan: Plan, cpu: int) -> Outcome:
    """Run the client as a separate process, on one CPU."""
    opening_s = plan.connections / plan.rate if plan.regime == "sparse" else 0.0
    timeout_s = opening_s + plan.warmup_s + plan.seconds + plan.timeout_s + _CLIENT_GRACE_S
    client = [sys.executable, "-m", "loadlab.generator.epoll"]
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
