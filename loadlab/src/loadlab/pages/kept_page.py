"""Kept load runs as Markdown, for docs/benchmarks.md and the README: every figure is computed from
the records, and leads to them."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from loadlab.pages.kept import Kept, KeptSet
from loadlab.record.schema import Run
from loadlab.report.plots import charts
from loadlab.report.svg import draw
from loadlab.verdict.figures import Figures

_INTRO = """## Load runs

Users who think between two requests, against a server in its limits, judged by [17
rules](loadlab-rules.md) and an objective fixed before the run. The records are kept whole: `just
load-report docs/runs/NAME` judges one again and draws its page. Latency counts from when a request
was meant to be sent; errors count from the first user of the ramp on. Generator and server share
one machine over loopback."""
_HEADER = (
    "| limits | users | verdict | requests/s | p50 / p95 / p99 / max ms | errors | CPU used | "
    "CPU/request | memory peak |\n"
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)
_BACKENDS = {"cgroup": "processes", "compose": "containers", "given": "a server that ran"}
_CHART = "latency"


def section(found: Sequence[KeptSet], folder: Path) -> str:
    """All sets for a page in `folder`: for each run a row, its verdict and its
    provenance."""
    parts = [_INTRO]
    for each in found:
        run = each.runs[0].log.run
        rows = [
            _row(run, one.verdict.outcome, [one.verdict.figures], _link(one, folder))
            for one in each.runs
        ]
        parts += [
            f"### {run.tier.name}, {run.scenario.name}, {run.backend}, {run.engine}",
            "\n".join([_HEADER, *rows]),
            *_conclusions(each),
        ]
    return "\n\n".join(parts)


def _conclusions(each: KeptSet) -> list[str]:
    """The verdict as a quotation, then runs that did not pass and the provenance as bullets."""
    several = len(each.runs) > 1
    said = each.together.claim or (
        each.together.sentence if several else each.runs[0].verdict.sentence
    )
    short = [
        f"{one.log.run.id}: {one.verdict.sentence}"
        for one in each.runs
        if several and one.verdict.outcome != "PASS"
    ]
    bullets = [*short, *_provenance(each.runs[0].log.run)]
    return [f"> {said}", "\n".join(f"- {line}" for line in bullets)]


def summary(found: Sequence[KeptSet], folder: Path) -> str:
    """One row for each set, medians over its repeats, for a page in `folder`."""
    rows = []
    for each in found:
        outcome: str = each.together.outcome
        if len(each.runs) > 1:
            outcome = f"{outcome}, {len(each.runs)} runs"
        findings = [finding for one in each.runs for finding in one.verdict.findings]
        if broken := list(dict.fromkeys(finding.rule for finding in findings if not finding.holds)):
            outcome += f" ({', '.join(broken)})"
        links = ", ".join(
            _link(one, folder, str(number)) for number, one in enumerate(each.runs, 1)
        )
        figures = [one.verdict.figures for one in each.runs]
        rows.append(_row(each.runs[0].log.run, outcome, figures, f"runs {links}"))
    return "\n".join([_HEADER, *rows])


def picture(found: Sequence[KeptSet], file: Path) -> Path | None:
    """Draw the response times of the last run that passed with the most users; None without one."""
    passed = [one for each in found for one in each.runs if one.verdict.outcome == "PASS"]
    if not passed:
        return None
    shown = max(passed, key=lambda one: (one.log.run.scenario.users, one.log.run.started_at))
    (chart,) = [chart for chart in charts(shown.log) if chart.name == _CHART]
    file.write_text(draw(chart, standalone=True) + "\n")
    return file


def _row(run: Run, outcome: str, figures: Sequence[Figures], link: str) -> str:
    asked, limits = run.scenario, run.tier.limits
    think = f"think {asked.think_s[0]:g}–{asked.think_s[1]:g} s" if asked.think_s else "open model"
    cpus = "no CPU limit" if limits.cpus is None else f"{limits.cpus:g} CPU"
    memory = (
        "no memory limit"
        if limits.memory_bytes is None
        else f"{limits.memory_bytes / 2**20:,.0f} MiB"
    )
    replicas = f"{run.tier.replicas} × " if run.tier.replicas > 1 else ""
    used = f"{_median(figures, 'cpu_cores', '.2f')} of {_median(figures, 'quota_cores', 'g')}"
    latencies = " / ".join(
        _median(figures, name, ".1f") for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    )
    errors, requests = sum(each.errors for each in figures), sum(each.requests for each in figures)
    users = f"{asked.users:,}, {asked.name}: {think}; {_BACKENDS[run.backend]}, {run.engine}"
    return (
        f"| {replicas}{cpus}, {memory} | {users} | **{outcome}**, {link} | "
        f"{_median(figures, 'achieved_hz', ',.0f')} | {latencies} | {errors:,} of {requests:,} | "
        f"{used} | "
        f"{_median(figures, 'cpu_us', '.0f')} µs | {_median(figures, 'memory_peak_mib', ',.0f')} "
        "MiB |"
    )


def _median(figures: Sequence[Figures], name: str, form: str) -> str:
    known = [value for each in figures if (value := getattr(each, name)) is not None]
    return format(statistics.median(known), form) if known else "–"


def _link(one: Kept, folder: Path, text: str = "") -> str:
    return f"[{text or 'run'}]({Path(os.path.relpath(one.folder, folder)).as_posix()})"


def _provenance(run: Run) -> list[str]:
    machine, asked = run.fingerprint, run.scenario
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    ramp = f"ramp {asked.spawn_rate_hz:g} users/s ({asked.ramp})"
    return [
        (
            f"Machine: {machine.hardware}; Linux {machine.kernel}, control groups version "
            f"{machine.cgroup_version}."
        ),
        (
            f"Commit {machine.checkout}; `{run.command}`; {run.started_at}; {ramp}; CPython "
            f"{machine.python}, {packages}."
        ),
    ]
