"""Every setting of the watch: one frozen object, from the environment and the command line. A flag
wins over its variable."""

from __future__ import annotations

import argparse
import re
import string
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.parser import did_you_mean
from model_export.stages import DEBUG

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "MODEL_EXPORT_"
_BETWEEN = re.compile(r"[\s,]+(?=models:/)")
"""Between two models; a registered name may hold blanks and commas itself."""
_AROUND = string.whitespace + ","
DEFAULT_GATE_ROWS = 100_000
"""As `prove.draw.GATE_ROWS`, without its imports: the watch itself loads no model."""


class SettingsError(ValueError):
    """A setting is wrong; the message names it, the value received and what was expected."""


def _setting(default: Any, description: str, least: float | None = None) -> Any:
    return field(default=default, metadata={"description": description, "least": least})


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """The watch's settings. Each gives its unit and the reason of its default, and is read from the
    variable `MODEL_EXPORT_` + its name."""

    models: tuple[str, ...] = _setting(
        (),
        "models to watch, separated by blanks or commas: models:/NAME@ALIAS, models:/NAME/STAGE, "
        "models:/NAME (all versions); NAME may be a pattern such as churn-*",
    )
    tracking_uri: str = _setting(
        "",
        "MLflow's server or store; if empty: MLFLOW_TRACKING_URI, otherwise "
        "sqlite:///.halfcore/mlflow.db",
    )
    interval_s: float = _setting(
        15.0,
        "seconds between two reads of the registry, ±20 %; a read is one small call per model",
        0.1,
    )
    max_backoff_s: float = _setting(
        300.0,
        "longest wait after failures, in seconds; the wait begins at the interval and doubles",
        0.1,
    )
    time_limit_s: float = _setting(
        900.0,
        "seconds that one export may take; cover-heavy, the largest example, takes minutes",
        1.0,
    )
    memory_limit_mb: int = _setting(
        6144,
        "megabytes of memory that one export may use; iris takes 400, cover-heavy about 4,000",
        64,
    )
    lease_s: float = _setting(
        60.0,
        "seconds after which another watch may take over a version from a watch that died",
        1.0,
    )
    gate_rows: int = _setting(
        DEFAULT_GATE_ROWS,
        "rows that the proof compares, not counting those around tree thresholds",
        1000,
    )
    no_unpickle: bool = _setting(False, "refuse models that could run code while they are loaded")
    accept_unknown: bool = _setting(
        False, "serve unknown categories as the model answers them, where its encoder does"
    )
    signing_key: Path | None = _setting(  # noqa: RUF009
        None, "file with the Ed25519 private key that signs the bundles, PEM without a password"
    )
    retry_refused: bool = _setting(False, "try each refused version once more")
    once: bool = _setting(False, "read the registry once, export what is due, and exit")
    heartbeat: Path | None = _setting(  # noqa: RUF009
        None, "file that records when the watch was last alive; for `model-export healthy FILE`"
    )
    work: Path = _setting(  # noqa: RUF009
        Path(".halfcore/watch"),
        "folder for exports in progress; only one watch may use it, and it is emptied at the start",
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per setting; the models are positional."""
    for setting in fields(WatchSettings):
        if setting.name == "models":
            parser.add_argument("models", nargs="*", metavar="URI", help=_help(setting))
        elif setting.type == "bool":
            parser.add_argument(
                _flag(setting.name), action="store_const", const="true", help=_help(setting)
            )
        else:
            parser.add_argument(_flag(setting.name), metavar="X", help=_help(setting))


def read(arguments: argparse.Namespace, environment: Mapping[str, str]) -> WatchSettings:
    """Read the settings from flags and variables.

    Raises:
        SettingsError: a wrong value, a variable with our prefix that is no setting, or no model.
    """
    known = {PREFIX + setting.name.upper(): setting for setting in fields(WatchSettings)}
    if unknown := sorted(
        name for name in environment if name.startswith(PREFIX) and name not in (*known, DEBUG)
    ):
        meant = did_you_mean(unknown[0], list(known))
        raise SettingsError(f"{unknown[0]} is no setting; known are {', '.join(known)}{meant}")
    found = {}
    for variable, setting in known.items():
        given = getattr(arguments, setting.name)
        if given not in (None, []):
            found[setting.name] = _parse(setting, given, _flag(setting.name))
        elif environment.get(variable):
            found[setting.name] = _parse(setting, environment[variable], variable)
    settings = WatchSettings(**found)
    if not settings.models:
        raise SettingsError(f"no model to watch: name them, or set {PREFIX}MODELS")
    return settings


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(setting: Any) -> str:
    shown = (
        "" if setting.default in (MISSING, (), "", None, False) else f"; default: {setting.default}"
    )
    return f"{setting.metadata['description']}{shown} [{PREFIX}{setting.name.upper()}]".replace(
        "%", "%%"
    )


def _parse(setting: Any, given: Any, source: str) -> Any:
    try:
        value = _PARSERS[setting.type](given)
    except ValueError as error:
        raise SettingsError(f"{source} is {given!r}: expected {_EXPECTED[setting.type]}") from error
    least = setting.metadata["least"]
    if least is not None and not value >= least:
        raise SettingsError(f"{source} is {given!r}: expected {least} or more")
    return value


def _boolean(given: Any) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(given).lower() not in known:
        raise ValueError
    return known[str(given).lower()]


def _words(given: Any) -> tuple[str, ...]:
    lists = [given] if isinstance(given, str) else given
    return tuple(word for words in lists for word in _BETWEEN.split(words.strip(_AROUND)) if word)


_PARSERS: dict[str, Any] = {
    "tuple[str, ...]": _words,
    "str": str,
    "float": float,
    "int": int,
    "bool": _boolean,
    "Path": Path,
    "Path | None": Path,
}
_EXPECTED = {"float": "a number", "int": "a whole number", "bool": "true or false"}
