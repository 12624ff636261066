"""What the course projects reported, from `seeds.toml`, and the cells that run their configurations
here."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from loadlab.experiments.studies.cells import cell
from loadlab.experiments.studies.form import Cell
from loadlab.generator import scenarios
from loadlab.target.tiers import Tier
from loadlab.words import UsageError

FILE = Path(__file__).with_name("seeds.toml")


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the table; the file says what the fields mean."""

    key: str
    seed: str
    reported: str
    replicas: int
    cpus: float
    memory_mib: int
    users: int
    rate: int
    think: tuple[float, float]
    model: str
    assumed: str
    workers: int = 0
    locust_workers: int = 0

    @property
    def tier(self) -> Tier:
        """Its limits."""
        return Tier(
            name=f"seed-{self.key}",
            cpus=self.cpus,
            memory_bytes=self.memory_mib << 20,
            replicas=self.replicas,
        )


def read(file: Path = FILE) -> list[Configuration]:
    """All configurations; raises `UsageError` for a field that is unknown, missing or of another
    kind, and for a key twice."""
    try:
        found = msgspec.convert(
            tomllib.loads(file.read_text())["configuration"], list[Configuration]
        )
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, KeyError) as error:
        raise UsageError(f"{file.name}: {error}") from None
    keys = [each.key for each in found]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"{file.name}: {', '.join(twice)} is there twice")
    return found


def choose(configurations: Sequence[Configuration], only: str) -> list[Configuration]:
    """Those whose key begins with one of the comma-separated words, as 003 or 000-one; all without
    any; raises `UsageError`."""
    wanted = [word for word in only.split(",") if word]
    if unknown := [
        word for word in wanted if not any(each.key.startswith(word) for each in configurations)
    ]:
        raise UsageError(
            f"only={only}: {', '.join(unknown)} begins no key; there are "
            f"{', '.join(each.key for each in configurations)}"
        )
    return [each for each in configurations if not wanted or each.key.startswith(tuple(wanted))]


def cells(
    configurations: Sequence[Configuration], words: Mapping[str, str], against: str
) -> list[Cell]:
    """Halfcore and a baseline in every configuration; `words` are duration, engine and seed."""
    return [
        _cell(each, words, service) for each in configurations for service in ("halfcore", against)
    ]


def _cell(config: Configuration, words: Mapping[str, str], service: str) -> Cell:
    load = {
        "scenario": "steady",
        "users": str(config.users),
        "rate": str(config.rate),
        "model": config.model,
        "balancer": "http" if config.replicas > 1 else "none",
        **words,
    }
    if config.locust_workers:  # the number of workers is Locust's
        load |= {"engine": "locust", "workers": str(config.locust_workers)}
    scenario = msgspec.structs.replace(
        scenarios.read()["steady"], think=list(config.think), users=config.users
    )
    return cell(
        config.key,
        config.tier,
        load,
        service=service,
        scenario=scenario,
        service_workers=config.workers,
    )
