"""A whole `just load`: every repeat from a fresh server to its record; whatever happens ends in one
sentence."""

import errno
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec
from rich.console import Console

from loadlab.generator import launch as generators
from loadlab.generator.exchange import Exchange, NoAnswer, WrongAnswer, bodies
from loadlab.generator.plan import Load, PlanError, Start, raise_open_files
from loadlab.record.form import Ended
from loadlab.record.write import Recorder
from loadlab.report.live import Ticker
from loadlab.run import describe
from loadlab.run.arguments import Order
from loadlab.run.conduct import SETTLE_MOST_S, Conductor, repeated_s
from loadlab.run.faults import Fault
from loadlab.run.view import View
from loadlab.target import cgroup
from loadlab.target.process import CannotStart
from loadlab.target.serving import BackendFailed
from loadlab.target.start import Backend, starting

_LOCK = Path(".halfcore/load.lock")
_INFRASTRUCTURE = (
    CannotStart,
    BackendFailed,
    PlanError,
    NoAnswer,
    cgroup.Unavailable,
)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_ROOM_S = 240.0
"""Floor, start, warm-up, drain and cool-down at their longest."""


class Busy(RuntimeError):
    """Another lab runs on this machine."""


class Place(NamedTuple):
    """Where things are."""

    root: Path
    """The checkout."""
    bundles: Path
    store: Path


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the machine's only place for a lab; raises `Busy` with the holder."""
    file = root / _LOCK
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held.seek(0)
            raise Busy(
                f"another load run is going on (process {held.read().strip() or 'unknown'}): two "
                "would measure each other"
            ) from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


def carry_out(
    order: Order, place: Place, backend: Backend, console: Console, *, set_id: str, repeat: int
) -> tuple[Path, Ended]:
    """One run, from a fresh server to its record; returns the record's folder and how the run
    ended. The record is readable however it ended."""
    # Repeats of one seed would send the same bodies in the same order.
    order = msgspec.structs.replace(order, seed=order.seed + repeat - 1)
    start = Start.now()
    name = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{order.tier.name}-{order.scenario.name}"
    record = describe.run(name, order, place.root, backend, set_id=set_id, repeat=repeat)
    with Recorder(place.store / name, record) as recorder, Ticker(console) as ticker:
        view = View(ticker, order.users, order.tier.cores, _total_s(order))
        conductor = Conductor(order, recorder, start, view, _total_s(order) + _ROOM_S)
        ended = _end(order, place, backend, conductor, recorder, start)
        with suppress(OSError):  # the disk is full: what was written before stays
            recorder.end(ended, conductor.now())
    return place.store / name, ended


def _end(
    order: Order,
    place: Place,
    backend: Backend,
    conductor: Conductor,
    recorder: Recorder,
    start: Start,
) -> Ended:
    """Carry out the run, and put into words how it ended."""
    if sentence := describe.too_small(order.tier):
        return Ended(kind="aborted", sentence=sentence)
    try:
        with _terminated(), tempfile.TemporaryDirectory(prefix="loadlab-") as scratch:
            _run(order, place, backend, conductor, recorder, start, Path(scratch))
    except Fault as fault:
        return Ended(kind=fault.kind, sentence=fault.sentence)
    except _INFRASTRUCTURE as error:
        return Ended(kind="infrastructure", sentence=str(error))
    except WrongAnswer as error:
        return Ended(kind="wrong_answer", sentence=str(error))
    except KeyboardInterrupt:
        return Ended(kind="interrupted", sentence="interrupted by the user")
    except OSError as error:
        full = error.errno in _DISK
        return Ended(
            kind="disk_full" if full else "infrastructure",
            sentence=f"{'the record could not be written: ' if full else ''}{error}",
        )
    return Ended(kind="complete")


def _run(
    order: Order,
    place: Place,
    backend: Backend,
    conductor: Conductor,
    recorder: Recorder,
    start: Start,
    scratch: Path,
) -> None:
    raise_open_files(order.users)  # servers and generators inherit it
    cpus = describe.server_cpus(order.tier)
    held = frozenset(map(int, cpus.split(","))) if cpus else frozenset[int]()
    load = _load(order, start, workers=len(generators.workers(order, held)))
    conductor.measure_floor(
        scratch / "floor", load, generators.parts(order, place.root, held), cpus
    )
    conductor.begin("start")
    with starting(
        backend, order, place.root, bundles=place.bundles, scratch=scratch, cpus=cpus
    ) as serving:
        exchanges, fresh = conductor.warm_up(serving)
        held = serving.cpus() or held
        workers = len(generators.workers(order, held))
        full = msgspec.structs.replace(
            load,
            addresses=serving.addresses,
            path=serving.path,
            exchanges=exchanges,
            fresh=fresh,
            workers=workers,
        )
        recorder.run.target = ",".join(f"{host}:{port}" for host, port in serving.addresses)
        recorder.run.scenario = msgspec.structs.replace(
            recorder.run.scenario, bodies=len(exchanges)
        )
        make = generators.parts(order, place.root, held)
        conductor.load(scratch, full, make(scratch / "generator", full))


def _load(order: Order, start: Start, *, workers: int) -> Load:
    """The load without what only the running server knows: its addresses and answers."""
    return Load(
        addresses=[],
        exchanges=[Exchange(body) for body in bodies("iris", None, order.seed)],
        scenario=order.scenario,
        users=order.users,
        rate=order.rate,
        workers=workers,
        smooth=order.ramp == "smooth",
        seed=order.seed,
        start=start,
    )


def _total_s(order: Order) -> float:
    """How long a run takes when nothing goes wrong and settling takes as long as it may."""
    return (
        order.users / order.rate
        + SETTLE_MOST_S
        + order.steady_s
        + repeated_s(order.steady_s)
        + 60.0
    )


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: servers, generators and control groups are cleared
    away."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
