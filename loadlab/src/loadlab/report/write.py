"""All reports of a run, in its record's folder: `report.html`, `report.md` and its `pictures/`."""

from pathlib import Path

from loadlab.record.read import Log
from loadlab.report.markdown import markdown
from loadlab.report.page import page
from loadlab.report.plots import charts
from loadlab.report.svg import draw
from loadlab.verdict.judge import Verdict

PAGE, DOCUMENT, PICTURES = "report.html", "report.md", "pictures"


def write_reports(log: Log, verdict: Verdict, folder: Path, *, claim: str = "") -> Path:
    """Write them into `folder`; returns the page. The same record gives the same bytes."""
    drawn = charts(log)
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for chart in drawn:
        (folder / PICTURES / f"{chart.name}.svg").write_text(draw(chart, standalone=True) + "\n")
    (folder / DOCUMENT).write_text(
        markdown(log.run, verdict, drawn, pictures=PICTURES, claim=claim)
    )
    (folder / PAGE).write_text(page(log.run, verdict, drawn, claim=claim))
    return folder / PAGE
