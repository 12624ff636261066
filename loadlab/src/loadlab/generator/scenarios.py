"""Scenarios: what the users do. They are defined in `scenarios.toml` in this folder."""

import math
import random
import tomllib
from pathlib import Path

import msgspec

from loadlab.words import UsageError

FILE = Path(__file__).with_name("scenarios.toml")


class Surge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time in the steady state in which the request rate is multiplied."""

    factor: float
    after: float
    seconds: float


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Think time, number of users and length; seconds."""

    says: str
    think: list[float]
    users: int
    steady: float
    open: bool = False
    surge: Surge | None = None
    name: str = ""

    @property
    def mean_think_s(self) -> float:
        """Expected time between two requests of a user whose answers take no time."""
        return math.fsum(self.think) / len(self.think)

    def think_s(self, draw: random.Random) -> float:
        """One think time."""
        if len(self.think) == 1:
            return draw.expovariate(1 / self.think[0])
        return draw.uniform(self.think[0], self.think[1])

    def next_due(self, due: float, now: float, pace: float, draw: random.Random) -> float:
        """When a user's next request is due: a think time after the last answer, which is there
        now, or in the open model after the last request was due; `pace` divides think times."""
        return (due if self.open else now) + self.think_s(draw) / pace


def read(file: Path = FILE) -> dict[str, Scenario]:
    """All scenarios; raises `UsageError` for a field that is unknown, missing or out of
    range."""
    try:
        tables = tomllib.loads(file.read_text())
        found = msgspec.convert(
            {name: {**table, "name": name} for name, table in tables.items()}, dict[str, Scenario]
        )
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, TypeError) as error:
        raise UsageError(f"{file.name}: {error}") from None
    for scenario in found.values():
        _check(scenario)
    return found


def _check(scenario: Scenario) -> None:
    think = scenario.think
    if len(think) not in {1, 2} or think != sorted(think) or think[0] <= 0:
        raise UsageError(
            f"scenario {scenario.name}: think is {think}, expected a mean or [least, most], above 0"
        )
    if scenario.users < 1 or scenario.steady <= 0:
        raise UsageError(f"scenario {scenario.name}: users and steady must be above 0")
    surge = scenario.surge
    if surge and (surge.factor <= 0 or surge.after + surge.seconds > scenario.steady):
        raise UsageError(
            f"scenario {scenario.name}: the surge must end within the {scenario.steady:g} s of "
            "steady state"
        )
