"""Command words, `key=value`: a struct describes those of a command, one parser understands them.

A field is a word; its type says which values are possible, `Meta` the range, the help text and,
as `extra`, what a number counts. A command that takes a load run's words and more inherits from
`LoadWords`; a default that differs there is the field again, with its own default.
"""

import argparse
import re
import types
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from loadlab.parser import did_you_mean

T = TypeVar("T")
W = TypeVar("W", bound=msgspec.Struct)
YesNo = Literal["yes", "no"]
BackendChoice = Literal["auto", "cgroup", "compose"]
"""What a user may ask for; `record.schema.Backend` is what a run had."""
EngineChoice = Literal["locust", "raw"]
EngineWord = Annotated[
    EngineChoice, Meta(description="what sends the load: Locust, or one epoll loop")
]
Ramp = Literal["smooth", "stepped"]
Balancer = Literal["none", "http", "tcp"]
"""`http` deals out requests, `tcp` connections; `none`: users take the replicas' addresses in
turn."""
UserKind = Literal["raw", "fast", "stock", "fast-unmended"]

_LISTED = "(a wrong name lists all)"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
LONGEST_S = 7 * 24 * 3600
"""Of a steady phase."""


class UsageError(ValueError):
    """A word of the command line, or a tier or scenario that it names, is wrong; the message quotes
    it and says what was expected."""


class LoadWords(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """`just load`; None and empty: as the scenario says, or not asked for."""

    tier: Annotated[
        str, Meta(description=f"the server's limits and replicas: a tier {_LISTED}")
    ] = ""
    scenario: Annotated[str, Meta(description=f"what the users do: a scenario {_LISTED}")] = (
        "steady"
    )
    users: Annotated[
        int | None, Meta(ge=1, le=1_000_000, description="users at once; else the scenario's")
    ] = None
    rate: Annotated[int, Meta(ge=1, le=100_000, description="users started per second")] = 500
    duration: Annotated[
        float | None,
        Meta(gt=0, le=LONGEST_S, description="length of the steady phase; else the scenario's"),
    ] = None
    backend: Annotated[
        BackendChoice,
        Meta(description="the server is a process in a control group, or a container"),
    ] = "auto"
    target: Annotated[
        str, Meta(description="host:port of a server that is already running, without a tier")
    ] = ""
    repeats: Annotated[
        int, Meta(ge=1, le=100, description="how many runs, each with a fresh server")
    ] = 1
    web: Annotated[
        Literal["on", "off"], Meta(description="show Locust's own page on 127.0.0.1:8089")
    ] = "off"
    engine: EngineWord = "locust"
    ramp: Annotated[
        Ramp, Meta(description="users of a second start one by one, or all at its beginning")
    ] = "smooth"
    user: Annotated[UserKind, Meta(description="class of Locust's users")] = "raw"
    workers: Annotated[
        int, Meta(ge=0, le=256, description="Locust's worker processes; 0: as many as needed")
    ] = 0
    remote: Annotated[
        int,
        Meta(ge=0, le=256, description="Locust workers on other machines (`just load-worker`)"),
    ] = 0
    listen: Annotated[
        str, Meta(description="this machine's address, to which remote workers connect")
    ] = ""
    model: Annotated[str, Meta(description="name of the model whose rows are sent")] = "iris"
    seed: Annotated[
        int, Meta(ge=0, le=2**31, description="seed of the random think times and bodies")
    ] = 1
    allow_host: Annotated[
        str, Meta(description="target='s host, if it is another machine that is yours")
    ] = ""
    balancer: Annotated[
        Balancer, Meta(description="HAProxy in front of replicas that are processes")
    ] = "none"
    caching: Annotated[
        str, Meta(description="what the server caches, in words: the verdict shows it")
    ] = ""


def parse(
    kind: type[W],
    words: Sequence[str],
    refused: Mapping[str, str] | None = None,
    names: Mapping[str, Collection[str]] | None = None,
) -> W:
    """Understand the words of a command line.

    Args:
        refused: words that `kind` has and this command does not take, with the reason.
        names: the values of words that no type knows, such as tiers, for the hint in an error.

    Raises:
        UsageError: an unknown or refused key, one given twice, without a value, or with one that
            is not possible; or a word that has no default is missing.
    """
    refused = refused or {}
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    given: dict[str, object] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        key, equals, text = word.partition("=")
        if (typed := _bare(key)) in refused:
            raise UsageError(f"{word}: {refused[typed]}")
        if not equals or key not in fields:
            known = {name: field for name, field in fields.items() if name not in refused}
            value = "" if "=" in following or following.startswith("-") else following
            meant = _meant(word, value, known, names or {})
            raise UsageError(
                f"{word}: unknown; expected key=value with one of {', '.join(known)}{meant}"
            )
        if fields[key].name in given:
            raise UsageError(f"{key}= is given twice")
        given[fields[key].name] = _value(key, text, fields[key].type)
    for key, field in fields.items():
        if field.required and field.name not in given:
            raise UsageError(f"{key}= is missing")
    return kind(**given)


def _bare(key: str) -> str:
    """A key that was typed as a flag, or as a field of Python, without that."""
    return key.lstrip("-").replace("_", "-")


def _meant(
    word: str,
    following: str,
    known: Mapping[str, msgspec.structs.FieldInfo],
    names: Mapping[str, Collection[str]],
) -> str:
    """A sentence with what a wrong word was probably meant to be: a key, also as in `tier NAME` or
    `--tier NAME`, or a value whose key was left out; empty if it is like neither."""
    key, equals, text = word.partition("=")
    key = _bare(key)
    if equals:
        return did_you_mean(key, known, f"={text or '…'}")
    meant = {name: f"{name}={following or '…'}" for name in known}
    for name, field in known.items():
        kind, _ = _unwrap(field.type)
        values = get_args(kind) if get_origin(kind) is Literal else names.get(name, ())
        meant = {value: f"{name}={value}" for value in values} | meant
    found = get_close_matches(key, meant, n=1)
    return f"; did you mean {meant[found[0]]}?" if found else ""


def choose(known: Mapping[str, T], key: str, name: str) -> T:
    """What has this name, of a word `key`; raises `UsageError` with the known ones."""
    if name not in known:
        meant = did_you_mean(name, known)
        raise UsageError(f"{key}={name} is unknown; there are {', '.join(known)}{meant}")
    return known[name]


def table(kind: type[msgspec.Struct], refused: Collection[str] = ()) -> str:
    """The words of a command as text in columns: key, possible values, default, help."""
    rows = [("word", "values", "default", "meaning")]
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in refused:
            default = "" if field.required or field.default in {None, ""} else f"{field.default}"
            says = _unwrap(field.type)[1].description or ""
            rows.append((field.encode_name, _possible(field.type), default, says))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def add_to(
    parser: argparse.ArgumentParser, kind: type[msgspec.Struct], refused: Collection[str] = ()
) -> None:
    """Let a command take words (as `words`), and show their table in its help."""
    keys = (field.encode_name for field in msgspec.structs.fields(kind))
    known = ", ".join(key for key in keys if key not in refused)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=f"of {known}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = table(kind, refused)


def _unwrap(annotated: Any) -> tuple[Any, Meta]:
    """The type itself, without `None`, and what is said of it."""
    meta = Meta()
    if get_origin(annotated) is Annotated:
        annotated, meta = get_args(annotated)
    if get_origin(annotated) in {Union, types.UnionType}:
        (annotated,) = (each for each in get_args(annotated) if each is not types.NoneType)
    return annotated, meta


def _value(key: str, text: str, annotated: Any) -> object:
    kind, meta = _unwrap(annotated)
    if not text:
        raise UsageError(f"{key}= has no value")
    seconds = _DURATION.fullmatch(text) if kind is float else None
    value = float(seconds[1]) * _SECONDS[seconds[2]] if seconds else text
    try:
        return msgspec.convert(value, Annotated[kind, meta], strict=False)
    except msgspec.ValidationError:
        possible = _possible(annotated)
    if get_origin(kind) is Literal:
        meant = did_you_mean(text, get_args(kind))
        raise UsageError(f"{key}={text} is unknown; there are {possible}{meant}")
    raise UsageError(f"{key}={text} is invalid: expected {possible}")


def _possible(annotated: Any) -> str:
    """Which values a word takes, as its refusal and its help say it."""
    kind, meta = _unwrap(annotated)
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if kind is int:
        counted = (meta.extra or {}).get("counts")
        number = f"whole {counted}" if counted else "a whole number"
        return f"{number} from {meta.ge:,} to {meta.le:,}"
    if kind is float:
        most = f", at most {meta.le / 3600:g}h" if meta.le else ""
        return f"seconds, or a number with s, m or h, as in 10m{most}"
    return ""
