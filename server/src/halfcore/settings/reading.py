"""Reads the settings from the environment and the command line; a wrong value stops the start."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from halfcore import challenger_spec
from halfcore.settings.groups import DEFAULTS, Settings, descriptions
from halfcore.settings.names import FILE, OLD_NAMES, PREFIX, SECRETS, SEED_NAMES, flag, variable
from halfcore.settings.parser import did_you_mean

_UNIT = re.compile(r"[0-9.]+ *[a-zA-Z%]+")


class SettingsError(ValueError):
    """A setting is wrong; the message names it, the value that was given and what was expected."""


def load(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; a flag wins over `HALFCORE_…`, which wins over the names that teams
    already use.

    Raises:
        SettingsError: a value of the wrong type or out of range, an unknown `HALFCORE_` variable,
            or an unreadable `…_FILE`.
    """
    environ = {**environ, **_from_files(environ)}
    _check_names(environ)
    values = {
        name: _convert(name, *given)
        for name in DEFAULTS
        if (given := _given(name, environ, flags or {})) is not None
    }
    settings = Settings(**values)
    _check(settings)
    return settings


def from_command_line(arguments: Sequence[tuple[str, Any]], environ: Mapping[str, str]) -> Settings:
    """The settings of a parsed command line; see `load` for the errors."""
    return load(environ, {name: str(value) for name, value in arguments})


def _check_names(environ: Mapping[str, str]) -> None:
    """Refuse `HALFCORE_` variables that are no settings: each is a misspelled one."""
    known = {variable(name) for name in (*DEFAULTS, *OLD_NAMES.values())}
    known |= {variable(name) + FILE for name in SECRETS}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            meant = did_you_mean(name, sorted(known))
            raise SettingsError(
                f"{name} is not a setting{meant or '; `halfcore serve --help` lists them'}"
            )


def _given(
    name: str, environ: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[str, str] | None:
    """A setting's text and where it was given, or None."""
    if name in flags:
        return flags[name], flag(name)
    old = OLD_NAMES.get(name)
    for source in (variable(name), variable(old) if old else "", SEED_NAMES.get(name, "")):
        if source in environ:
            return environ[source], source
    return None


def _convert(name: str, text: str, origin: str) -> Any:
    """Check a text, without the white space around it, against the setting's type and bounds."""
    bare, kind = text.strip(), _types()[name]
    _check_quotes(bare, f"{origin}: its value" if name in SECRETS else f"{origin}={text!r}: it")
    try:
        return msgspec.convert(bare, kind, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        what = descriptions()[name]
        if name in SECRETS:
            raise SettingsError(f"{origin}: its value is not shown, expected {what}") from None
        expected = _expected(kind, bare) or error
        raise SettingsError(f"{origin}={text!r}: {expected} ({what})") from None


def _check_quotes(text: str, subject: str) -> None:
    """Refuse a value in quotes: a shell removes them, a reader of env files may not."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise SettingsError(
            f"{subject} is in quotes, which count as part of the value; remove them "
            "(`docker run --env-file` keeps quotes, a shell does not)"
        )


def _expected(kind: Any, text: str) -> str:
    """What a setting may be: one of few values, with the one that is most like the text, or a
    number; empty for others."""
    if kind is bool or get_origin(kind) is Literal:
        values = ["true", "false"] if kind is bool else [*map(str, get_args(kind))]
        return f"expected one of {', '.join(values)}{did_you_mean(text.lower(), values)}"
    number, *bounds = get_args(kind) or (kind,)
    if number not in (int, float) or not bounds:
        return ""
    what = "a whole number" if number is int else "a number"
    least, most = bounds[0].ge, bounds[0].le
    span = f"above {bounds[0].gt}, at most" if least is None else f"from {least} to"
    unit = ", without a unit" if _UNIT.fullmatch(text) else ""
    return f"expected {what} {span} {most}{unit}"


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Settings, include_extras=True)


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def _check(settings: Settings) -> None:
    """Check what concerns several settings, or has a form of its own."""
    if settings.max_rows > settings.max_queue_size:
        raise SettingsError(
            f"max_rows={settings.max_rows}: so many rows never fit "
            f"max_queue_size={settings.max_queue_size}"
        )
    if settings.prediction_log and not settings.database_url:
        raise SettingsError(
            "prediction_log needs database_url, expected HALFCORE_DATABASE_URL or DATABASE_URL"
        )
    try:
        challenger_spec.parse(settings.challengers)
    except ValueError as error:
        raise SettingsError(f"challengers={settings.challengers!r}: {error}") from None


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets of which a variable, with `_FILE` after its name, names a file."""
    found = {}
    for name in SECRETS:
        for secret in filter(None, (variable(name), SEED_NAMES.get(name))):
            if (path := environ.get(secret + FILE)) is None:
                continue
            if secret in environ:
                raise SettingsError(f"{secret} and {secret}{FILE} are both set, expected only one")
            found[secret] = _read(secret + FILE, path)
    return found


def _read(origin: str, path: str) -> str:
    _check_quotes(path.strip(), f"{origin}={path!r}: it")
    try:
        return Path(path.strip()).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"{origin}={path!r}: {reason}") from None
