"""One server, one model, one regime, once: start it in its group, load it, and read what it
used."""

import os
import subprocess
import sys

import msgspec

from loadlab.experiments.bench import recorded
from loadlab.experiments.bench.cases import Case
from loadlab.experiments.bench.subjects import Place, Subject
from loadlab.generator.epoll import Outcome, Plan
from loadlab.generator.http import ask, post
from loadlab.record.store import Figures, Load, Round
from loadlab.target.cgroup import Group, Limits, Memory
from loadlab.target.process import CannotStart, Running, free_port, running

_OK = 200
_CLIENT_GRACE_S = 60.0
_MIN_SERVER_CORES = 0.9
_MAX_LAG_MS = 5.0
_MAX_CLIENT_CORES = 0.9
_MAX_FOREIGN_CORES = 0.15
_MAX_STEAL = 0.01


class ClientFailed(RuntimeError):
    """The load client could not do its work: a fault of the lab or the machine, not of the
    server."""


def measure(
    place: Place, subject: Subject, case: Case, load: Load, *, number: int, seed: int
) -> Round:
    """Measure once; a server that cannot carry the load in its limits is a result too."""
    label = {
        "server": subject.key,
        "model": case.model,
        "regime": load.regime,
        "number": number,
        "environment": dict(subject.environment),
    }
    port = free_port()
    try:
        if subject.needs_database:
            recorded.prepare(place, case)
        command = subject.start(place, case, port)
        with running(
            _name(subject.key), command, port=port, limits=load.limits, cpus=load.server_cpus
        ) as server:
            plan = _plan(place, subject, case, load, server, seed)
            if reason := _wrong(plan) or (
                recorded.catalogue_missing(case, port) if subject.needs_database else ""
            ):
                return _round(label, None, reason)
            cpu = _client_cpu(server.group)
            outcome, memory = _load(plan, cpu), server.group.memory()
            if server.process.poll() is not None:
                return _round(
                    label,
                    None,
                    f"ended with {server.process.returncode} under load; {_failures(outcome)}",
                )
        # Its last rows are written by its end; the first answer is the lab's, before the client's.
        doubt = (
            recorded.rows_doubt(place, answers=_answers(outcome) + 1, open_at_end=load.connections)
            if subject.needs_database
            else ""
        )
    except CannotStart as error:
        return _round(
            label, None, f"cannot start in these limits: {error}".replace(f"{place.root}/", "")
        )
    except (ClientFailed, OSError) as error:  # one round is lost; the others of a long run are not
        return _round(label, None, f"the lab failed: {error}")
    if not outcome.requests:
        return _round(label, None, f"answers nothing in these limits; {_failures(outcome)}")
    return _round(label, figures(outcome, memory, load, client_cpu=cpu, doubt=doubt), "")


def first_answer(place: Place, subject: Subject, case: Case) -> bytes:
    """The body of a server's answer to the case, in a process without limits; raises
    `CannotStart`."""
    port = free_port()
    with running(_name(subject.key), subject.start(place, case, port), port=port, limits=Limits()):
        plan = Plan(regime="saturated", port=port, body=case.body, prefix=case.prefix)
        request = post((plan.host, port), plan.path, plan.body)
        status, body = ask(plan.host, port, request)
    if status != _OK or not body.startswith(case.prefix.encode()):
        raise CannotStart(
            f"{case.model}: answer is {status} {body[:200]!r}, expected {case.prefix}…"
        )
    return body


def figures(
    outcome: Outcome, memory: Memory, load: Load, *, client_cpu: int, doubt: str = ""
) -> Figures:
    """Put together what client, group and machine say; `doubt` is one that is known already."""
    if outcome.server is None:
        raise ClientFailed("the client read no control group")
    client_cores, server_cores = (
        outcome.client_cpu_s / outcome.seconds,
        outcome.server.cpu_s / outcome.seconds,
    )
    helper_cores = outcome.helper_cpu_s / outcome.seconds
    foreign_cores = max(
        outcome.machine.busy_s / outcome.seconds - client_cores - server_cores - helper_cores, 0.0
    )
    steal = outcome.machine.steal_s / max(outcome.machine.total_s, 1e-9)
    doubts = [doubt] if doubt else []
    if foreign_cores > _MAX_FOREIGN_CORES:
        doubts.append(f"others used {foreign_cores:.2f} cores")
    if steal > _MAX_STEAL:
        doubts.append(f"the hypervisor stole {steal:.1%}")
    if load.regime == "saturated" and server_cores < _MIN_SERVER_CORES:
        doubts.append(
            f"not saturated: the server used {server_cores:.2f} cores, the client "
            f"{client_cores:.2f}"
        )
    if load.regime == "sparse" and (
        client_cores > _MAX_CLIENT_CORES or outcome.lag.quantiles_ms["p99"] > _MAX_LAG_MS
    ):
        doubts.append(
            f"the client was late: {client_cores:.2f} cores, lag p99 "
            f"{outcome.lag.quantiles_ms['p99']:.1f} ms"
        )
    return Figures(
        requests=outcome.requests,
        seconds=outcome.seconds,
        failures=outcome.failures,
        failures_before=outcome.failures_before,
        usage=outcome.server,
        memory=memory,
        response=outcome.response,
        lag=outcome.lag,
        client_cpu=client_cpu,
        client_cores=client_cores,
        foreign_cores=foreign_cores,
        steal=steal,
        doubts=doubts,
        helper_cores=helper_cores,
    )


def _plan(
    place: Place, subject: Subject, case: Case, load: Load, server: Running, seed: int
) -> Plan:
    return Plan(
        regime=load.regime,
        port=server.port,
        path=subject.path,
        body=case.body,
        prefix=subject.prefix or case.prefix,
        others=case.others if load.rows == "golden" else (),
        connections=load.connections,
        seconds=load.seconds,
        warmup_s=load.warmup_s,
        timeout_s=load.timeout_s,
        rate=load.rate,
        think_s=load.think_s,
        seed=seed,
        group=server.group.name,
        helper_group=place.recorder.group if subject.needs_database and place.recorder else "",
    )


def _wrong(plan: Plan) -> str:
    """Why the server's first answer is wrong, or nothing."""
    try:
        request = post((plan.host, plan.port), plan.path, plan.body)
        status, body = ask(plan.host, plan.port, request, timeout_s=plan.timeout_s)
    except (OSError, ValueError) as error:
        return f"does not answer in these limits: {error}"
    if status != _OK or not body.startswith(plan.prefix.encode()):
        return (
            f"answers wrongly: {status} {body[:200].decode(errors='replace')}, expected "
            f"{plan.prefix}…"
        )
    return ""


def _client_cpu(group: Group) -> int:
    """The last CPU that no process of the server is held to: a server below one core may have
    chosen one for itself."""
    cpus = range(os.cpu_count() or 1)
    held = {
        cpu
        for pid in group.processes()
        if len(allowed := os.sched_getaffinity(pid)) == 1
        for cpu in allowed
    }
    return max((cpu for cpu in cpus if cpu not in held), default=cpus[-1])


def _load(plan: Plan, cpu: int) -> Outcome:
    """Run the client as a separate process, on one CPU."""
    opening_s = plan.connections / plan.rate if plan.regime == "sparse" else 0.0
    timeout_s = opening_s + plan.warmup_s + plan.seconds + plan.timeout_s + _CLIENT_GRACE_S
    command = [
        "taskset",
        "--cpu-list",
        str(cpu),
        sys.executable,
        "-m",
        "loadlab.generator.epoll",
        "-",
    ]
    try:
        done = subprocess.run(  # noqa: S603
            command,
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


def _round(label: dict[str, object], measured: Figures | None, reason: str) -> Round:
    # The label's fields are those of `measure`
    return Round(**label, figures=measured, reason=reason)  # type: ignore[arg-type]


def _answers(outcome: Outcome) -> int:
    return outcome.requests_before + outcome.requests


def _failures(outcome: Outcome) -> str:
    counts = {
        kind: outcome.failures.get(kind, 0) + outcome.failures_before.get(kind, 0)
        for kind in {*outcome.failures, *outcome.failures_before}
    }
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no failures"


def _name(key: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in key).lower()
