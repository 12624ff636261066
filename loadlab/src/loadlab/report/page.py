"""All reports of a run, in its record's folder: `report.html`, one page that needs no network and
no other file; `report.md` with its `pictures/`, for a pull request, a wiki, a README."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadlab.record.read import Log
from loadlab.report import numbers
from loadlab.report.picture import Chart, draw, standalone
from loadlab.report.plots import charts
from loadlab.verdict.judge import Verdict
from loadlab.verdict.rules import RULES


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
        "limits": numbers.limits(run),
        "commit": numbers.commit(run),
        "numbers": numbers.key_numbers(run, verdict.figures),
        "facts": numbers.facts(verdict.figures),
        "caveat": numbers.caveat(run),
        "held": sum(finding.holds for finding in verdict.findings),
        "why": {rule.name: rule.why for rule in RULES},
        "drawn": drawn,
        "provenance": numbers.provenance(run),
        "curves": _curves([chart for chart, _ in drawn if chart.axis.bands]),
    }
    for name in ("report.md", "report.html"):
        (folder / name).write_text(numbers.TEMPLATES.get_template(f"{name}.j2").render(shown))
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
