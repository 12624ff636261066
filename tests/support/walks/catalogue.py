"""Every command that a page or the justfile tells its reader to type, with the place where it
stands."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[3]
JUSTFILE = "justfile"
HISTORY = ("CHANGELOG.md", "docs/decisions/")
"""Pages that say what once was. Nobody types what they mention."""

_VARIABLES = r"(?:[A-Z][A-Z0-9_]*=(?:'[^']*'|\"[^\"]*\"|\S*)\s+)*"
_PROGRAMS = "uv run|halfcore|model-export|loadlab|docker|curl|python3|kubectl|kustomize|apt-get|cd"
_COMMAND = re.compile(rf"{_VARIABLES}(?:(?:just|\.ci/run)(?=\s|$)|(?:{_PROGRAMS})\s)")
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=\S*")
_SHELL = ("sh", "bash", "shell")
_COMMENT = re.compile(r"\s+#\s.*$")


class Place(NamedTuple):
    """Where a command stands."""

    page: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """What a reader is told to type; the same text on several pages is one command."""

    text: str
    """Without the comment behind it."""
    places: tuple[Place, ...]
    sql: bool = False
    before: str = ""
    """Lines above it, on the same page, that set variables which it names."""
    shown: str = ""
    """The JSON or text block right behind it, which says what the answer is."""

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.places))}: {self.text}"


def meets(text: str, pattern: str) -> bool:
    """Does a command meet a pattern, in which * stands for anything?"""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL) is not None


@cache
def documented() -> tuple[Command, ...]:
    """All commands, in the order of the pages."""
    found: dict[str, Command] = {}
    for page in pages():
        read = _in_justfile if page.name == JUSTFILE else _in_page
        for command in read(page):
            known = found.get(command.text)
            places = (*(known.places if known else ()), *command.places)
            shown = known.shown if known and known.shown else command.shown
            found[command.text] = replace(command, places=places, shown=shown)
    return tuple(sorted(found.values(), key=lambda command: command.places[0]))


@cache
def pages() -> tuple[Path, ...]:
    """The justfile, and the Markdown files that git tracks or would track; not those of
    `HISTORY`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", JUSTFILE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.splitlines() if not name.startswith(HISTORY)]
    return tuple(ROOT / name for name in names if (ROOT / name).exists())


@cache
def recipes() -> dict[str, str]:
    """The justfile's recipes, those that `just` lists, with their text."""
    parts = re.split(r"^([a-z][a-z-]*)(?=[^:\n]*:(?!=))", (ROOT / JUSTFILE).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(page: Path) -> Iterator[Token]:
    """A page's code blocks."""
    for token in _parsed(page):
        if token.type in {"fence", "code_block"}:
            yield token


def spans(page: Path) -> Iterator[tuple[str, int]]:
    """A page's code within sentences, with the line on which its paragraph begins."""
    for token in _parsed(page):
        for child in token.children or ():
            if child.type == "code_inline" and token.map:
                yield child.content, token.map[0] + 1


@cache
def _parsed(page: Path) -> tuple[Token, ...]:
    return tuple(MarkdownIt().enable("table").parse(page.read_text()))


def _in_page(page: Path) -> Iterator[Command]:
    name = str(page.relative_to(ROOT))
    for text, line in spans(page):
        if _COMMAND.match(text):
            yield Command(text, (Place(name, line),))
    typed: list[Command] = []
    follows = False
    for block in blocks(page):
        if follows and block.info in {"json", "text"}:
            typed[-1] = replace(typed[-1], shown=block.content.strip())
        found = list(_in_block(block, name))
        typed += found
        follows = bool(found)
    yield from _with_variables(typed)


def _with_variables(typed: list[Command]) -> Iterator[Command]:
    """A line that sets a variable and is used further down belongs to what uses it."""
    assignments: dict[str, str] = {}
    for position, command in enumerate(typed):
        only = _ASSIGNMENT.fullmatch(command.text)
        if only and any(f"${only[1]}" in later.text for later in typed[position + 1 :]):
            assignments[only[1]] = command.text
        else:
            before = [line for name, line in assignments.items() if f"${name}" in command.text]
            yield replace(command, before="\n".join(before))


def _in_block(block: Token, page: str) -> Iterator[Command]:
    first = (block.map or [0])[0] + (2 if block.type == "fence" else 1)
    if block.info == "sql":
        yield Command(block.content.strip(), (Place(page, first),), sql=True)
    elif block.info in _SHELL or (not block.info and _COMMAND.match(block.content)):
        yield from _lines(block.content.splitlines(), page, first)


def _lines(lines: list[str], page: str, first: int) -> Iterator[Command]:
    """One command for each line, or for several where a quote is still open."""
    text, begin = "", first
    for number, line in enumerate(lines, first):
        if not text:
            begin = number
        text = f"{text}\n{line}" if text else line
        if _open(text):
            continue
        bare = _COMMENT.sub("", text).strip()
        if bare and not bare.startswith("#"):
            yield Command(bare, (Place(page, begin),))
        text = ""


def _open(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return text.endswith("\\")


def _in_justfile(page: Path) -> Iterator[Command]:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("#"):
            for text in re.findall(r"`([^`]+)`", line):
                if _COMMAND.match(text):
                    yield Command(text, (Place(JUSTFILE, number),))
