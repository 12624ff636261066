"""What people see of a load run: golden reports, a page that needs nothing else, the live line, the
history.

`uv run python tests/loadlab/test_report.py` writes the golden files again: look at the difference
before you commit it.
"""

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from loadlab.generator.ledger import Tick
from loadlab.record.histogram import pack
from loadlab.record.schema import Calibration, Ended, NullServer, Sample, ServerSample
from loadlab.report import command
from loadlab.report.command import conclude
from loadlab.report.page import write_reports
from loadlab.report.terminal import history_table, summary
from loadlab.run import command as run_command
from loadlab.run.timeline import LiveLine
from loadlab.verdict.judge import Judged, claim_of, judge
from support import browser
from support.runs import Made, Server, fresh, made

GOLDEN = Path(__file__).parent / "golden"
_COLUMNS = 140


def _cut_off() -> Made:
    """Ctrl-C in the middle of steady."""
    run = fresh()
    run.run.ended, run.run.drain = (
        Ended(kind="interrupted", sentence="interrupted by the user"),
        None,
    )
    run.run.phases = [*run.run.phases[:5], msgspec.structs.replace(run.run.phases[5], end_s=None)]
    run.seconds = [line for line in run.seconds if line.t < 60]
    run.samples = [sample for sample in run.samples if sample.t < 60]
    return run


def _real() -> Made:
    """A real run of 10,000 users, cut short to 41 s of steady; its ramp was too much for one loop
    of the generator."""
    log = command.read(GOLDEN / "real")
    return Made(log.run, log.seconds, log.samples)


RUNS = {
    "pass": fresh,
    "stall": lambda: made(Server(stall_s=0.3)),
    "errors": lambda: made(Server(errors=0.01)),
    "cut-off": _cut_off,
    "real": _real,
}


def _shown(run: Made, folder: Path) -> dict[str, str]:
    """The reports of a run, by the names of their golden files."""
    stored = run.write(folder)
    log = command.read(stored)
    verdict = judge(log)
    write_reports(log, verdict, stored)
    paper = io.StringIO()
    Console(file=paper, width=_COLUMNS).print(summary(log.run, verdict))
    table = "\n".join(line.rstrip() for line in paper.getvalue().splitlines())
    return {"table": f"{table}\n", "markdown": (stored / "report.md").read_text()}


@pytest.mark.parametrize("name", RUNS)
def test_stored_runs_give_the_same_reports(name, tmp_path):
    """Record → validity → verdict → table and Markdown, word for word."""
    for kind, text in _shown(RUNS[name](), tmp_path / name).items():
        assert text == (GOLDEN / f"{name}-{kind}.txt").read_text()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    # Of the parser
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "action", "data", "srcset")
        ]


def test_the_page_needs_nothing_else(tmp_path):
    """No address anywhere, a policy that forbids fetching, under 200 kB, and everything in it that
    the verdict says."""
    folder = made(Server(stall_s=0.3)).write(tmp_path / "run")
    verdict = conclude(folder, Console(file=io.StringIO(), width=_COLUMNS))
    text = (folder / "report.html").read_text()
    links = _Links()
    links.feed(text)

    assert links.found == ["data:,"]
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert len(text) < 200_000
    assert all(check.value in text for check in verdict.objective)
    assert text.count("<svg") == len(list((folder / "pictures").glob("*.svg"))) == 11


@pytest.mark.skipif(
    browser.found() is None,
    reason="no Chromium on this machine: the page is looked at where there is one",
)
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_without_a_network_shows_the_page(tmp_path, dark):
    """Nothing is asked for, nothing complains, and a picture of some substance is drawn."""
    folder = fresh().write(tmp_path / "run")
    conclude(folder, Console(file=io.StringIO(), width=_COLUMNS))

    seen = browser.look(browser.found() or "", folder / "report.html", tmp_path, dark=dark)

    assert seen.console == []
    assert not {address for address in seen.addresses if address.startswith(("http", "ws", "ftp"))}
    assert seen.picture.stat().st_size > 50_000


@pytest.mark.skipif(
    browser.found() is None,
    reason="no Chromium on this machine: the page is looked at where there is one",
)
def test_a_pointer_over_one_chart_tells_the_values_of_all(tmp_path):
    """The cursor stands at the same second in every chart of the time axis."""
    folder = fresh().write(tmp_path / "run")
    conclude(folder, Console(file=io.StringIO(), width=_COLUMNS))
    moved = "const first = document.querySelector('svg.time'), box = first.getBoundingClientRect();"
    moved += (
        "first.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width * "
        "0.6, clientY: box.top + 50}));"
    )
    page = tmp_path / "moved.html"
    page.write_text(
        (folder / "report.html").read_text().replace("</body>", f"<script>{moved}</script></body>")
    )

    text = browser.settled(browser.found() or "", page, tmp_path)

    assert re.search(r"users 1,000</text>", text)
    assert re.search(r"p50 1\.\d+</text>", text)
    assert len(set(re.findall(r'class="cursor"[^>]* x1="([\d.]+)"', text))) == 1


def test_a_bad_page_is_caught(tmp_path):
    """The two looks above can fail: a page that fetches and complains is caught."""
    if browser.found() is None:
        pytest.skip("no Chromium on this machine")
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="http://elsewhere.example/x.png"><script>console.error("no"); '
        'fetch("http://elsewhere.example/y")</script>'
    )
    seen = browser.look(browser.found() or "", page, tmp_path)
    assert any('"no"' in line for line in seen.console)
    assert {"http://elsewhere.example/x.png", "http://elsewhere.example/y"} <= seen.addresses


def test_the_page_of_a_long_run_is_still_small(tmp_path):
    """Its curves are drawn in steps, of merged histograms: the slowest second is still there."""
    run = fresh()
    pattern = [line for line in run.seconds if line.series == "users" and line.phase == "steady"]
    run.seconds += [msgspec.structs.replace(pattern[t % 60], t=t) for t in range(110, 1300)]
    samples = [sample for sample in run.samples if sample.t < 60]
    run.samples += [msgspec.structs.replace(samples[n % 300], t=108.0 + n) for n in range(1_190)]
    run.run.phases[5:] = [msgspec.structs.replace(run.run.phases[5], end_s=1300)]
    run.seconds[-9].response = pack({1_234_567: 3})
    folder = run.write(tmp_path / "run")
    conclude(folder, Console(file=io.StringIO(), width=_COLUMNS))
    text = (folder / "report.html").read_text()
    assert len(text) < 400_000
    assert "Response time of each 3 s" in text
    assert re.search(r"\[12\d\d\.5,1229\.0\]", text)


def test_a_server_that_the_lab_did_not_start_has_no_empty_pictures(tmp_path):
    """Its counters cannot be read: no curve of its CPU time or memory, and those of the users."""
    run = fresh()
    for observed in (True, False):
        run.run.observed = observed
        text = write_reports(run.log(), judge(run.log()), tmp_path).read_text()
        assert ("Memory of the server against its limit" in text) is observed
        assert ("CPU of the server against its quota" in text) is observed
        assert "Requests per second" in text


def test_what_could_not_be_observed_does_not_hold_in_any_report(tmp_path):
    """A mark of its own, for lines of the objective and for rules, and the rules' names: `✓` and
    `holds` would be said of what nobody looked at. The claim names them too."""
    run = fresh()
    run.run.observed, run.run.replicas = False, []
    for sample in run.samples:
        sample.server = None
    shown = _shown(run, tmp_path / "run")
    assert re.search(r"kills for want of memory +– +≤ 0 +\? not observable", shown["table"])
    assert "14 of 17 rules hold, 3 not observable (V6, V11, V15)" in shown["table"]
    assert "| V11 limit in force | not observable |" in shown["markdown"]
    line = "| kills for want of memory | not observable | ≤ 0 | not observable |"
    assert line in shown["markdown"]
    assert "limits that the lab did not set" in shown["markdown"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert '<td class="soft">not observable</td>' in page
    claim = claim_of([Judged(run.run, judge(run.log()))])
    assert "not observable, nor what rules V5, V6, V8, V11, V15 need of them" in claim


def test_what_a_run_never_measured_is_not_called_missed(tmp_path):
    """A run that was given up in its ramp has no figures of its steady phase."""
    folder = fresh().write(tmp_path / "run")
    log = command.read(folder)
    verdict = judge(log)
    unknown = [msgspec.structs.replace(each, measured=None) for each in verdict.objective]
    verdict = msgspec.structs.replace(verdict, objective=unknown)
    write_reports(log, verdict, folder)
    paper = io.StringIO()
    Console(file=paper, width=_COLUMNS).print(summary(log.run, verdict))
    shown = [paper.getvalue()] + [(folder / f"report.{end}").read_text() for end in ("md", "html")]
    for text in shown:
        assert text.count("never measured") == len(unknown)
        assert not re.search(r"(✗ |\*\*|>)missed", text)


def test_what_is_to_be_typed_is_code_on_the_page(tmp_path):
    """The advice names options between backticks."""
    folder = fresh().write(tmp_path / "run")
    log = command.read(folder)
    verdict = msgspec.structs.replace(judge(log), sentence="Use `rate=` <first>.")
    write_reports(log, verdict, folder)
    assert "<p>Use <code>rate=</code> &lt;first&gt;.</p>" in (folder / "report.html").read_text()


def test_names_are_not_markup(tmp_path):
    """Text from a command line is shown as it is."""
    run = fresh()
    run.run.command = "<script>alert(1)</script> | x"
    folder = run.write(tmp_path / "run")
    conclude(folder, Console(file=io.StringIO(), width=_COLUMNS))
    assert "<script>alert" not in (folder / "report.html").read_text()
    assert "| <script>alert(1)</script> / x |" in (folder / "report.md").read_text()


def test_cpu_is_shown_as_a_multiple_of_the_null_server_and_the_machine_s_speed_with_it(tmp_path):
    """Where the record has them; microseconds of two machines do not compare."""
    run = fresh()
    run.run.null_server = NullServer(cpu_us=10.0, rate=150.0, users=1000, failures=0)
    run.run.calibration = Calibration(
        python_mops=21.5, syscalls_per_s=1.2e6, loopback_per_s=31_000, score=0.97
    )
    shown = _shown(run, tmp_path / "run")
    assert "µs** | per right answer; 11." in shown["markdown"]
    assert " × this run's null server (10.0 µs)" in shown["markdown"]
    assert " × this run's null server (10.0 µs)" in shown["table"]
    assert "| calibration | score 0.97: 21.5 million operations of Python, " in shown["markdown"]
    assert "| null server | 10.0 µs of CPU per request; 1,000 users, " in shown["markdown"]


@pytest.mark.slow
def test_a_run_cut_off_at_any_line_can_be_shown(tmp_path):
    """Whatever a kill left: a verdict, a page, and what is missing."""
    whole = fresh()
    for number, phases in enumerate(range(len(whole.run.phases))):
        run = fresh()
        run.run.ended, run.run.phases = None, run.run.phases[:phases]
        ends = run.run.phases[-1].end_s if run.run.phases else 0
        run.seconds = [line for line in run.seconds if line.t < (ends or 0)]
        run.samples = [sample for sample in run.samples if sample.t < (ends or 0)]
        verdict = conclude(
            run.write(tmp_path / str(number)), Console(file=io.StringIO(), width=_COLUMNS)
        )
        assert (verdict.outcome, bool(verdict.missing)) == ("INVALID", True)


def test_the_history_is_what_the_folders_hold(tmp_path):
    """Runs that come and go are noticed; one that was killed before it was judged is judged."""
    for seed, name in ((1, "20261120-1900-a"), (2, "20261120-1901-b")):
        conclude(made(seed=seed, identity=name).write(tmp_path / name), Console(file=io.StringIO()))
    (tmp_path / "20261120-1901-b" / "verdict.json").unlink()
    found = command.history(tmp_path)
    assert [(each.run.id, each.verdict.outcome) for each in found] == [
        ("20261120-1900-a", "PASS"),
        ("20261120-1901-b", "PASS"),
    ]
    paper = io.StringIO()
    Console(file=paper, width=160).print(history_table(found))
    assert "20261120-1901-b" in paper.getvalue()

    (tmp_path / "20261120-1900-a" / "run.json").unlink()
    (tmp_path / "of-another-version").mkdir()
    (tmp_path / "of-another-version" / "run.json").write_text('{"format": 99}')
    assert [each.run.id for each in command.history(tmp_path)] == ["20261120-1901-b"]
    paper = io.StringIO()
    asked = SimpleNamespace(command="history", store=tmp_path, json=False)
    command.main(asked, tmp_path, Console(file=paper, width=160))
    assert "20261120-1901-b" in paper.getvalue()
    assert "not shown because they cannot be read: 1 more" in " ".join(paper.getvalue().split())


def test_history_and_report_as_json(tmp_path, capsys):
    """Alone on standard output; figures that a run lacks are null."""
    name = "20261120-1900-a"
    conclude(made(seed=1, identity=name).write(tmp_path / name), Console(file=io.StringIO()))

    def printed(name):
        asked = SimpleNamespace(command=name, run="latest", store=tmp_path, json=True)
        command.main(asked, tmp_path, Console())
        return json.loads(capsys.readouterr().out)

    (listed,) = printed("history")
    one = printed("report")
    assert (listed["id"], listed["outcome"], listed["users"]) == (name, "PASS", one["users"])
    assert {key: one[key] for key in listed} == listed
    assert all(each["holds"] for each in one["objective"])
    assert Path(one["report"]).is_file()


def test_the_doctor_as_json(tmp_path, capsys, monkeypatch):
    """The findings of the table; the exit code says whether a run is possible."""
    found = [
        run_command.Finding("ports", "28,232"),
        run_command.Finding("open files", "1,024", "raise it"),
    ]
    monkeypatch.setattr(run_command, "examine", lambda *_: found)
    assert run_command.doctor({}, tmp_path, Console(), as_json=True) == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "possible": False,
        "findings": [
            {"what": "ports", "found": "28,232", "hint": ""},
            {"what": "open files", "found": "1,024", "hint": "raise it"},
        ],
    }


def test_runs_are_found_by_name(tmp_path):
    """By id, by its beginning, as the latest; else the message says how."""
    for name in ("20261120-1900-a", "20261120-1901-b"):
        fresh().write(tmp_path / name)
    assert (
        command.find(tmp_path, "latest").name
        == command.find(tmp_path, "20261120-1901").name
        == "20261120-1901-b"
    )
    assert command.find(tmp_path, str(tmp_path / "20261120-1900-a")).name == "20261120-1900-a"
    with pytest.raises(command.NoSuchRun, match="2 runs begin with '2026'"):
        command.find(tmp_path, "2026")
    with pytest.raises(command.NoSuchRun, match="no run 'x'"):
        command.find(tmp_path, "x")


def test_the_last_repeat_puts_the_claim_into_the_reports_of_all(tmp_path):
    """Once all are there and hold; not before."""
    for number in (1, 2, 3):
        run = made(seed=number, identity=f"run-{number}")
        run.run.set_id, run.run.repeat, run.run.repeats = "set", number, 3
        conclude(run.write(tmp_path / run.run.id), Console(file=io.StringIO()))
        claimed = ["Verified on" in page.read_text() for page in tmp_path.glob("*/report.html")]
        assert claimed == [number == 3] * number


def test_a_full_disk_costs_the_reports_but_not_the_verdict(tmp_path):
    """The table is shown, and a sentence says what is missing."""
    folder, paper = fresh().write(tmp_path / "run"), io.StringIO()
    (folder / "verdict.json").mkdir()  # stands for every error of writing
    assert conclude(folder, Console(file=paper, width=_COLUMNS)).outcome == "PASS"
    assert "the reports could not be written: " in paper.getvalue()


def _shown_live(console: Console, seconds: Sequence[tuple[str, Tick]]) -> None:
    """A second each, of 10,000 users and half a core; the server uses 0.2 of it."""
    now = [0.0]
    asked = {"users": 10_000, "quota_cores": 0.5, "total_s": 95.0}
    with LiveLine(console, **asked, clock=lambda: now[0]) as line:  # type: ignore[arg-type]
        for t, (phase, tick) in enumerate(seconds):
            now[0], line.phase = float(t), phase  # type: ignore[assignment]
            server = ServerSample(
                cpu_s=0.2 * t,
                periods=100 * t,
                throttled_periods=25 * t,
                memory_bytes=1,
                memory_peak_bytes=1,
            )
            failures = Counter(tick.failures)
            book = SimpleNamespace(since=lambda _, one=tick: [[one]], whole=t, failures=failures)
            line.show(book, Sample(t=float(t), server=server))
            line.show(book, None)  # the same second once
        line.say("[done]")


def test_the_live_line_without_a_terminal_speaks_every_ten_seconds():
    """And when a phase begins; what is not known yet is a dash."""
    paper = io.StringIO()
    tick = Tick(worker="a", t=0, users=9_000, sent=1538, answered=1500, response=pack({3210: 1500}))
    phases = ["ramp"] * 3 + ["steady"] * 22
    _shown_live(Console(file=paper, width=300), [(phase, tick) for phase in phases])
    lines = paper.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["ramp", "steady", "steady", "steady", "[done]"]
    first = "users 9,000/10,000 · 1,538 → 1,500 req/s · p50/95/99 3.2/3.2/3.2 ms"
    assert lines[0] == (
        f"ramp     {first} · cpu –/0.5 · throttled – · lag – ms · failed 0 · 1:35 left"
    )
    assert lines[1] == (
        f"steady   {first} · cpu 0.20/0.5 · throttled 25% · lag – ms · failed 0 · 1:32 left"
    )


def test_the_live_line_on_a_terminal_stays_one_line():
    """It is drawn over, and gone at the end."""
    paper = io.StringIO()
    failing = Tick(worker="a", t=0, users=1, failures={"reset": 3})
    _shown_live(Console(file=paper, width=200, force_terminal=True), [("steady", failing)])
    assert "failed 3" in paper.getvalue()
    assert "\x1b[2K" in paper.getvalue()


def _write_golden() -> None:
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, run in RUNS.items():
            for kind, text in _shown(run(), Path(scratch) / name).items():
                (GOLDEN / f"{name}-{kind}.txt").write_text(text)


if __name__ == "__main__":
    _write_golden()
