"""A run as one HTML page that needs nothing else: no network, no other file. Verdict first, then
figures, rules, pictures, provenance."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import msgspec

from loadlab.record.schema import Run
from loadlab.report.numbers import facts, key_numbers
from loadlab.report.provenance import caveat, provenance
from loadlab.report.svg import LEFT, RIGHT, STYLE, WIDTH, Chart, draw
from loadlab.verdict.check import Check
from loadlab.verdict.judge import Verdict
from loadlab.verdict.rules import RULES

# Nothing may be fetched: the browser itself holds the page to it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(run: Run, verdict: Verdict, charts: Sequence[Chart], *, claim: str = "") -> str:
    """The whole page."""
    title = f"{verdict.outcome}: {run.tier.name}, {run.scenario.name}"
    body = "\n".join(
        part
        for part in (
            _header(run, verdict),
            f"<blockquote>{escape(claim)}</blockquote>" if claim else "",
            _cards(verdict),
            f'<p class="soft">{escape(facts(verdict.figures))} {escape(caveat(run))}</p>',
            "<h2>Objective, fixed before the run</h2>",
            _objective(verdict.objective),
            _rules(verdict),
            _missing(verdict.missing),
            "<h2>Second by second</h2>",
            *(f"<figure>{draw(chart, standalone=False)}</figure>" for chart in charts),
            "<h2>Provenance</h2>",
            _pairs(provenance(run)),
        )
        if part
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" '
        'href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_asset('page.css')}{STYLE}</style></head>\n"
        f'<body class="{verdict.outcome}">\n{body}\n<script type="application/json" '
        f'id="curves">{_data(charts)}</script>\n'
        f"<script>{_asset('page.js')}</script>\n</body></html>\n"
    )


def _header(run: Run, verdict: Verdict) -> str:
    asked, limits = run.scenario, run.tier.limits
    memory = "" if limits.memory_bytes is None else f", {limits.memory_bytes / 2**20:,.0f} MiB"
    what = (
        f"{asked.users:,} users on {run.tier.name} "
        f"({'no CPU limit' if limits.cpus is None else f'{limits.cpus:g} CPU'}{memory})"
    )
    where = (
        f"{run.started_at[:16].replace('T', ' ')} · {asked.name} · {run.backend} · {run.engine} · "
        f"{run.fingerprint.commit[:12]}"
    )
    where += " with uncommitted changes" if run.fingerprint.dirty else ""
    return (
        f'<header><p class="outcome">{verdict.outcome}</p><h1>{escape(what)}</h1>'
        f'<p>{escape(verdict.sentence)}</p><p class="soft">{escape(where)}</p></header>'
    )


def _cards(verdict: Verdict) -> str:
    cards = (
        f'<div class="card"><small>{escape(name)}</small><b>{escape(value)}</b>'
        f"<span>{escape(note)}</span></div>"
        for name, value, note in key_numbers(verdict.figures)
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _objective(checks: Sequence[Check]) -> str:
    rows = "".join(
        f"<tr><td>{escape(check.what)}</td>{_number(check.value)}{_number(check.bound)}"
        f"{_mark(check.holds)}</tr>"
        for check in checks
    )
    return (
        '<div class="scroll"><table><tr><th></th><th>measured</th><th>limit</th><th></th></tr>'
        f"{rows}</table></div>"
    )


def _rules(verdict: Verdict) -> str:
    why = {rule.name: rule.why for rule in RULES}
    held = sum(1 for finding in verdict.findings if finding.holds)
    rows = "".join(
        f'<tr><td class="name" title="{escape(why.get(each.rule, ""))}">{each.rule} '
        f"{escape(each.title)}</td>{_mark(each.holds)}"
        f"<td>{'; '.join(_checked(check) for check in each.checks)}</td></tr>"
        for each in verdict.findings
    )
    return (
        f"<h2>Is it a measurement? {held} of {len(verdict.findings)} rules hold</h2>"
        f'<div class="scroll"><table>{rows}</table></div>'
    )


def _checked(check: Check) -> str:
    return escape(check.text) if check.holds else f'<span class="bad">{escape(check.text)}</span>'


def _missing(missing: Sequence[str]) -> str:
    return (
        f'<p class="bad">Missing from the record: {escape("; ".join(missing))}.</p>'
        if missing
        else ""
    )


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="break">{escape(value)}</td></tr>'
        for name, value in pairs
    )
    return f"<table>{rows}</table>"


def _number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'


def _mark(holds: bool) -> str:
    return '<td class="good">holds</td>' if holds else '<td class="bad">broken</td>'


def _data(charts: Sequence[Chart]) -> str:
    """The curves once more as numbers, for the cursor."""
    timed = [chart for chart in charts if chart.time]
    lines = {
        chart.name: [
            [[round(at, 1), _short(value)] for at, value in line.points] for line in chart.lines
        ]
        for chart in timed
    }
    span = timed[0].span[1] if timed else 1.0
    packed = msgspec.json.encode(
        {
            "left": LEFT,
            "width": WIDTH - LEFT - RIGHT,
            "viewbox": WIDTH,
            "span": span,
            "lines": lines,
        }
    )
    return packed.decode().replace("<", "\\u003c")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _asset(name: str) -> str:
    return files("loadlab.report").joinpath(name).read_text()
