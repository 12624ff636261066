"""All reports of a run, in its record's folder, and what they say in words: `report.html`, one page
that needs no network and no other file; `report.md` with its `pictures/`, for a pull request, a
wiki, a README."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from loadlab.record.schema import Run
from loadlab.record.store import Log
from loadlab.report.picture import Chart, draw, standalone
from loadlab.report.plots import charts
from loadlab.verdict.figures import Figures
from loadlab.verdict.judge import Verdict, way
from loadlab.verdict.rules import RULES, counted


def environment(package: str) -> Environment:
    """The folder `templates` of a package of the lab."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )


_TEMPLATES = environment("loadlab.report")


def write_reports(log: Log, verdict: Verdict, folder: Path, *, claim: str = "") -> Path:
    """Write them into `folder`; returns the page. The same record gives the same bytes."""
    run, drawn = log.run, [(chart, draw(chart)) for chart in charts(log)]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for chart, svg in drawn:
        (folder / "pictures" / f"{chart.name}.svg").write_text(standalone(svg))
    shown = {
        "run": run,
        "verdict": verdict,
        "claim": claim,
        "limits": limits(run),
        "commit": run.fingerprint.code,
        "numbers": key_numbers(run, verdict.figures),
        "facts": facts(verdict.figures),
        "caveat": caveat(run),
        "counted": counted(verdict.findings),
        "why": {rule.name: rule.why for rule in RULES},
        "drawn": drawn,
        "provenance": provenance(run),
        "curves": _curves([chart for chart, _ in drawn if chart.axis.bands]),
    }
    for name in ("report.md", "report.html"):
        (folder / name).write_text(_TEMPLATES.get_template(f"{name}.j2").render(shown))
    return folder / "report.html"


def _curves(timed: Sequence[Chart]) -> str:
    """The curves over time once more as numbers, for the cursor: JSON that ends no script."""
    lines: dict[str, list[object]] = {chart.name: [] for chart in timed}
    for chart in timed:
        for line in chart.lines:
            short = [(round(at, 1), v and float(f"{v:.4g}")) for at, v in line.points]
            lines[chart.name].append(short)
    span = max((chart.axis.end for chart in timed), default=1.0)
    return msgspec.json.encode({"span": span, "lines": lines}).decode().replace("<", "\\u003c")


def number(value: float | None, form: str = ",.1f") -> str:
    """A value in a format, Python's or `ms` or `share`; a dash if it is not known."""
    if value is None:
        return "–"
    if form == "ms":
        form = ".1f" if value < 100 else ",.0f"
    elif form == "share":
        form = ".3%" if 0 < value < 0.001 else ".1%"
    return format(value, form)


_TEMPLATES.filters["number"] = number
_TEMPLATES.filters["one_line"] = lambda text: " ".join(text.splitlines())


def key_numbers(run: Run, found: Figures) -> list[list[str]]:
    """Name, value, and what it is to be read with."""
    lines = _TEMPLATES.get_template("numbers.j2").render(
        f=found, null=run.null_server, observed=run.observed
    )
    return [line.split(" | ") for line in lines.splitlines()]


def facts(found: Figures) -> str:
    """Failures by kind, and what was on the way at the end."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.failures.items()) or "none"
    left = "not recorded"
    if found.in_flight is not None:
        on_the_way = f"{found.in_flight:,} on the way when the load stopped"
        left = f"{on_the_way}, {found.unfinished:,} never answered"
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


def provenance(run: Run) -> list[list[str]]:
    """Code, command, workload, machine, software, processes: name and value."""
    shown = {"run": run, "commit": run.fingerprint.code, "limits": limits(run)}
    lines = _TEMPLATES.get_template("provenance.j2").render(shown)
    return [line.split(" | ", 1) for line in lines.splitlines()]


def limits(run: Run) -> str:
    """CPU and memory that one replica may use."""
    if not run.observed:
        return "limits that the lab did not set"
    cpus, memory_bytes = run.tier.limits.cpus, run.tier.limits.memory_bytes
    memory = "no memory limit" if memory_bytes is None else f"{memory_bytes / 2**20:,.0f} MiB"
    return f"{'no CPU limit' if cpus is None else f'{cpus:g} CPU'}, {memory}"
