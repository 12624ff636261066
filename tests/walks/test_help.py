"""`--help` of every command, and that it knows the commands, flags and words which pages
document."""

import re
import sys
from collections.abc import Callable

import pytest

import halfcore.__main__
import loadlab.__main__
import model_export.__main__
from support.walks.catalogue import ROOT, documented, pages, spans

PROGRAMS: dict[str, Callable[[], object]] = {
    "halfcore": halfcore.__main__.main,
    "loadlab": loadlab.__main__.main,
    "model-export": model_export.__main__.main,
}
FOREIGN = {
    "--serve-artifacts",
    "--artifacts-destination",
    "--allowed-hosts",
    "--enable-workspaces",
    "--network",
    "--no-build",
    "--profile",
    "--scale",
    "--ulimit",
    "--user",
    "--wait",
}
"""Flags of MLflow's server and of Docker that pages mention."""
OF_LOCUST = {"--user", "--scenario", "--model"}
"""Flags of loadlab/locustfile.py."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.fixture
def helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Each command with its help; each must exit with 0."""

    def shown(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", [*words, "--help"])
        with pytest.raises(SystemExit) as left:
            PROGRAMS[words[0]]()
        assert left.value.code == 0, words
        return capsys.readouterr().out

    found = {}
    for program in PROGRAMS:
        found[program] = shown(program)
        for name in re.findall(r"^    ([a-z][a-z-]*)(?: {2,}\S|$)", found[program], re.M):
            found[f"{program} {name}"] = shown(program, name)
    return found


def test_every_command_that_a_page_mentions_has_help_with_its_flags(helps: dict[str, str]) -> None:
    """So has every other one."""
    assert len(helps) >= 3 + 2 + 5 + 15
    for command in documented():
        for program, name, rest in re.findall(
            r"(?:^|\s)(halfcore|loadlab|model-export) ([a-z][a-z-]*)(.*)", command.text
        ):
            assert f"{program} {name}" in helps, command
            for flag in _FLAG.findall(rest):
                assert flag in helps[f"{program} {name}"], (str(command), flag)


def test_every_flag_that_a_page_mentions_alone_exists(helps: dict[str, str]) -> None:
    """In the help of one of the commands, or in the locustfile."""
    known = {flag for text in helps.values() for flag in _FLAG.findall(text)} | FOREIGN
    assert all(
        f'"{flag}"' in (ROOT / "loadlab/src/loadlab/generator/locust_users/hooks.py").read_text()
        for flag in OF_LOCUST
    )
    for page in pages():
        for text, line in spans(page):
            if text.startswith("--"):
                assert set(_FLAG.findall(text)) <= known | OF_LOCUST, (
                    f"{page.relative_to(ROOT)}:{line}: {text}"
                )


def test_the_exporters_flags_are_those_of_its_page(helps: dict[str, str]) -> None:
    """No more, no less."""
    table = (
        (ROOT / "docs/export.md").read_text().partition("| flag | does |")[2].partition("\n\n")[0]
    )
    assert set(_FLAG.findall(table)) == set(_FLAG.findall(helps["model-export export"])) - {
        "--help"
    }


@pytest.mark.parametrize(
    ("page", "command"), [("docs/loadlab.md", "load"), ("docs/search.md", "search")]
)
def test_every_word_of_the_lab_is_in_its_help(
    helps: dict[str, str], page: str, command: str
) -> None:
    """The keys of the page's table are keys of the command."""
    table = (ROOT / page).read_text().partition("| key | values")[2].partition("\n\n")[0]
    words = [
        word
        for row in re.findall(r"^\| (`.+?) \|", table, re.M)
        for word in re.findall(r"`([a-z-]+)`", row)
    ]
    listed = re.search(r"KEY=VALUE +of ([^\n]+(?:\n {2,}[^\n]+)*)", helps[f"loadlab {command}"])
    assert listed
    known = re.split(r",\s+", re.sub(r"-\s+", "-", listed[1]).strip())
    assert words
    assert set(words) <= set(known)
    if command == "load":
        assert set(words) == set(known)
