"""Every measured figure in the documentation comes from a stored run.

Figures are written by `loadlab render`: all of docs/benchmarks.md, and what stands between marks
(`<!-- figures -->`, `<!-- memory -->`) in other pages. Whatever else looks like a measurement has
to be in `allowed_figures.toml`, with the reason why it is none: a setting, a limit, arithmetic. A
measurement has no place there: measure it with a recipe that stores it, or leave it out.
"""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from loadlab.pages import render
from loadlab.record.store import VERDICT_FILE, read, write
from loadlab.verdict.judge import judge

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs/runs"
WRITTEN = ROOT / "docs/benchmarks.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "README.es.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page != WRITTEN),
]
ALLOWED: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("allowed_figures.toml").read_text()
)

_NUMBER = r"(?<![\w.,-])\d[\d,.]*(?:\s?(?:–|-|to)\s?\d[\d,.]*)?"
_UNIT = (
    r"µs|us|ms|s|seconds?|minutes?|hours?|(?:requests|answers|predictions)(?:/s| a "
    r"second)|/s|[kKMG]i?B|megabytes|bytes|%|per cent|times|x"
    r"|cores?|of a core"
)
FIGURE = re.compile(rf"{_NUMBER}\s?(?:{_UNIT})(?!\w)")
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_MARKED = re.compile(r"<!-- (\w+) -->.*?<!-- /\1 -->", re.DOTALL)


def unexplained(page: str, text: str) -> list[str]:
    """Figures outside of code, marks and what is allowed for a page, each with its line."""
    for phrase in ALLOWED.get(page, {}):
        text = text.replace(phrase, "")
    lines = _MARKED.sub("", _CODE.sub("", text)).splitlines()
    return [
        f"{found.group()}: {line.strip()[:160]}"
        for line in lines
        for found in FIGURE.finditer(line)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_tells_a_measurement_of_its_own(page):
    """What looks like one is written from a stored run, or explained."""
    assert not unexplained(str(page.relative_to(ROOT)), page.read_text())


def test_what_is_allowed_is_there_and_has_a_reason():
    """An entry that explains nothing any more would explain the next figure of its form."""
    for page, phrases in ALLOWED.items():
        text = (ROOT / page).read_text()
        for phrase, reason in phrases.items():
            assert phrase in text, f"{page}: {phrase!r} is not there"
            assert FIGURE.search(phrase), f"{page}: {phrase!r} needs no entry"
            assert len(reason.split()) > 1, f"{page}: {phrase!r} has no reason"


@pytest.mark.parametrize(
    "claim",
    [
        "It answers 5,714 requests/s.",
        "p99 is 4.8 ms",
        "takes 47.4 µs of CPU",
        "holds 59 MB",
        "1/4 of the time, 2.5 times faster",
        "12 % slower",
    ],
)
def test_a_measurement_without_a_run_is_found(claim):
    """In every form in which one was ever written here."""
    assert unexplained("README.md", claim)


def test_the_documents_are_what_the_stored_runs_say(tmp_path):
    """docs/benchmarks.md, its pictures, and the marked parts of READMEs and operations: made again,
    byte for byte."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for readme in ("README.md", "README.es.md"):
        shutil.copy(ROOT / readme, tmp_path)
    for made in tmp_path.glob("docs/benchmarks*"):
        made.unlink()
    written = render.render(tmp_path / "docs/runs", tmp_path / "docs/benchmarks.md")

    assert {file.name for file in tmp_path.glob("docs/benchmarks*")} == {
        file.name for file in ROOT.glob("docs/benchmarks*")
    }
    for file in written:
        assert file.read_bytes() == (ROOT / file.relative_to(tmp_path)).read_bytes(), (
            f"{file.name}: `loadlab render` writes it otherwise"
        )


@pytest.mark.parametrize(
    "run", sorted(file.parent for file in RUNS.glob("*/run.json")), ids=lambda run: run.name
)
def test_a_kept_load_run_is_judged_as_it_was(run, tmp_path):
    """Its record alone gives the verdict that was stored with it."""
    write(judge(read(run)), tmp_path / VERDICT_FILE)
    assert (tmp_path / VERDICT_FILE).read_bytes() == (run / VERDICT_FILE).read_bytes()
