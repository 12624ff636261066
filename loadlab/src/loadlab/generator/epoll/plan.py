"""What the client shall do, and what it found; both travel between processes as JSON."""

import ipaddress
import resource
from typing import Literal

import msgspec

from loadlab.record.histogram import Spread
from loadlab.record.machine import Cpu
from loadlab.target.cgroup import Usage

_SPARE_FILES = 64
"""Files that a Python process has open besides its connections, and room."""


class PlanError(ValueError):
    """The plan cannot be carried out here; the message says what to change."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the client."""

    regime: Literal["saturated", "sparse"]
    port: int
    body: str
    """The request's body, JSON."""
    prefix: str
    """How every right answer's body begins."""
    others: tuple[tuple[str, str], ...] = ()
    """saturated: more bodies and beginnings; every connection asks all of them in turn."""
    host: str = "127.0.0.1"
    path: str = "/predict"
    connections: int = 64
    seconds: float = 10.0
    """Length of the window that counts."""
    warmup_s: float = 2.0
    """Load before the window, after the last connection was opened."""
    timeout_s: float = 10.0
    """An answer that takes longer is a failure."""
    rate: float = 500.0
    """sparse: connections opened per second."""
    think_s: tuple[float, float] = (4.0, 9.0)
    """sparse: uniform between these, seconds."""
    seed: int = 1
    group: str = ""
    """A control group of the lab to read at both edges of the window."""
    helper_group: str = ""
    """Another one, of a process that works for the server: a database."""

    def request(self, other: str = "") -> bytes:
        """The request as it goes over the wire, with the plan's body or another."""
        body = (other or self.body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-type: "
            "application/json\r\n"
        )
        return f"{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the client found. Times in seconds, of the window unless said otherwise."""

    requests: int
    """Right answers."""
    failures: dict[str, int]
    """By kind: connect, reset, timeout, status, wrong_body."""
    requests_before: int = 0
    """Right answers before the window."""
    failures_before: dict[str, int]
    """The same, from the first connection to the window's start."""
    seconds: float
    response: Spread
    """From when the request was meant to go (sparse) or went (saturated) to the whole answer."""
    lag: Spread
    """sparse: how late the client itself was; saturated: from one look at the sockets to the
    next."""
    client_cpu_s: float
    machine: Cpu
    server: Usage | None
    """Of the plan's group."""
    helper_cpu_s: float = 0.0
    """Of what works for the server."""


def check(plan: Plan) -> None:
    """Refuse a plan that would leave this machine or cannot work.

    Raises:
        PlanError: not a loopback address, numbers out of range, or too few open files allowed.
    """
    if not ipaddress.ip_address(plan.host).is_loopback:
        raise PlanError(f"host {plan.host}: load goes to loopback addresses only")
    if (
        plan.connections < 1
        or plan.seconds <= 0
        or plan.rate <= 0
        or not 0 <= plan.think_s[0] <= plan.think_s[1]
    ):
        raise PlanError("connections, seconds and rate must be positive, and think times in order")
    raise_open_files(plan.connections)


def raise_open_files(connections: int) -> int:
    """Raise the limit on open files to its hard limit; return it; raises `PlanError` if that is too
    low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + _SPARE_FILES:
        raise PlanError(
            f"{connections} connections need {connections + _SPARE_FILES} open files; the hard "
            f"limit is {hard} (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
