"""Carrying a comparison out: each block runs both sides once, each on a fresh server, in an order
drawn from the seed."""

import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from loadlab.experiments.bench.subjects import prepare_baseline
from loadlab.experiments.compare.form import Comparison, Side, Trial
from loadlab.record.histogram import quantile
from loadlab.record.read import Log, read
from loadlab.record.schema import Ended, PhaseName
from loadlab.report.command import conclude
from loadlab.run import session
from loadlab.run.order import Order
from loadlab.run.session import Place
from loadlab.target.choice import Backend
from loadlab.verdict.figures import answered, cpu_s, rate
from loadlab.verdict.judge import Verdict

UNDER_LOAD: tuple[PhaseName, ...] = ("ramp", "settle", "steady")
"""A side that fails may have no steady phase: figures are taken of all of this on both sides."""


class Interrupted(Exception):
    """The user ended the comparison; what was measured is in the load runs' history."""


def carry_out(
    order: Order,
    against: Side,
    blocks: int,
    place: Place,
    console: Console,
    *,
    command: str,
    say: Callable[[str], None],
) -> Comparison:
    """Run every block, and another one for each that has an INVALID run, which proves nothing;
    takes two runs' time for each.

    Raises:
        Interrupted: the user ended it.
        subprocess.CalledProcessError: the baseline's environment cannot be installed.
    """
    started, began = datetime.now(UTC), time.monotonic()
    packages = {} if against == "image" else prepare_baseline(place.root)
    backend: Backend = "compose" if against == "image" else "cgroup"
    trials: list[Trial] = []
    image, block, planned = "", 0, blocks
    while block < planned:
        block += 1
        for side in sides(against, block=block, seed=order.seed):
            say(f"block {block} of {planned}: {side}")
            mine = msgspec.structs.replace(order, service=side, seed=order.seed + block)
            found, log = _run(mine, side, block, place, backend, console)
            if side == "image":
                image = " ".join([order.image, log.run.details.get("image_id", "")]).strip()
            trials.append(found)
        if block <= blocks and any(each.outcome == "INVALID" for each in trials[-2:]):
            planned += 1
    fingerprint = session.fingerprint(place.root)
    return Comparison(
        started_at=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        minutes=round((time.monotonic() - began) / 60, 1),
        command=command,
        seed=order.seed,
        tier=order.tier.name,
        limits=(
            f"{order.tier.replicas} × {order.tier.cpus:g} CPU, "
            f"{order.tier.memory_bytes / 2**20:.0f} MiB"
        ),
        scenario=order.scenario.name,
        users=order.users,
        steady_s=order.steady_s,
        model=order.model,
        against=against,
        blocks=block,
        image=image,
        fingerprint=msgspec.structs.replace(fingerprint, baseline_packages=packages),
        trials=trials,
    )


def _run(
    order: Order, side: Side, block: int, place: Place, backend: Backend, console: Console
) -> tuple[Trial, Log]:
    """Run one side once on a fresh server; raises `Interrupted`."""
    folder, ended = session.carry_out(order, place, backend, console, set_id="", repeat=1)
    verdict = conclude(folder, console)
    if ended.kind == "interrupted":
        raise Interrupted
    log = read(folder)
    return trial(log, verdict, ended, block=block, side=side), log


def sides(against: Side, *, block: int, seed: int) -> Sequence[Side]:
    """The order of one block: drawn for each block, the same for the same seed."""
    drawn: list[Side] = ["halfcore", against]
    random.Random(f"{seed}/{block}").shuffle(drawn)  # noqa: S311  an order, not a secret
    return drawn


def trial(log: Log, verdict: Verdict, ended: Ended, *, block: int, side: Side) -> Trial:
    """One run in the comparison's own numbers."""
    response = log.histogram("users", "response", *UNDER_LOAD)
    return Trial(
        block=block,
        side=side,
        run=log.run.id,
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        could_start=ended.kind != "infrastructure",
        cpu_us=_cpu_us(log),
        p99_ms=quantile(response, 0.99) / 1000 if response else None,
        memory_mib=verdict.figures.memory_peak_mib,
        figures=verdict.figures,
    )


def _cpu_us(log: Log) -> float | None:
    samples, right = log.sampled(*UNDER_LOAD), answered(log.of("users", *UNDER_LOAD))
    used_cores, lasted_s = (
        rate(samples, cpu_s),
        math.fsum(log.lasted_s(name) for name in UNDER_LOAD),
    )
    return used_cores * lasted_s / right * 1e6 if used_cores is not None and right else None


def store_of(root: Path) -> Path:
    """Where comparisons are kept, from the checkout's root."""
    return root / "docs/runs"
