"""The settings as options of the command line, in their groups."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields

from halfcore.settings.groups import DEFAULTS, GROUPS, descriptions
from halfcore.settings.names import OLD_NAMES, SECRETS, SEED_NAMES, flag, variable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser one option per setting, with its meaning, default and environment names."""
    secrets = []
    for group in GROUPS:
        section = parser.add_argument_group(title_of(group))
        for name in (field.name for field in fields(group)):
            if name in SECRETS:
                secrets.append(f"{_variables(name)} (or a file named by ..._FILE): {_what(name)}.")
            else:
                _add_argument(section, name)
    parser.epilog = f"Only from the environment: {' '.join(secrets)}"


def title_of(group: type) -> str:
    """A group's heading: its docstring without the full stop."""
    return (group.__doc__ or "").removesuffix(".")


def _add_argument(section: "argparse._ArgumentGroup", name: str) -> None:
    default = str(DEFAULTS[name]) or "empty"
    text = f"{_what(name)} (default: {default}; environment: {_variables(name)})"
    section.add_argument(
        flag(name),
        dest=name,
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help=text.replace("%", "%%"),
    )
    if name in OLD_NAMES:
        section.add_argument(
            flag(OLD_NAMES[name]), dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def _variables(name: str) -> str:
    return ", ".join(filter(None, (variable(name), SEED_NAMES.get(name))))


def _what(name: str) -> str:
    return descriptions()[name]


def renamed(command_line: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The old names that are in use, each with the new one."""
    given = {argument.partition("=")[0] for argument in command_line}
    found = []
    for name, before in OLD_NAMES.items():
        if variable(before) in environ:
            found.append((variable(before), variable(name)))
        if flag(before) in given:
            found.append((flag(before), flag(name)))
    return found
