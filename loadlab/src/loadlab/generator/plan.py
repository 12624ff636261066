"""What a generator shall do. Travels as JSON: to the raw engine in a file, to Locust's workers in a
message of the master."""

import socket
import time
from pathlib import Path

import msgspec

from loadlab.generator import exchange, scenarios
from loadlab.generator.exchange import Exchange
from loadlab.generator.fresh import Fresh
from loadlab.generator.scenarios import Scenario

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """When a run began. On its own machine the monotonic clock counts, for the wall clock may be
    set while a run lasts."""

    monotonic: float
    unix: float
    boot: str

    @classmethod
    def now(cls) -> "Start":
        """This moment, here."""
        return cls(monotonic=time.monotonic(), unix=time.time(), boot=_boot())

    def here(self) -> float:
        """The same moment on the monotonic clock of the machine that asks."""
        return (
            self.monotonic
            if self.boot and self.boot == _boot()
            else time.monotonic() - (time.time() - self.unix)
        )


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run's load."""

    addresses: list[tuple[str, int]]
    """Of the server's replicas: users take them in turn."""
    exchanges: list[Exchange]
    fresh: Fresh | None = None
    """Bodies that nobody has sent before; None: there are none."""
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
    start: "Start"
    """Seconds are counted from it, in every process and on every machine."""
    path: str = "/predict"
    timeout_s: float = 10.0
    """An answer that takes longer is a failure."""


def by_hand(host: str, port: int, scenario: str, model: str) -> Load:
    """A load for Locust without the lab: no expected answers, so only the status is
    checked.

    A name with several addresses (replicas without a balancer) gives users all of them in turn. It
    is resolved once: 10,000 users who each ask for it would be measured as latency of the server.

    Raises:
        ValueError: no rows for the model, or a host that has no address.
    """
    chosen = scenarios.choose(scenarios.read(), scenario)
    rows = [Exchange(body) for body in exchange.bodies(model, None, 1)]
    if not rows:
        known = sorted(file.stem for file in exchange.ROWS.glob("*.csv"))
        raise ValueError(f"model {model}: no rows; known are {', '.join(known)}")
    return Load(
        addresses=_addresses(host, port),
        exchanges=rows,
        scenario=chosen,
        users=chosen.users,
        rate=500,
        smooth=True,
        seed=1,
        start=Start.now(),
    )


def read(file: Path) -> Load:
    """Read a stored load; raises `msgspec.DecodeError`."""
    return msgspec.json.decode(file.read_bytes(), type=Load)


def _addresses(host: str, port: int) -> list[tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host {host}: {error}") from None
    return sorted({(str(address[0]), port) for *_, address in found})


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""
