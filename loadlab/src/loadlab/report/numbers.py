"""What every report says of a run, as words: the handful of figures shown first, and everything
needed to reproduce them."""

from string import Formatter

from loadlab.record.form import Run
from loadlab.target.cgroup import Limits
from loadlab.verdict.figures import Figures
from loadlab.verdict.repeats import way

Pairs = list[tuple[str, str]]

# Name, value, and what it is to be read with; of the steady phase. Formats are Python's, and `ms`
# and `share`.
_KEY_NUMBERS = (
    ("users", "{f.users:,}", "{f.steady_s:.0f} s of steady load"),
    (
        "requests a second",
        "{f.achieved_hz:,.0f}",
        "{f.offered_hz:,.0f} offered; {f.requests:,} in all",
    ),
    (
        "errors",
        "{f.errors:,}",
        "95 % bound {f.error_bound:share}; from the ramp on, unanswered ones included",
    ),
    (
        "p50 / p95 / p99",
        "{f.p50_ms:ms} / {f.p95_ms:ms} / {f.p99_ms:ms} ms",
        "p99 at most {f.p99_bound_ms:ms} ms (99 %)",
    ),
    ("max", "{f.max_ms:ms} ms", "p99.9 {f.p999_ms:ms} ms"),
    ("CPU of the server", "{f.cpu_cores:.3f} cores", "quota {f.quota_cores:g}{balancer}"),
    ("CPU per request", "{f.cpu_us:.1f} µs", "per right answer{multiple}"),
    ("throttled", "{f.throttled:share}", "of the quota's periods"),
    (
        "memory",
        "{f.memory_peak_mib:,.0f} MiB",
        "at its peak; limit {f.memory_limit_mib:,.0f} MiB",
    ),
    (
        "generator",
        "{f.generator_cpu:share}",
        "of a core, busiest process; loop lag p99 {f.loop_lag_p99_ms:ms} ms",
    ),
    (
        "witness p50 / p95",
        "{f.witness_p50_ms:ms} / {f.witness_p95_ms:ms} ms",
        "null server's p99 {f.floor_p99_ms:ms} ms",
    ),
)


class _Words(Formatter):
    def format_field(self, value: float | None, format_spec: str) -> str:
        return number(value, format_spec)


def number(value: float | None, form: str) -> str:
    """A value in a format; a dash if it is not known."""
    if value is None:
        return "–"
    if form == "ms":
        form = ".1f" if value < 100 else ",.0f"
    elif form == "share":
        form = ".3%" if 0 < value < 0.001 else ".1%"
    return format(value, form)


def key_numbers(run: Run, found: Figures) -> list[list[str]]:
    """The figures shown first: name, value, and what it is to be read with."""
    words, null, balancer, multiple = _Words(), run.null_server, "", ""
    if (cores := found.balancer_cores) is not None:
        balancer = f", of which {cores:.3f} are the balancer's, which has none"
    # Microseconds hold for one machine; the multiple can be compared with other machines'.
    if null and null.cpu_us and found.cpu_us is not None:
        multiple = (
            f"; {found.cpu_us / null.cpu_us:.1f} × this run's null server ({null.cpu_us:.1f} µs)"
        )
    return [
        [words.format(each, f=found, balancer=balancer, multiple=multiple) for each in row]
        for row in _KEY_NUMBERS
    ]


def facts(found: Figures) -> str:
    """Failures by kind, and what was on the way at the end."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.failures.items()) or "none"
    left = "not recorded"
    if found.in_flight is not None:
        left = (
            f"{found.in_flight:,} on the way when the load stopped, {found.unfinished:,} never "
            "answered"
        )
    return f"Failures: {kinds}. Requests {left}."


def caveat(run: Run) -> str:
    """What a reader should keep in mind, whatever the verdict."""
    where = way(run)
    if run.backend == "compose":
        where = "on the server's machine, outside of its container"
    elif "loopback" not in where:
        return f"The generator ran {where}: the network between is in the latencies."
    return (
        f"The generator ran {where}: no network's delay is in the latencies, and it pays a part "
        "of the kernel's work for the connections."
    )


def commit(run: Run) -> str:
    """The commit, and whether it is all that was measured."""
    changed = " with uncommitted changes" if run.fingerprint.dirty else ""
    return f"{run.fingerprint.commit[:12] or 'unknown'}{changed}"


def limits(allowed: Limits) -> str:
    """CPU and memory that one replica may use."""
    cpus = "no CPU limit" if allowed.cpus is None else f"{allowed.cpus:g} CPU"
    if allowed.memory_bytes is None:
        return f"{cpus}, no memory limit"
    return f"{cpus}, {allowed.memory_bytes / 2**20:,.0f} MiB"


def provenance(run: Run) -> Pairs:
    """Code, command, workload, machine, software, processes."""
    asked, machine = run.scenario, run.fingerprint
    think = f"open model, {asked.rate_hz or 0:,.0f} arrivals a second"
    if asked.think_s:
        think = f"think {asked.think_s[0]:g}–{asked.think_s[1]:g} s"
    ramp = f"ramp {asked.spawn_rate_hz:g}/s {asked.ramp}"
    system = f"Linux {machine.kernel}, control groups version {machine.cgroup_version}"
    return [
        ("run", f"{run.id}{f', {run.repeat} of {run.repeats}' if run.repeats > 1 else ''}"),
        ("started", run.started_at),
        ("command", run.command),
        ("commit", commit(run)),
        ("tier", f"{run.tier.name}: {run.tier.replicas} × ({limits(run.tier.limits)})"),
        ("backend, engine", f"{run.backend}, {run.engine}"),
        ("scenario", f"{asked.name}: {asked.users:,} users, {think}, {ramp}"),
        ("bodies", f"{asked.bodies:,}, for {', '.join(asked.models)}"),
        ("target, seed", f"{run.target}, {run.seed}"),
        ("machine", machine.hardware),
        *_machine_today(run),
        ("system", f"{system}, nofile {machine.nofile:,}"),
        ("Python", machine.python),
        ("packages", ", ".join(f"{name} {each}" for name, each in machine.packages.items())),
        ("kernel settings", ", ".join(f"{name} {each}" for name, each in machine.sysctls.items())),
        *run.details.items(),
        *(
            (f"process {each.name}", f"{each.command} (CPUs {','.join(map(str, each.cpus))})")
            for each in run.processes
        ),
    ]


def _machine_today(run: Run) -> Pairs:
    """How fast the machine was in this run, and what its null server used."""
    pairs = []
    if each := run.calibration:
        speed = (
            f"score {each.score:.3g}: {each.python_mops:.3g} million operations of Python, "
            f"{each.syscalls_per_s:,.0f} system calls and {each.loopback_per_s:,.0f} round trips "
            "over loopback a second"
        )
        pairs.append(("calibration", speed))
    if null := run.null_server:
        used = (
            f"{null.cpu_us:.1f} µs of CPU per request; {null.users:,} users, {null.rate:,.0f} "
            f"requests a second, {null.failures:,} failures"
        )
        pairs.append(("null server", used))
    return pairs
