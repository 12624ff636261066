"""A command line that answers a wrong word with the right one."""

import argparse
import re
from difflib import get_close_matches
from typing import Any, NoReturn

_MOST_LINES = 8
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'")


class Parser(argparse.ArgumentParser):
    """An argument parser that adds "did you mean" to its errors, and takes no shortened options:
    they would stop to work when another one begins alike. Python's own has this from 3.14 on."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | options)  # type: ignore[arg-type]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command refuses what it does not know itself: its usage and its words help, those of
        the whole program do not."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
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
        wrong = _wrong_word(message)
        known = _words(self, options=wrong.startswith("-"))
        super().error(message + did_you_mean(wrong, known))


def did_you_mean(wrong: str, known: list[str]) -> str:
    """A sentence with the known word that is most like the wrong one; empty if none is."""
    found = get_close_matches(wrong, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _wrong_word(message: str) -> str:
    match = _UNKNOWN.search(message)
    return "" if match is None else (match[1] or match[2]).partition("=")[0]


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
