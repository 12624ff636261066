"""One server, one model, one regime, once: start it in its group, load it, and read what it
used."""

import os
import subprocess
import sys
from collections import Counter

import msgspec
from msgspec.structs import replace

from loadlab.experiments.bench import services
from loadlab.experiments.bench.stored import Figures, Load, Round
from loadlab.experiments.bench.subjects import Place, Subject
from loadlab.generator.epoll.answer import ask
from loadlab.generator.epoll.plan import Outcome, Plan
from loadlab.target.cgroup import Group, Limits, Memory
from loadlab.target.process import CannotStart, free_port, running
from loadlab.target.programs import Case

_CLIENT_GRACE_S = 60.0
_MIN_SERVER_CORES = 0.9
_MAX_LAG_MS = 5.0
_MAX_CLIENT_CORES = 0.9
_MAX_FOREIGN_CORES = 0.15
_MAX_STEAL = 0.01
_SHARED = ("regime", "connections", "seconds", "warmup_s", "timeout_s", "rate", "think_s")
"""Fields that the client's plan has from the load."""


class ClientFailed(RuntimeError):
    """The load client could not do its work: a fault of the lab or the machine, not of the
    server."""


class _NoFigures(Exception):
    """The server cannot carry the load in its limits; the message is the round's reason."""


def measure(
    place: Place, subject: Subject, case: Case, load: Load, *, number: int, seed: int
) -> Round:
    """Measure once; a server that cannot carry the load in its limits is a result too."""
    found = Round(
        server=subject.key,
        model=case.model,
        regime=load.regime,
        number=number,
        environment=dict(subject.environment),
        figures=None,
    )
    try:
        return replace(found, figures=_measure(place, subject, case, load, seed))
    except _NoFigures as error:
        reason = str(error)
    except CannotStart as error:
        reason = f"cannot start in these limits: {error}".replace(f"{place.root}/", "")
    except (ClientFailed, OSError) as error:  # one round is lost; the others of a long run are not
        reason = f"the lab failed: {error}"
    return replace(found, reason=reason)


def _measure(place: Place, subject: Subject, case: Case, load: Load, seed: int) -> Figures:
    port, logs = free_port(), "log" in subject.needs
    if logs:
        services.prepare_log(place, case)
    command, label = subject.command(place, case, port), _label(subject)
    with running(label, command, port=port, limits=load.limits, cpus=load.server_cpus) as server:
        plan = Plan(
            port=port,
            path=subject.path,
            body=case.body,
            prefix=subject.prefix or case.prefix,
            others=case.others if load.rows == "golden" else (),
            seed=seed,
            group=server.group.name,
            helper_group=place.log.group.name if logs and place.log else "",
            **{name: getattr(load, name) for name in _SHARED},
        )
        _first_answer(plan)
        if logs and (reason := services.catalogue_missing(case, port)):
            raise _NoFigures(reason)
        cpu = _client_cpu(server.group)
        outcome, memory = _load(plan, cpu), server.group.memory()
        if (code := server.process.poll()) is not None:
            raise _NoFigures(f"ended with {code} under load; {_failures(outcome)}")
    # The log's last rows are written by the server's end; the first answer is the lab's, before
    # the client's.
    answers = 1 + outcome.requests_before + outcome.requests
    doubt = (
        services.rows_doubt(place, answers=answers, open_at_end=load.connections) if logs else ""
    )
    if not outcome.requests:
        raise _NoFigures(f"answers nothing in these limits; {_failures(outcome)}")
    return figures(outcome, memory, load, client_cpu=cpu, doubt=doubt)


def answer_of(place: Place, subject: Subject, case: Case) -> bytes:
    """The body of a server's answer to the case, in a process without limits; raises
    `CannotStart`."""
    port = free_port()
    command = subject.command(place, case, port)
    with running(_label(subject), command, port=port, limits=Limits()):
        try:
            return _first_answer(
                Plan(regime="saturated", port=port, body=case.body, prefix=case.prefix)
            )
        except _NoFigures as error:
            raise CannotStart(f"{case.model}: {error}") from None


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
    lag_ms = outcome.lag.quantiles_ms["p99"]
    late = client > _MAX_CLIENT_CORES or lag_ms > _MAX_LAG_MS
    doubts = {
        doubt: bool(doubt),
        f"others used {foreign:.2f} cores": foreign > _MAX_FOREIGN_CORES,
        f"the hypervisor stole {steal:.1%}": steal > _MAX_STEAL,
        f"not saturated: the server used {server:.2f} cores, the client {client:.2f}": (
            load.regime == "saturated" and server < _MIN_SERVER_CORES
        ),
        f"the client was late: {client:.2f} cores, lag p99 {lag_ms:.1f} ms": (
            load.regime == "sparse" and late
        ),
    }
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
        client_cores=client,
        foreign_cores=foreign,
        steal=steal,
        doubts=[text for text, holds in doubts.items() if holds],
        helper_cores=helper,
    )


def _first_answer(plan: Plan) -> bytes:
    """The body of the server's first answer; raises `_NoFigures` if it is wrong."""
    try:
        status, body = ask(plan.host, plan.port, plan.request(), timeout_s=plan.timeout_s)
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
    held = set[int]().union(*(each for each in allowed if len(each) == 1))
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


def _label(subject: Subject) -> str:
    """A name for its control group."""
    return "".join(letter if letter.isalnum() else "-" for letter in subject.key).lower()
