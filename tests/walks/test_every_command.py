"""Each documented command is walked, or a reason says why not; and what pages name (variables,
flags, headings) exists."""

import re
import subprocess
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from halfcore.settings.groups import DEFAULTS
from halfcore.settings.names import FILE, PREFIX, SECRETS, SEED_NAMES
from model_export.watch.settings import PREFIX as WATCH_PREFIX
from model_export.watch.settings import WatchSettings
from support.walks.catalogue import ROOT, Command, blocks, documented, meets, pages, recipes, spans
from support.walks.tables import ADAPTATIONS, EXCLUDED
from support.walks.walker import claimed

HERE = Path(__file__).parent
QUICK = sorted(HERE.glob("test_*.py"))
LONG = sorted(HERE.glob("long_*.py"))
IN_IMAGES = ROOT / "tests/images/test_walks.py"
LEAST = 40
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
FOREIGN = {
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "SO_REUSEPORT",
    "PIP_BREAK_SYSTEM_PACKAGES",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
}
"""Variables that only MLflow, the driver of S3, OpenSSL or pip reads, and names of other things."""


@cache
def texts(*files: Path) -> set[str]:
    """The commands that the tests of files execute."""
    return {command.text for file in files if file != Path(__file__) for command in claimed(file)}


def excluded(command: Command) -> bool:
    """Does a line of the table say why no walk types it?"""
    return any(meets(command.text, line.pattern) for line in EXCLUDED)


def test_every_documented_command_is_walked_or_its_exclusion_has_a_reason() -> None:
    """A new command in a page needs a walk in tests/walks or tests/images, or a line in `EXCLUDED`;
    not both."""
    walked = texts(*QUICK, *LONG, IN_IMAGES)
    neither = [
        str(command)
        for command in documented()
        if command.text not in walked and not excluded(command)
    ]
    both = [
        str(command) for command in documented() if command.text in walked and excluded(command)
    ]
    assert not neither, "\n".join(["neither walked nor excluded:", *neither])
    assert not both, "\n".join(["walked and excluded:", *both])


def test_enough_documented_commands_are_walked_in_every_run_of_the_tests() -> None:
    """SQL is not counted."""
    commands = {command.text for command in documented() if not command.sql} & texts(*QUICK)
    assert len(commands) >= LEAST, f"{len(commands)} commands"


def test_every_recipe_is_walked_or_excluded() -> None:
    """By a command that begins with its name."""
    walked = texts(*QUICK, *LONG, IN_IMAGES)
    for name in recipes():
        pattern = re.compile(rf"(?:.* )?just {name}(?: .*)?", re.DOTALL)
        known = any(pattern.fullmatch(text) for text in walked) or any(
            pattern.fullmatch(line.pattern.rstrip("*")) for line in EXCLUDED
        )
        assert known, f"`just {name}` is neither walked nor excluded"


@pytest.mark.parametrize("line", EXCLUDED, ids=lambda line: line.pattern)
def test_an_exclusion_is_needed_and_true(line) -> None:
    """It excludes something that a page documents; and where it names a file, the command stands
    there."""
    assert line.reason
    meant = [command.text for command in documented() if meets(command.text, line.pattern)]
    assert meant, "nothing documented is excluded by it"
    if line.executed_by:
        script = (ROOT / line.executed_by).read_text()
        program = re.search(r"just [a-z-]+|pip install", meant[0])
        assert program
        assert program[0] in script or program[0].replace(" install", "") in script


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=lambda adaptation: adaptation.documented)
def test_an_adaptation_is_needed(adaptation) -> None:
    """It meets a command that is walked."""
    walked = texts(*QUICK, *LONG, IN_IMAGES)
    assert adaptation.reason
    assert any(re.search(adaptation.documented, text) for text in walked)


def test_every_variable_that_a_page_names_is_read_somewhere() -> None:
    """In code, a script, a compose file, a Dockerfile or a recipe."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    files = [
        ROOT / name
        for name in listed.stdout.splitlines()
        if not name.startswith(("docs/", "tests/")) and not name.endswith(".md")
    ]
    code = "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    settings = _variables_of_settings()
    for page in pages():
        named = [text for text, _ in spans(page)] + [
            block.content for block in blocks(page) if block.info != "sql"
        ]
        found = {name for text in named for name in _VARIABLE.findall(text)} - FOREIGN - settings
        unread = sorted(name for name in found if not re.search(rf"\b{name}\b", code))
        assert not unread, f"{page.relative_to(ROOT)} names {', '.join(unread)}"


def _variables_of_settings() -> set[str]:
    """Those that the server and the watch make from the names of their settings."""
    server = {f"{PREFIX}{name.upper()}" for name in DEFAULTS}
    secrets = {
        variable + FILE
        for name in SECRETS
        for variable in (f"{PREFIX}{name.upper()}", SEED_NAMES.get(name, ""))
    }
    watch = {f"{WATCH_PREFIX}{field.name.upper()}" for field in fields(WatchSettings)}
    return server | secrets | watch


def test_every_heading_that_is_linked_exists() -> None:
    """Links such as operations.md#settings; that the files exist, tests/contract/test_docs.py
    checks."""
    for page in pages():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            other = page.parent / target if target else page
            headings = re.findall(r"^#+ (.+)$", other.read_text(), re.M)
            anchors = {
                re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
                for heading in headings
            }
            assert anchor in anchors, f"{page.relative_to(ROOT)} links to {target}#{anchor}"
