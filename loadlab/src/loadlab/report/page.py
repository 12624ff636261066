"""All reports of a run, in its record's folder: `report.html`, one page that needs no network and
no other file; `report.md` with its `pictures/`, for a pull request, a wiki, a README."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from loadlab.record.read import Log
from loadlab.report.numbers import caveat, commit, facts, key_numbers, limits, provenance
from loadlab.report.picture import Chart, draw, standalone
from loadlab.report.plots import charts
from loadlab.verdict.judge import Verdict
from loadlab.verdict.rules import RULES

_PAGE, _DOCUMENT, _PICTURES = "report.html", "report.md", "pictures"


def _cell(text: str) -> str:
    """Text as a cell of a table in Markdown."""
    return text.replace("|", "/").replace("\n", " ")


_TEMPLATES = Environment(
    loader=PackageLoader("loadlab.report"),
    autoescape=select_autoescape(["html.j2"]),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters["cell"] = _cell


def write_reports(log: Log, verdict: Verdict, folder: Path, *, claim: str = "") -> Path:
    """Write them into `folder`; returns the page. The same record gives the same bytes."""
    drawn = [(chart, draw(chart)) for chart in charts(log)]
    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    for chart, svg in drawn:
        (folder / _PICTURES / f"{chart.name}.svg").write_text(standalone(svg))
    run = log.run
    shown = {
        "run": run,
        "verdict": verdict,
        "claim": claim,
        "limits": limits(run.tier.limits),
        "commit": commit(run),
        "numbers": key_numbers(run, verdict.figures),
        "facts": facts(verdict.figures),
        "caveat": caveat(run),
        "held": sum(finding.holds for finding in verdict.findings),
        "why": {rule.name: rule.why for rule in RULES},
        "drawn": drawn,
        "pictures": _PICTURES,
        "provenance": provenance(run),
        "curves": _curves([chart for chart, _ in drawn]),
    }
    for name in (_DOCUMENT, _PAGE):
        (folder / name).write_text(_TEMPLATES.get_template(f"{name}.j2").render(shown))
    return folder / _PAGE


def _curves(drawn: Sequence[Chart]) -> str:
    """The curves over time once more as numbers, for the cursor: JSON that ends no script."""
    timed = [chart for chart in drawn if chart.axis.bands]
    lines = {
        chart.name: [
            [
                (round(at, 1), value if value is None else float(f"{value:.4g}"))
                for at, value in each
            ]
            for _, each, *_ in chart.lines
        ]
        for chart in timed
    }
    span = max((chart.axis.end for chart in timed), default=1.0)
    return msgspec.json.encode({"span": span, "lines": lines}).decode().replace("<", "\\u003c")
