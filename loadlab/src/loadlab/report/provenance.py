"""The provenance of a run's figures, as pairs of name and value: everything that is needed to
reproduce them."""

from loadlab.record.machine import Fingerprint
from loadlab.record.schema import Run, Scenario
from loadlab.target.cgroup import Limits
from loadlab.verdict.repeats import way


def caveat(run: Run) -> str:
    """What a reader should keep in mind, whatever the verdict."""
    if run.backend != "compose" and "loopback" not in way(run):
        return f"The generator ran {way(run)}: the network between is in the latencies."
    where = (
        "on the server's machine, outside of its container"
        if run.backend == "compose"
        else way(run)
    )
    return (
        f"The generator ran {where}: no network's delay is in the latencies, and it pays a part "
        "of the kernel's work for the connections."
    )


def provenance(run: Run) -> list[tuple[str, str]]:
    """Code, command, workload, machine, software, processes."""
    return [
        *_workload(run),
        *_system(run.fingerprint),
        *((name, value) for name, value in run.details.items()),
        *(
            (f"process {each.name}", f"{each.command} (CPUs {','.join(map(str, each.cpus))})")
            for each in run.processes
        ),
    ]


def _workload(run: Run) -> list[tuple[str, str]]:
    machine, asked = run.fingerprint, run.scenario
    changed = " with uncommitted changes" if machine.dirty else ""
    return [
        ("run", f"{run.id}{f', {run.repeat} of {run.repeats}' if run.repeats > 1 else ''}"),
        ("started", run.started_at),
        ("command", run.command),
        ("commit", (machine.commit[:12] or "unknown") + changed),
        ("tier", f"{run.tier.name}: {run.tier.replicas} × ({_limits(run.tier.limits)})"),
        ("backend, engine", f"{run.backend}, {run.engine}"),
        (
            "scenario",
            (
                f"{asked.name}: {asked.users:,} users, {_think(asked)}, ramp "
                f"{asked.spawn_rate_hz:g}/s {asked.ramp}"
            ),
        ),
        ("bodies", f"{asked.bodies:,}, for {', '.join(asked.models)}"),
        ("target, seed", f"{run.target}, {run.seed}"),
    ]


def _limits(limits: Limits) -> str:
    cpus = "no CPU limit" if limits.cpus is None else f"{limits.cpus:g} CPU"
    if limits.memory_bytes is None:
        return f"{cpus}, no memory limit"
    return f"{cpus}, {limits.memory_bytes / 2**20:,.0f} MiB"


def _think(asked: Scenario) -> str:
    if asked.think_s:
        return f"think {asked.think_s[0]:g}–{asked.think_s[1]:g} s"
    return f"open model, {asked.rate_hz or 0:,.0f} arrivals a second"


def _system(machine: Fingerprint) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    settings = ", ".join(f"{name} {value}" for name, value in machine.sysctls.items())
    return [
        ("machine", f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 1e9:.0f} GB"),
        (
            "system",
            (
                f"Linux {machine.kernel}, control groups version {machine.cgroup_version}, nofile "
                f"{machine.nofile:,}"
            ),
        ),
        ("Python", machine.python),
        ("packages", packages),
        ("kernel settings", settings),
    ]
