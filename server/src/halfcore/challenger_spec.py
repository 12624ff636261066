"""Parses the setting `challengers`: which model challenges which, and how."""

import re
from typing import Literal, NamedTuple, cast

FORM = (
    "NAME=SOURCE[;mode=shadow|canary][;share=NUMBER], SOURCE being version:N of a bundle or "
    "models:/NAME@ALIAS of a registry (a semicolon in a registered name is written %3B)"
)
_BETWEEN = re.compile(r"[\s,]+(?=[^\s,=;]+=(?:version|models):)")
"""Blanks or a comma before the next challenger; those inside a registered name do not separate."""


class ChallengerSpec(NamedTuple):
    """One challenger."""

    name: str
    """The public name whose champion is challenged."""
    source: str
    """`version:N`: a bundle in the directory of bundles; `models:/…`: followed in the registry."""
    mode: Literal["shadow", "canary"] = "shadow"
    """shadow: gets a copy of the requests; canary: answers a share of them instead of the
    champion."""
    share: float = 1.0
    """Part of the requests, above 0 and at most 1."""


def parse(text: str) -> list[ChallengerSpec]:
    """Parse the setting: challengers separated by blanks or commas.

    Raises:
        ValueError: what is wrong, and the form that was expected.
    """
    specs = [_parse_one(item) for item in _BETWEEN.split(text.strip()) if item]
    names = [spec.name for spec in specs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} has two challengers, expected at most one")
    return specs


def _parse_one(text: str) -> ChallengerSpec:
    head, *options = text.split(";")
    name, _, source = head.partition("=")
    kind, _, rest = source.partition(":")
    known = kind == "models" or (kind == "version" and not re.search(r"\s", rest))
    if not name or not known or not rest.strip("/"):
        raise ValueError(f"{head!r}, expected {FORM}")
    spec = ChallengerSpec(name, source)
    for option in options:
        key, _, value = option.partition("=")
        if key == "mode" and value in ("shadow", "canary"):
            spec = spec._replace(mode=cast('Literal["shadow", "canary"]', value))
        elif key == "share" and (share := _share(value)) is not None:
            spec = spec._replace(share=share)
        else:
            raise ValueError(
                f"{option!r} in {text!r}, expected mode=shadow, mode=canary, or share= a number "
                "above 0 and at most 1"
            )
    if spec.mode == "canary" and not any(option.startswith("share=") for option in options):
        raise ValueError(f"{text!r}: a canary needs its share, such as share=0.1")
    return spec


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
