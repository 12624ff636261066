"""A run as Markdown with SVG pictures as files: for a pull request, a wiki, a README."""

from collections.abc import Sequence

from loadlab.record.schema import Run
from loadlab.report.numbers import facts, key_numbers
from loadlab.report.provenance import caveat, provenance
from loadlab.report.svg import Chart
from loadlab.verdict.judge import Verdict


def markdown(
    run: Run, verdict: Verdict, charts: Sequence[Chart], *, pictures: str, claim: str = ""
) -> str:
    """The whole document; `pictures` is the folder of the SVG files, relative to it."""
    parts = [
        f"# {verdict.outcome}: {run.tier.name}, {run.scenario.name}",
        verdict.sentence,
        f"> {claim}" if claim else "",
        _table(
            ("", "value", ""),
            [(name, f"**{value}**", note) for name, value, note in key_numbers(verdict.figures)],
        ),
        f"{facts(verdict.figures)} {caveat(run)}",
        "## Objective, fixed before the run",
        _table(
            ("", "measured", "limit", ""),
            [
                (check.what, check.value, check.bound, _mark(check.holds))
                for check in verdict.objective
            ],
        ),
        "## Rules",
        _table(
            ("rule", "", "measured (limit)"),
            [
                (
                    f"{each.rule} {each.title}",
                    _mark(each.holds),
                    "; ".join(check.text for check in each.checks),
                )
                for each in verdict.findings
            ],
        ),
        "**Missing from the record:** " + "; ".join(verdict.missing) if verdict.missing else "",
        "## Pictures",
        *(f"![{chart.title}]({pictures}/{chart.name}.svg)" for chart in charts),
        "## Provenance",
        _table(("", ""), provenance(run)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def _mark(holds: bool) -> str:
    return "holds" if holds else "**broken**"
