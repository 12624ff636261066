"""`halfcore completion SHELL`: completion of commands, flags and values by Tab."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from halfcore.settings.groups import DEFAULTS

SHELLS = ("bash", "zsh", "fish")
_HELP = "print the completion of a shell"
_DESCRIPTION = """Print what makes Tab complete commands, flags and their values. bash: source
<(halfcore completion bash). fish: halfcore completion fish | source. zsh: halfcore
completion zsh > _halfcore in a folder of $fpath."""


def add_completion(
    commands: "argparse._SubParsersAction[Any]",
) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion", help=_HELP, description=_DESCRIPTION
    )
    parser.add_argument("shell", choices=SHELLS, help="whose completion")
    return parser


def script(
    parser: argparse.ArgumentParser,
    shell: str,
    late: Mapping[str, Callable[[argparse.ArgumentParser], None]],
) -> str:
    """The completion of a parser's commands, as text for the shell. `late` adds the arguments of
    commands that the parser has only the names of."""
    import shtab  # late: no other command needs it

    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its commands
        if isinstance(action.choices, dict):
            for name, add in late.items():
                add(action.choices[name])
    _complete_paths(parser)
    return shtab.complete(parser, shell)


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Let arguments that are paths complete to files."""
    import shtab  # late, as above

    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its options
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                _complete_paths(command)
        elif action.type is Path or isinstance(DEFAULTS.get(action.dest), Path):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # for shtab
