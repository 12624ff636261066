"""What to follow: MLflow's `models:/` URIs, each under the name that clients use."""

import re
from typing import Literal, NamedTuple

CHAMPION = "champion"
"""The role of the model that answers."""
_URI = re.compile(r"models:/(?P<registered>[^/]+?)(?:@(?P<alias>[\w-]+)|/(?P<rest>[^/@\s]+))")
_SEPARATORS = {"%2C": ",", "%3B": ";"}
"""Escapes in a registered name for the characters that separate entries in `HALFCORE_FOLLOW` and
`HALFCORE_CHALLENGERS`."""
_BETWEEN = re.compile(r"\s*,\s*|\s+(?=(?:[\w.-]+=)?models:/)")
"""A comma, or white space before the next entry: a registered name may hold blanks."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXPECTED = "expected models:/NAME@ALIAS, models:/NAME/STAGE or models:/NAME/VERSION"


class Followed(NamedTuple):
    """One model to follow."""

    name: str
    """The name that clients use: /models/NAME/predict."""
    role: str
    """`champion` answers; the caller may define other roles."""
    uri: str
    registered: str
    """Its name in the registry."""
    kind: Literal["alias", "stage", "version", "latest"]
    reference: str
    """The alias, stage or version."""


def parse(text: str) -> list[Followed]:
    """Read a list of `[NAME=]models:/…`, separated by commas or white space.

    Raises:
        ValueError: an entry is not such a URI, a name is given twice, or the registered name is not
            valid in a path and no other is given.
    """
    followed = [parse_one(entry) for entry in _BETWEEN.split(text.strip()) if entry]
    names = [one.name for one in followed]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the name {name!r} twice; give one of them another: NAME=models:/…")
    return followed


def parse_one(entry: str, role: str = CHAMPION) -> Followed:
    """Read one `[NAME=]models:/…`; raises as `parse`."""
    given, _, uri = ("", "", entry) if entry.startswith("models:/") else entry.partition("=")
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"{entry!r}, {_EXPECTED}, or NAME= before one of them (a comma in a registered name "
            "is written %2C)"
        )
    registered, alias, rest = match["registered"], match["alias"], match["rest"]
    for written, meant in _SEPARATORS.items():
        registered = registered.replace(written, meant)
    name = registered if uri == entry else given
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the name {name!r} in {entry!r}, expected letters, digits, dots, dashes and "
            f"underscores; give one: NAME={uri}"
        )
    reference = alias or rest
    if reference.lower() == "latest":
        return Followed(name, role, uri, registered, "latest", reference)
    kind: Literal["alias", "stage", "version"] = (
        "alias" if alias else "version" if rest.isdecimal() else "stage"
    )
    return Followed(name, role, uri, registered, kind, reference)
