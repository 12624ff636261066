"""What a generator shall do: the scenarios of `scenarios.toml`, and a run's load; and what it and
the lab say to each other during a run: small files, replaced whole, or messages of Locust's master.
No gevent here: both sides import this.
"""

import ctypes
import math
import os
import random
import resource
import signal
import socket
import time
import tomllib
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from loadlab.bundles import newest, of_model
from loadlab.generator import exchange
from loadlab.generator.exchange import Exchange, Fresh
from loadlab.generator.http import Question, post
from loadlab.words import UsageError, choose

FILE = Path(__file__).with_name("scenarios.toml")
_PR_SET_PDEATHSIG = 1
_NOWHERE = ("127.0.0.1", 9)
_BY_HAND = "iris"
_BUNDLES = Path(".halfcore/bundles")
Bodies = Literal["pool", "fresh"]
"""Those of the load in turn, or ones that nobody has sent before, if the load has any."""


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


def scenarios(file: Path = FILE) -> dict[str, Scenario]:
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


class PlanError(ValueError):
    """The plan cannot be carried out here; the message says what to change."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run's load."""

    addresses: list[tuple[str, int]]
    """Of the server's replicas: users take them in turn."""
    exchanges: list[Exchange]
    fresh: Fresh | None = None
    scenario: Scenario
    users: int
    rate: float
    """Users started per second."""
    workers: int = 1
    """Processes that share the users."""
    smooth: bool
    """Users who are started together connect spread over a second; else at once, as Locust does
    it."""
    seed: int
    start: float
    """Seconds are counted from it, in every process and on every machine; on the monotonic clock of
    the lab's machine, for the wall clock may be set while a run lasts."""
    path: str = "/predict"
    binary: str = ""
    """Base64 of the bytes that follow each body's JSON."""
    length_header: str = ""
    """Name of the header that gives the length of the JSON, if bytes follow it."""
    timeout_s: float = 10.0
    """An answer that takes longer is a failure."""
    problem: str = ""
    """Why nothing can be sent: every request fails, and is counted under it."""


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """What the lab wants from now on."""

    pace: float = 1.0
    """Think times are divided by it; 0: no more requests (drain)."""
    bodies: Bodies = "pool"
    """What is sent."""


class Pool:
    """What users ask.

    Args:
        load: has the bodies and their answers.
        first: fresh body of this process: the processes of a load take them in turn.
        whole: the answers are known, and not only how they begin.
        heads: requests are what goes over the wire; else bodies, for a client that adds its heads.
    """

    def __init__(
        self, load: Load, first: int = 0, *, whole: bool = True, heads: bool = True
    ) -> None:
        self._load, self._fresh, self._whole, self._heads = load, first, whole, heads
        self._questions = [self._prepare(each) for each in load.exchanges]

    def __len__(self) -> int:
        return len(self._questions)

    def question(self, place: int, bodies: Bodies = "pool") -> Question:
        """What to ask now, by a user whose turn it is to ask the exchange at `place`."""
        if bodies == "pool" or self._load.fresh is None:
            return self._questions[place % len(self._questions)]
        exchange = self._load.fresh.exchange(self._fresh)
        self._fresh += self._load.workers
        return self._prepare(exchange)

    def _prepare(self, exchange: Exchange) -> Question:
        load, body = self._load, exchange.body
        request = body.encode()
        if self._heads:
            request = post(
                load.addresses[0],
                load.path,
                body,
                binary=b64decode(load.binary),
                length_header=load.length_header,
            )
        return Question(request, exchange.answer.encode(), whole=self._whole)


def read(file: Path) -> Load:
    """Read a stored load; raises `msgspec.DecodeError`."""
    return msgspec.json.decode(file.read_bytes(), type=Load)


def by_hand(url: str, scenario: str, model: str, *, rate: float = 500, workers: int = 1) -> Load:
    """A load for Locust without the lab: no expected answers, so only the status is checked.

    A name with several addresses (replicas without a balancer) gives users all of them in turn. It
    is resolved once: 10,000 users who each ask for it would be measured as latency of the server.
    A host that cannot be asked, a scenario that does not exist and a model without rows are the
    load's problem: Locust would go on with what it had before.
    """
    addresses, problem = _addresses(url)
    bodies, chosen = exchange.bodies(_BY_HAND, None, 1), scenarios()["steady"]
    try:
        chosen = choose(scenarios(), "scenario", scenario)
        folders = of_model(_BUNDLES, model)
        bodies = exchange.bodies(model, newest(folders)[0] if folders else None, 1)
    except (exchange.NoAnswer, UsageError) as error:
        problem = problem or str(error)
    return Load(
        addresses=addresses,
        exchanges=[Exchange(body) for body in bodies],
        scenario=chosen,
        users=chosen.users,
        rate=rate,
        workers=workers,
        smooth=True,
        seed=1,
        start=time.monotonic(),
        path=urlsplit(url).path.rstrip("/") + _path(model),
        problem=problem,
    )


def _path(model: str) -> str:
    """Where a model's rows are sent. `/predict` exists in every server that is compared, but only
    the default model is expected behind it."""
    return "/predict" if model == _BY_HAND else f"/models/{model}/predict"


def _addresses(url: str) -> tuple[list[tuple[str, int]], str]:
    """Where a host's requests are sent, and why they cannot be."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if parts.scheme != "http" or not host:
        return [_NOWHERE], f"host {url!r}, expected http://NAME:PORT"
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return [_NOWHERE], f"host {url!r} has no address: {error.strerror}"
    return sorted({(str(address[0]), port) for *_, address in found}), ""


def raise_open_files(connections: int, spare: int = 64) -> int:
    """Raise the limit on open files to its hard limit; return it; raises `PlanError` if that is too
    low. `spare`: files that a Python process has open besides its connections, and room."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + spare:
        raise PlanError(
            f"{connections} connections need {connections + spare} open files; the hard limit is "
            f"{hard} (ulimit -Hn, or LimitNOFILE)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def die_with_asked_parent() -> None:
    """Have the kernel end this process when the lab that started it dies, however it dies; nothing
    without a lab."""
    parent = int(os.environ.get("LOADLAB_PARENT", "0"))
    if not parent:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
