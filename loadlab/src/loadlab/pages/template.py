"""The templates of the pages, and how numbers, ratios and rules are written in them."""

import os
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loadlab.experiments.compare import times
from loadlab.report.page import environment, number
from loadlab.verdict import rules

_TITLES = {rule.name: rule.title for rule in rules.RULES}
_NAMES, _WORDS = ("|".join(map(re.escape, each)) for each in (_TITLES, _TITLES.values()))
_RULE = re.compile(rf"\((?:{_NAMES})\)|\b({_NAMES})\b(?: (?:{_WORDS})\b)?")
"""A rule's number alone in brackets, which has its words before it; or a number, with its words if
they follow."""


def page(name: str, **context: Any) -> str:
    """A template's text without the newline at its end."""
    return _TEMPLATES.get_template(f"{name}.md.j2").render(context).strip("\n")


def link(file: Path, page: Path) -> str:
    """Leads from a page to a file."""
    return Path(os.path.relpath(file, page.parent)).as_posix()


def spanish(text: str) -> str:
    """A number as Spanish writes it: 1.538,5."""
    return text.translate(str.maketrans(",.", ".,"))


def ratio(value: float) -> str:
    """Below a half people read fractions: 2.03, 1/6.9."""
    return f"{value:.2f}" if value >= 0.5 else f"1/{1 / value:.1f}"


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def in_words(sentence: str) -> str:
    """A verdict for readers who do not know the rules: no number stands without its words."""

    def words(found: re.Match[str]) -> str:
        if not found[1]:
            return found[0]
        text = rules.in_words(found[1])
        begins = sentence[: found.start()].endswith((". ", "\n")) or not found.start()
        return text[:1].upper() + text[1:] if begins else text

    return _RULE.sub(words, sentence)


def broken_rules(sentence: str) -> str:
    """Only the rules that a verdict names, in words."""
    names = dict.fromkeys(re.findall(rf"\b(?:{_NAMES})\b", sentence))
    return ", ".join(rules.in_words(name) for name in names)


def cell(text: str) -> str:
    """Any text as it can stand in a table."""
    return text.replace("|", "/").replace("\n", " ")


def line(text: str) -> str:
    """Any text as it can stand in a list."""
    return " ".join(text.split())


def packages(versions: Mapping[str, str]) -> str:
    """Names and versions."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


_TEMPLATES = environment("loadlab.pages")
for _filter in (
    number,
    spanish,
    ratio,
    times,
    median,
    in_words,
    broken_rules,
    cell,
    line,
    packages,
):
    _TEMPLATES.filters[_filter.__name__] = _filter
