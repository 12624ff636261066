"""A command line that suggests the right word for a wrong one; and `loadlab completion SHELL`: its
commands, flags and values by Tab.
"""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

P = TypeVar("P", bound=argparse.ArgumentParser)

_MOST_LINES = 8
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'")
SHELLS = ("bash", "zsh", "fish")
_HELP = "print the completion of a shell"
_DESCRIPTION = """Print what makes Tab complete commands, flags and their values. bash: source
<(loadlab completion bash). fish: loadlab completion fish | source. zsh: loadlab
completion zsh > _loadlab in a folder of $fpath."""


class Parser(argparse.ArgumentParser):
    """An argument parser that adds "did you mean" to its errors, and accepts no shortened
    options: a new option with the same beginning would break them. Python's own suggests words from
    3.14 on."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | options)  # type: ignore[arg-type]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command refuses what it does not know itself: its usage and its words help, those of
        the whole program do not. One of words (`tier=half-core`) explains them itself."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown and "words" not in known:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def format_usage(self) -> str:
        """Of some lines at most: above an error, a list of all options would hide it."""
        usage = super().format_usage()
        if usage.count("\n") > _MOST_LINES:
            usage = f"usage: {self.prog} …; `{self.prog} --help` shows its arguments\n"
        return usage

    def error(self, message: str) -> NoReturn:
        """Print how it is used and what is wrong, and exit with 2."""
        match = _UNKNOWN.search(message)
        wrong, equals, value = ("" if match is None else match[1] or match[2]).partition("=")
        known = _words(self, options=wrong.startswith("-"))
        super().error(message + did_you_mean(wrong, known, f"{equals}{value}"))


def add_command(commands: "argparse._SubParsersAction[P]", name: str, says: str) -> P:
    """A command, with one sentence that both its own help and that of the program begin with."""
    return commands.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")


def did_you_mean(wrong: str, known: Iterable[str], value: str = "") -> str:
    """A sentence with the known word that is most like the wrong one, and `value` after it; empty
    if none is."""
    found = get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {found[0]}{value}?" if found else ""


def _words(parser: argparse.ArgumentParser, *, options: bool) -> list[str]:
    """Its options, with those of its commands or with its choices."""
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its options
        words += action.option_strings
        if not options:
            words += map(str, action.choices or ())
        elif isinstance(action.choices, dict):
            for command in action.choices.values():
                words += _words(command, options=True)
    return words


def add_completion(
    commands: "argparse._SubParsersAction[Any]",
) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion", help=_HELP, description=_DESCRIPTION
    )
    parser.add_argument("shell", choices=SHELLS, help="whose completion")
    return parser


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion of a parser's commands, as text for the shell."""
    import shtab  # late: no other command needs it

    _complete_paths(parser)
    return shtab.complete(parser, shell)


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Let arguments that are paths complete to files."""
    import shtab  # late, as above

    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its options
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                _complete_paths(command)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # for shtab
