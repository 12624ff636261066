"""docs/command-line.md names every command, and every command ends as it says where it is used
wrongly."""

import re
import sys

import pytest

from support.walks.catalogue import ROOT
from walks.test_help import PROGRAMS

PAGE = (ROOT / "docs/command-line.md").read_text()


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """The exit code of a command, and what it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        with pytest.raises(SystemExit) as left:
            PROGRAMS[words[0]]()
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """All there are."""
    return [
        (program, name)
        for program in PROGRAMS
        for name in re.findall(
            r"^    ([a-z][a-z-]*)(?: {2,}\S|$)", shown(capsys, program, "--help")[1], re.M
        )
    ]


def test_every_command_has_its_exit_codes(commands: list[tuple[str, str]]) -> None:
    """One row each; none that there is not."""
    table = PAGE.partition("## Exit codes")[2].partition("## JSON")[0]
    first_cells = re.findall(r"^\| (`.+?) \|", table, re.M)
    listed = [name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(listed) == sorted(f"{program} {name}" for program, name in commands)


def test_every_command_with_json_is_listed(
    commands: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those whose help has the flag."""
    table = PAGE.partition("## JSON")[2].partition("```")[0]
    listed = re.findall(r"^\| `(\S+ \S+)`", table, re.M)
    with_flag = [
        f"{program} {name}"
        for program, name in commands
        if "--json" in shown(capsys, program, name, "--help")[1]
    ]
    assert sorted(listed) == sorted(with_flag)


def test_an_unknown_flag_ends_every_command_with_2(
    commands: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is done, with the usage and the flag on standard error; a command that takes
    words refuses it as one of them, with 3."""
    for program, name in commands:
        takes_words = "[KEY=VALUE ...]" in shown(capsys, program, name, "--help")[1]
        code, out, err = shown(capsys, program, name, "--no-such-flag")
        assert (code, out) == (3 if takes_words else 2, ""), (program, name)
        begins = "--no-such-flag" if takes_words else f"usage: {program} "
        assert begins in err, (program, name)
    for program in PROGRAMS:
        code, _, err = shown(capsys, program, "no-such-command")
        assert code == 2
        assert "invalid choice: 'no-such-command'" in err
