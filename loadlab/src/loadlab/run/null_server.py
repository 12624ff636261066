"""The null server: what the generator, granian and the kernel take without any model. The users of
the run drive it before the run, all of them and with the same ramp."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from loadlab.generator.exchange import Exchange
from loadlab.generator.launch import Part, generating
from loadlab.generator.ledger import Tick
from loadlab.generator.plan import Load
from loadlab.record.cgroup import Limits, Unavailable
from loadlab.record.schema import NullServer
from loadlab.target import programs
from loadlab.target.process import Running, free_port, running
from loadlab.verdict.figures import alive, answered, by_second, failed

STEADY_S = (3, 10)
"""Seconds that are measured once all users are there: the least and the most; a shorter steady
phase takes as long here."""
_START_S = 30.0
_ANSWER = '{"prediction":"setosa","probabilities":[1.0,0.0,0.0]}'


def most_s(users: int, rate: float) -> float:
    """How long it takes at the longest: start of server and generator, twice the ramp, steady."""
    return _START_S + 2 * users / rate + STEADY_S[1]


def measure(
    folder: Path,
    load: Load,
    parts: Callable[[Path, Load], Sequence[Part]],
    cpus: str,
    steady_s: float,
    listen: str = "",
) -> tuple[list[Tick], NullServer | None]:
    """Load a null server, without limits; returns the seconds in which all users were there, and
    what it used in them: None if they never were.

    Args:
        folder: for the generator's files; is made.
        load: of the run; its addresses and answers are replaced.
        parts: makes the generator's processes.
        cpus: that the null server is held to: the same as the server under load.
        steady_s: of the run.
        listen: address for users on other machines.

    Raises:
        process.CannotStart, plan.PlanError: see there.
    """
    port, (least, most) = free_port(), STEADY_S
    exchanges = [Exchange(each.body, _ANSWER) for each in load.exchanges]
    same = msgspec.structs.replace(
        load, addresses=[(listen or "127.0.0.1", port)], exchanges=exchanges
    )
    seconds = min(max(round(steady_s), least), most)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="loadlab-"))
        answer = Path(scratch, "answer")
        answer.write_text(_ANSWER)
        host = ["--host", "0.0.0.0"] if listen else []  # noqa: S104
        command = programs.null_server(Path.cwd(), answer, port, "--read", *host)
        start = partial(running, "floor", command, port=port, cpus=cpus)
        try:
            server = stack.enter_context(start(limits=Limits()))
        except Unavailable:  # containers and `target=` need no control groups of ours
            server = stack.enter_context(start(limits=None))
        ticks, used_s = _drive(folder, same, parts(folder, same), server, seconds)
    return _summary(ticks, used_s, load.users)


def _drive(
    folder: Path, load: Load, parts: Sequence[Part], server: Running, seconds: int
) -> tuple[list[Tick], dict[int, float]]:
    """What was counted, and of every second with all users the server's CPU time when it was
    over."""
    ticks: list[Tick] = []
    used_s: dict[int, float] = {}
    deadline = time.monotonic() + most_s(load.users, load.rate)
    with generating(folder, load, parts) as generator:
        while len(used_s) <= seconds and time.monotonic() < deadline and not generator.broken():
            time.sleep(0.1)
            ticks += generator.ticks()
            for t in _full(ticks, load.workers, load.users) - used_s.keys():
                used_s[t] = server.group.usage().cpu_s
        if load.workers == sum(part.role == "generator" for part in parts):
            generator.kill()  # with workers on other machines the context ends it, which ends them
    return ticks, used_s


def _full(ticks: Sequence[Tick], workers: int, users: int) -> set[int]:
    """Seconds that all workers have reported, with all users."""
    there, reports = alive(ticks), by_second(ticks)
    return {t for t, each in reports.items() if len(each) == workers and there[t] == users}


def _summary(
    ticks: Sequence[Tick], used_s: Mapping[int, float], users: int
) -> tuple[list[Tick], NullServer | None]:
    """The first second with all users is where the measurement begins."""
    first, *steady = sorted(used_s) or [0]
    measured = [tick for tick in ticks if tick.t in steady]
    if not (answers := answered(measured)):
        return measured, None
    return measured, NullServer(
        cpu_us=(used_s[steady[-1]] - used_s[first]) / answers * 1e6,
        rate=answers / len(steady),
        users=users,
        failures=failed(ticks),
        seconds=len(steady),
    )
