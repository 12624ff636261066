"""A command line that suggests the right word for a wrong one."""

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn, TypeVar

P = TypeVar("P", bound=argparse.ArgumentParser)

_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'")


class Parser(argparse.ArgumentParser):
    """An argument parser that adds "did you mean" to its errors, and accepts no shortened
    options: a new option with the same beginning would break them. Python's own suggests words from
    3.14 on."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print how it is used and what is wrong, and exit with 2."""
        super().error(message + _meant(message, _words(self)))


def add_command(commands: "argparse._SubParsersAction[P]", name: str, says: str) -> P:
    """A command, with one sentence that both its own help and that of the program begin with."""
    return commands.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")


def did_you_mean(wrong: str, known: Iterable[str], value: str = "") -> str:
    """A sentence with the known word that is most like the wrong one, and `value` after it; empty
    if none is."""
    found = get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {found[0]}{value}?" if found else ""


def _meant(message: str, known: list[str]) -> str:
    match = _UNKNOWN.search(message)
    wrong, equals, value = ("" if match is None else match[1] or match[2]).partition("=")
    return did_you_mean(wrong, known, f"{equals}{value}")


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Its options and commands, and theirs."""
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its options
        words += action.option_strings
        if isinstance(action.choices, dict):
            words += action.choices
            for command in action.choices.values():
                words += _words(command)
        elif action.choices is not None:
            words += map(str, action.choices)
    return words
