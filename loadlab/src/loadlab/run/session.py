"""A load run as a whole: every repeat from a fresh server to its record; whatever happens ends in
one sentence."""

import errno
import hashlib
import itertools
import platform
import resource
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from loadlab.generator.exchange import Exchange, NoAnswer, WrongAnswer, bodies
from loadlab.generator.http import authority
from loadlab.generator.plan import Load, PlanError, raise_open_files
from loadlab.record import cgroup, counters, machine, schema
from loadlab.record.cgroup import Limits
from loadlab.record.machine import Fingerprint
from loadlab.record.schema import Backend, Ended, Run, criteria
from loadlab.record.store import Recorder
from loadlab.report.command import STORE
from loadlab.run import null_server
from loadlab.run.given import advised
from loadlab.run.order import Order, cores_needed, parts, processes, server_cpus, too_small
from loadlab.run.phases import SETTLE_MOST_S, Conductor, caching_s
from loadlab.run.timeline import Fault, LiveLine
from loadlab.target import tiers
from loadlab.target.process import CannotStart
from loadlab.target.serving import BackendFailed
from loadlab.target.start import starting

_INFRASTRUCTURE = (CannotStart, BackendFailed, PlanError, NoAnswer, cgroup.Unavailable)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_ROOM_S = 240.0
"""Start, warm-up, drain and cool-down at their longest."""
_COOL_DOWN_MOST_S = 70.0
_ENOUGH_TIME_WAIT = 1000
_ENGINES: dict[str, schema.LoadEngine] = {
    "raw": "locust-raw",
    "fast": "locust-fast",
    "fast-unmended": "locust-fast",
    "stock": "locust-http",
}
_GENERATOR_PACKAGES = ("locust", "gevent", "geventhttpclient")
_DETAILS = {
    "clock_source": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "kernel_arguments": "/proc/cmdline",
    "virtualisation": "/sys/class/dmi/id/product_name",
    "tcp_tw_reuse": "/proc/sys/net/ipv4/tcp_tw_reuse",
}


class Place(NamedTuple):
    """Where things are."""

    root: Path
    """The checkout."""
    bundles: Path
    store: Path

    @classmethod
    def of(cls, root: Path) -> "Place":
        """A checkout's own."""
        return cls(root, root / ".halfcore/bundles", root / STORE)


def carry_out(
    order: Order, place: Place, backend: Backend, console: Console, *, set_id: str, repeat: int
) -> tuple[Path, Ended]:
    """One run, from a fresh server to its record; returns the record's folder and how the run
    ended. The record is readable however it ended."""
    # Repeats of one seed would send the same bodies in the same order.
    order = msgspec.structs.replace(order, seed=order.seed + repeat - 1)
    calibration = machine.calibrate()
    start = time.monotonic()
    name = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{order.tier.name}-{order.scenario.name}"
    name = _not_taken(place.store, name)
    record = record_of(name, order, place.root, backend, set_id=set_id, repeat=repeat)
    record.calibration = calibration
    total_s, before_s = _total_s(order), null_server.most_s(order.users, order.rate)
    line = LiveLine(console, users=order.users, quota_cores=order.tier.cores, total_s=total_s)
    with Recorder(place.store / name, record) as recorder, line:
        conductor = Conductor(order, recorder, start, line, before_s + total_s + _ROOM_S)
        ended = _end(order, place, backend, conductor, recorder)
        with suppress(OSError):  # the disk is full: what was written before stays
            recorder.end(ended, conductor.now())
    return place.store / name, ended


def _not_taken(store: Path, name: str) -> str:
    """The name, or with a number where another run began in the same second: one that cannot be
    made here ends at once."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(each for each in names if not (store / each).exists())


def cool_down() -> None:
    """Wait until the kernel has few connections in TIME_WAIT, or 70 s have passed: those of the
    last run hold ports that the next one needs (V9)."""
    deadline = time.monotonic() + _COOL_DOWN_MOST_S
    while counters.tcp()["tw"] > _ENOUGH_TIME_WAIT and time.monotonic() < deadline:
        time.sleep(1.0)


def record_of(
    name: str, order: Order, root: Path, backend: Backend, *, set_id: str, repeat: int
) -> Run:
    """The record of a run that has not begun: order, machine, criteria."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Run(
        id=name,
        started_at=now,
        command=" ".join(["just load", *sys.argv[2:]]),
        backend=backend,
        engine=_ENGINES[order.user] if order.engine == "locust" else "raw",
        seed=order.seed,
        target=order.target,
        observed=not order.target,
        tier=_tier(order.tier, backend),
        scenario=_scenario(order),
        fingerprint=fingerprint(root),
        details=_details(order, root / tiers.FILE),
        criteria=criteria(order.scenario.name),
        set_id=set_id,
        repeat=repeat,
        repeats=order.repeats,
        ports=counters.ports(),
    )


def _tier(tier: tiers.Tier, backend: Backend) -> schema.Tier:
    cpus = server_cpus(tier) if backend == "cgroup" else ""
    return schema.Tier(
        name=tier.name,
        limits=Limits() if backend == "given" else tier.limits,
        replicas=tier.replicas,
        cpus=[int(cpu) for cpu in cpus.split(",") if cpu],
        cores_needed=cores_needed(tier),
    )


def _scenario(order: Order) -> schema.Scenario:
    scenario = order.scenario
    return schema.Scenario(
        name=scenario.name,
        users=order.users,
        spawn_rate_hz=order.rate,
        ramp=order.ramp,
        duration_s=scenario.surge.after if scenario.surge else order.steady_s,
        think_s=None if scenario.open else (scenario.think[0], scenario.think[-1]),
        rate_hz=order.users / scenario.mean_think_s if scenario.open else None,
        models=[order.model],
        caching_disclosed=order.caching,
    )


def _details(order: Order, compose: Path) -> dict[str, str]:
    digest = hashlib.sha256(compose.read_bytes()).hexdigest() if compose.exists() else ""
    details = {"model": order.model, "tiers_sha256": digest, "system": platform.platform()}
    for name, file in _DETAILS.items():
        try:
            details[name] = Path(file).read_text().strip()
        except OSError:  # not of this kernel
            details[name] = ""
    return details


def fingerprint(root: Path) -> Fingerprint:
    """Machine, software and code of a load run here."""
    try:
        version = cgroup.version()
    except cgroup.Unavailable:  # containers need no control groups of ours
        version = 0
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    packages = machine.versions(_GENERATOR_PACKAGES)
    return machine.fingerprint(root, packages, nofile, cgroup_version=version)


def _end(
    order: Order, place: Place, backend: Backend, conductor: Conductor, recorder: Recorder
) -> Ended:
    """Carry out the run, and put into words how it ended."""
    if sentence := too_small(order.tier):
        return Ended(kind="aborted", sentence=sentence)
    try:
        with tempfile.TemporaryDirectory(prefix="loadlab-") as scratch:
            _run(order, place, backend, conductor, recorder, Path(scratch))
    except Fault as fault:
        return Ended(kind=fault.kind, sentence=fault.sentence)
    except _INFRASTRUCTURE as error:  # NoAnswer, a kind of WrongAnswer, says nothing of the server
        given = order.target and isinstance(error, NoAnswer)
        return Ended(kind="infrastructure", sentence=advised(error, order) if given else str(error))
    except WrongAnswer as error:
        return Ended(kind="wrong_answer", sentence=str(error))
    except KeyboardInterrupt:
        return Ended(kind="interrupted", sentence="interrupted by the user")
    except OSError as error:
        if error.errno not in _DISK:
            return Ended(kind="infrastructure", sentence=str(error))
        return Ended(kind="disk_full", sentence=f"the record could not be written: {error}")
    return Ended(kind="complete")


def _run(
    order: Order,
    place: Place,
    backend: Backend,
    conductor: Conductor,
    recorder: Recorder,
    scratch: Path,
) -> None:
    raise_open_files(order.users)  # servers and generators inherit it
    cpus = server_cpus(order.tier)
    held = frozenset(map(int, cpus.split(","))) if cpus else frozenset[int]()
    load = _load(order, conductor.start, processes(order, held))
    make = parts(order, place.root, held)
    conductor.measure_null_server(scratch / "null", load, make, cpus)
    cool_down()  # Locust's own user classes leave as many connections in TIME_WAIT as there were
    conductor.begin("start")
    started = starting(
        backend, order, place.root, bundles=place.bundles, scratch=scratch, cpus=cpus
    )
    with started as serving:
        exchanges, fresh = conductor.warm_up(serving)
        run = recorder.run
        run.target = ",".join(authority(*address) for address in serving.addresses)
        run.scenario = msgspec.structs.replace(run.scenario, bodies=len(exchanges))
        held = serving.cpus() or held
        full = msgspec.structs.replace(
            load,
            addresses=[(order.listen or host, port) for host, port in serving.addresses],
            path=serving.path,
            exchanges=exchanges,
            fresh=fresh,
            workers=processes(order, held),
        )
        make = parts(order, place.root, held)
        conductor.load(scratch, full, make(scratch / "generator", full))
    if order.repeats > recorder.run.repeat:
        cool_down()  # free ports for the next repeat; after the last one there is no wait


def _load(order: Order, start: float, workers: int) -> Load:
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
    """How long a run takes when nothing goes wrong and settling takes as long as it may; the null
    server has a ramp, too."""
    ramps_s = 2 * order.users / order.rate
    return ramps_s + SETTLE_MOST_S + order.steady_s + caching_s(order.steady_s) + 60.0
