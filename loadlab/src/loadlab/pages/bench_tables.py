"""Stored runs as Markdown: nothing is computed here that is not in the file named under the
table."""

import statistics
from collections import Counter
from collections.abc import Sequence

from loadlab.experiments.bench.stored import REGIMES, Figures, Load, Regime, Round, Run, figures
from loadlab.experiments.bench.subjects import SUBJECTS, VARIANTS
from loadlab.target.cgroup import Limits

_HEADER = """| | server | requests/s | CPU/request, median | spread | p50 / p95 / p99 ms | memory peak | throttled | failures |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""  # noqa: E501  a table's row


def provenance(run: Run, link: str) -> str:
    """The figures' provenance: machine, limits, commit, command; `link` leads to the stored
    run."""
    machine = run.fingerprint
    lines = [
        (
            f"Machine: {machine.hardware}; Linux {machine.kernel}, control groups version "
            f"{machine.cgroup_version}."
        ),
        f"Software: CPython {machine.python}, {_packages(machine.packages)}.",
        (
            f"Commit {machine.checkout}; `{run.command}`; {run.started_at}, {run.minutes:g} "
            f"minutes, seed {run.seed}."
        ),
        f"Every round: [{link}]({link}).",
        *map(_describe, run.loads),
    ]
    if machine.baseline_packages:
        lines.insert(2, f"Baseline: {_packages(machine.baseline_packages)}.")
    return "\n".join(f"- {line}" for line in [*_warnings(run), *lines])


def _warnings(run: Run) -> list[str]:
    found = []
    if run.quiet.reasons:
        found.append(f"**Doubtful: before the run {'; '.join(run.quiet.reasons)}.**")
    if run.quick:
        found.append(
            "**A smoke test: these figures say that the tool works, and nothing about the "
            "servers.**"
        )
    return found


def tables(run: Run) -> str:
    """One table per regime and model, with a line for every server, measured or not."""
    cells = [
        (regime, model)
        for regime in REGIMES
        for model in dict.fromkeys(each.model for each in run.rows if each.regime == regime)
    ]
    return "\n\n".join(
        f"### {regime.capitalize()}, {model}\n\n{_HEADER}\n{_rows(run, regime, model)}"
        for regime, model in cells
    )


def doubts(run: Run) -> list[str]:
    """Every round that is less than trustworthy, and why."""
    return [
        (
            f"{each.regime}, {each.model}, {each.server}, round {each.number}: "
            f"{'; '.join(each.figures.doubts)}"
        )
        for each in run.rows
        if each.figures and each.figures.doubts
    ]


def servers(run: Run, regime: Regime, model: str) -> list[str]:
    """The servers of one table, in the order of their letters, or of the ablation's table."""
    present = dict.fromkeys(
        each.server for each in run.rows if (each.regime, each.model) == (regime, model)
    )
    order = list(titles(run))
    return sorted(present, key=lambda key: order.index(key) if key in order else len(order))


def titles(run: Run) -> dict[str, str]:
    """What each server of a run is, by its key."""
    subjects = SUBJECTS if run.kind == "bench" else VARIANTS
    return {key: subject.title for key, subject in subjects.items()}


def _rows(run: Run, regime: Regime, model: str) -> str:
    named = titles(run)
    return "\n".join(
        _row(run.rows, key, named.get(key, ""), regime, model)
        for key in servers(run, regime, model)
    )


def _row(rounds: Sequence[Round], key: str, title: str, regime: Regime, model: str) -> str:
    mine = [
        each for each in rounds if (each.server, each.model, each.regime) == (key, model, regime)
    ]
    measured = figures(mine, server=key, model=model, regime=regime)
    reasons = list(dict.fromkeys(_cell(each.reason) for each in mine if each.reason))
    if not measured:
        return f"| {key} | {title} | {'; '.join(reasons)} | | | | | | |"
    cpu_us = [each.cpu_us for each in measured]
    rate = statistics.median(each.requests / each.seconds for each in measured)
    peak_mb = statistics.median(each.memory.peak_bytes for each in measured) / 1e6
    note = (
        f"; {len(mine) - len(measured)} of {len(mine)} rounds without figures: {reasons[0]}"
        if reasons
        else ""
    )
    return (
        f"| {key} | {title} | {rate:,.0f} | **{statistics.median(cpu_us):.1f} µs** | "
        f"{min(cpu_us):.1f}–{max(cpu_us):.1f} | "
        f"{_latency(measured)} | {peak_mb:.0f} MB | {_throttled(measured)} | "
        f"{_failures(measured)}{note} |"
    )


def _latency(measured: Sequence[Figures]) -> str:
    medians = [
        statistics.median(each.response.quantiles_ms[name] for each in measured)
        for name in ("p50", "p95", "p99")
    ]
    return " / ".join(f"{value:.2f}" for value in medians)


def _throttled(measured: Sequence[Figures]) -> str:
    shares = [
        each.usage.throttled_periods / each.usage.periods for each in measured if each.usage.periods
    ]
    return f"{statistics.median(shares):.0%}" if shares else "–"


def _failures(measured: Sequence[Figures]) -> str:
    kinds: Counter[str] = Counter()
    for each in measured:
        kinds.update(each.failures)
        kinds.update(each.failures_before)
    return (
        (
            f"{kinds.total():,} "
            f"({', '.join(f'{kind} {count:,}' for kind, count in sorted(kinds.items()))})"
        )
        if kinds.total()
        else "0"
    )


def _packages(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _describe(load: Load) -> str:
    where = f"server on CPU {load.server_cpus}" if load.server_cpus else "server on any CPU"
    think = (
        "no think time"
        if load.regime == "saturated"
        else f"think {load.think_s[0]:g}–{load.think_s[1]:g} s, opened at {load.rate:g}/s"
    )
    rows = ", all golden rows in turn" if load.rows == "golden" else ""
    return (
        f"{load.regime.capitalize()}: {load.connections:,} connections, {think}{rows}, "
        f"{load.seconds:g} s after {load.warmup_s:g} s; "
        f"{_limits(load.limits)}, {where}, client on one CPU that no server is held to."
    )


def _limits(limits: Limits) -> str:
    cpus, memory = limits.cpus, limits.memory_bytes
    quota = "no CPU quota" if cpus is None else f"quota {cpus:g} CPU per 100 ms"
    return f"{quota}, {'no memory limit' if memory is None else f'{memory / 1e6:.0f} MB'}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
