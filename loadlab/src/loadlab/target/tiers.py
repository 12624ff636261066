"""Tiers: what a server may use. They are written once, in `compose/compose.yaml`, and read from
there for both backends.

A tier is a service whose label `io.halfcore.tier` is the service's name. Its limits are
`deploy.resources.limits`, per replica.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from loadlab.record.cgroup import PERIOD_US, Limits
from loadlab.words import UsageError

FILE = Path("compose/compose.yaml")
LABEL = "io.halfcore.tier"

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9.]+)([kmg]?)b?")
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-+])([^{}]*))?\}")
"""`${NAME}`, `${NAME:-default}` or `${NAME:+replacement}`; the innermost first."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """One service of the compose file."""

    name: str
    cpus: float
    """Cores' worth of CPU time, per replica."""
    memory_bytes: int
    """Per replica."""
    replicas: int = 1
    image: str = ""
    environment: dict[str, str] = {}
    period_us: int = PERIOD_US
    burst_us: int = 0
    """Of the CPU quota; compose files know neither, and containers get Docker's."""

    @property
    def limits(self) -> Limits:
        """Of each replica."""
        return msgspec.convert(self, Limits, from_attributes=True)

    @property
    def cores(self) -> float:
        """CPU limit of all replicas together."""
        return self.cpus * self.replicas


def read(file: Path, environ: Mapping[str, str]) -> dict[str, Tier]:
    """All tiers of a compose file, in its order; `environ` fills `${NAME:-default}`, as
    `docker compose` does.

    Raises `UsageError`: no such file, not YAML, or a service that says it is a tier and is none.
    """
    try:
        services = yaml.safe_load(file.read_text())["services"]
    except FileNotFoundError:
        raise UsageError(
            f"{file}: no such file; run this in a clone of Halfcore, which has this file"
        ) from None
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: no services can be read: {error}") from None
    tiers = {name: each for name, each in services.items() if LABEL in _mapping(each.get("labels"))}
    return {name: _tier(name, service, environ) for name, service in tiers.items()}


def _tier(name: str, service: Mapping[str, Any], environ: Mapping[str, str]) -> Tier:
    deploy = service.get("deploy", {})
    limits = deploy.get("resources", {}).get("limits", {})
    try:
        return Tier(
            name=name,
            cpus=float(limits["cpus"]),
            memory_bytes=_bytes(str(limits["memory"])),
            replicas=int(deploy.get("replicas", 1)),
            image=_fill(str(service.get("image", "")), environ),
            # Docker takes one without a value from the user's shell; a run must not depend on that.
            environment={
                key: _fill(str(value), environ)
                for key, value in _mapping(service.get("environment")).items()
                if value is not None
            },
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"tier {name}: deploy.resources.limits needs cpus and memory, as cpus: '0.5' and "
            f"memory: 512M ({error!r})"
        ) from None


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip().lower())
    if not found:
        raise ValueError(f"memory {text!r} is no size")
    return round(float(found[1]) * _UNITS[found[2]])


def _mapping(value: Any) -> dict[str, Any]:
    """Compose takes labels and environment as a mapping or as a list of NAME=VALUE."""
    if isinstance(value, list):
        return dict(str(entry).partition("=")[::2] for entry in value)
    return dict(value or {})


def _fill(text: str, environ: Mapping[str, str]) -> str:
    """A text with its variables' values; a replacement may hold variables itself."""

    def value(found: re.Match[str]) -> str:
        name, kind, other = found.groups()
        if kind == "+":
            return other if environ.get(name) else ""
        return environ.get(name) or other or ""

    while (filled := _VARIABLE.sub(value, text)) != text:
        text = filled
    return text
