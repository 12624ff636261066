"""The floor of the day: the users' profile at low rate against a server that answers a constant."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from loadlab.experiments.bench.subjects import clean_environment
from loadlab.generator.exchange import Exchange
from loadlab.generator.launch import Part, generating
from loadlab.generator.ledger import Tick
from loadlab.generator.plan import Load
from loadlab.target.cgroup import Limits
from loadlab.target.process import Command, free_port, running

_MOST_USERS = 1000
_SECONDS, _FEW_SECONDS = 8, 3
"""With 1,000 users who think for 6.5 s eight seconds are 1,200 answers; with a handful no time is
enough for a p99."""
_START_S = 30.0
_ANSWER = '{"prediction":"setosa","probabilities":[1.0,0.0,0.0]}'


def measure(
    folder: Path, load: Load, parts: Callable[[Path, Load], Sequence[Part]], cpus: str
) -> list[Tick]:
    """Load a null server, without limits, with up to a tenth of the users; returns what was
    counted.

    Args:
        folder: for the generator's files; is made.
        load: of the run; its users, addresses and answers are replaced.
        parts: makes the generator's processes.
        cpus: that the null server is held to: the same as the server under load.

    Raises:
        process.CannotStart, PlanError, cgroup.Unavailable: see there.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="loadlab-") as scratch:
        answer = Path(scratch, "answer")
        answer.write_text(_ANSWER)
        command = [
            sys.executable,
            "-m",
            "loadlab.experiments.bench.floor",
            "--port",
            str(port),
            "--answer",
            str(answer),
            "--read",
        ]
        with running(
            "floor",
            Command(command, clean_environment(), Path.cwd()),
            port=port,
            limits=Limits(),
            cpus=cpus,
        ):
            small = msgspec.structs.replace(
                load,
                addresses=[("127.0.0.1", port)],
                exchanges=[Exchange(each.body, _ANSWER) for each in load.exchanges],
                users=min(load.users, _MOST_USERS),
            )
            return _count(folder, small, parts(folder, small))


def _count(folder: Path, load: Load, parts: Sequence[Part]) -> list[Tick]:
    found: list[Tick] = []
    seconds = _SECONDS if load.users == _MOST_USERS else _FEW_SECONDS
    with generating(folder, load, parts) as generator:
        deadline = time.monotonic() + _START_S + seconds
        while sum(1 for tick in found if tick.users == load.users) < seconds * sum(
            part.role == "generator" for part in parts
        ):
            time.sleep(0.1)
            found += generator.ticks()
            if generator.broken() or time.monotonic() > deadline:
                break
        generator.kill()
    return found
