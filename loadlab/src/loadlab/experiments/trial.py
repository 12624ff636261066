"""One load run as a cell of an experiment, in the experiments' own numbers; and what all commands
that make load runs share."""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
from rich.console import Console

from loadlab.bundles import read_manifest
from loadlab.experiments.runner import E, digest, now
from loadlab.generator.exchange import ROWS
from loadlab.record import cgroup
from loadlab.record.machine import calibrate
from loadlab.record.schema import Backend, Ended, Sample
from loadlab.record.store import Log, StoreError, read
from loadlab.report.command import conclude
from loadlab.report.terminal import say
from loadlab.run import session
from loadlab.run.command import INFRASTRUCTURE, INTERRUPTED, USAGE
from loadlab.run.lock import Busy, alone
from loadlab.run.order import Order
from loadlab.run.session import Place, cool_down
from loadlab.target.process import try_groups
from loadlab.target.programs import case, prepare_baseline
from loadlab.target.serving import BackendFailed
from loadlab.verdict.figures import UNDER_LOAD, Figures, answered, cpu_s, quantile_ms, rate
from loadlab.verdict.judge import Outcome, Verdict
from loadlab.words import UsageError

REFUSED = {
    **dict.fromkeys(
        ("target", "allow-host", "backend"),
        "an experiment starts its own servers, each in its own control group",
    ),
    "repeats": "an experiment repeats its runs by itself; `just compare` has blocks= for how often",
    "web": "Locust's page shows one run, and an experiment makes many; `just load` has it",
}
"""Words of `just load` that have no place in an experiment."""


class LabFailed(RuntimeError):
    """The run broke for a reason that the server does not explain: the experiment cannot
    continue."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one server. A server that fails may have no steady phase, so figures are taken of
    everything from the first user to the end of the steady phase."""

    block: int
    side: str
    """Halfcore, a variant of the baseline, or a published image."""
    run: str
    """Of the load runs' history."""
    outcome: Outcome
    sentence: str
    could_start: bool
    cpu_us: float | None
    """The server's CPU time per right answer; None: no right answer."""
    p99_ms: float | None
    """Response time of right answers."""
    memory_mib: float | None
    """Peak."""
    figures: Figures


class Loaded(NamedTuple):
    """A load run that has ended."""

    log: Log
    verdict: Verdict
    ended: Ended

    @property
    def lasted_s(self) -> float:
        """From the first user to the end of the steady phase."""
        return math.fsum(self.log.lasted_s(name) for name in UNDER_LOAD)

    @property
    def right(self) -> int:
        """Right answers in this time."""
        return answered(self.log.of("users", *UNDER_LOAD))

    def us_per_answer(self, cpu_s: Callable[[Sample], float | None]) -> float | None:
        """CPU time of the server, or of a part of it, per right answer, microseconds."""
        cores = rate(self.log.sampled(*UNDER_LOAD), cpu_s)
        return None if cores is None or not self.right else cores * self.lasted_s / self.right * 1e6

    def quantile_ms(self, q: float) -> float | None:
        """Response time of right answers in this time."""
        return quantile_ms(self.log.histogram("users", "response", *UNDER_LOAD), q)


def begin(
    kind: type[E],
    orders: Sequence[Order],
    place: Place,
    typed: argparse.Namespace,
    /,
    backend: Backend = "cgroup",
    **own: Any,
) -> E:
    """A fresh experiment of load runs, as it was typed; what its kind holds of the first order is
    filled in, and `own` is the rest.

    Raises:
        UsageError: a model that the baseline cannot answer for.
        CaseError: no bundle of a model.
        cgroup.Unavailable: there are no control groups.
        subprocess.CalledProcessError: the baseline's environment cannot be installed.
    """
    if backend == "cgroup":
        try_groups()
    baselines = {order.service for order in orders} - {"halfcore", "image"}
    models = sorted({order.model for order in orders})
    if baselines:
        _check_models(models, min(baselines))
    manifests = [read_manifest(case(place.bundles, model).bundle) for model in models]
    bundles = [manifest["onnx"]["sha256"] for manifest in manifests]
    packages = prepare_baseline(place.root) if baselines else {}
    order, machine = orders[0], session.fingerprint(place.root)
    packages = packages or machine.baseline_packages
    machine = msgspec.structs.replace(machine, baseline_packages=packages, calibration=calibrate())
    asked = msgspec.structs.asdict(order)
    asked |= {"tier": order.tier.name, "scenario": order.scenario.name}
    return kind(
        started_at=now(),
        command=" ".join(["just", typed.command, *typed.words]),
        inputs=digest(place.root, orders, bundles),
        fingerprint=machine,
        **{name: value for name, value in asked.items() if name in kind.__struct_fields__},
        **own,
    )


def _check_models(models: Iterable[str], baseline: str) -> None:
    """Whether the baseline has a body for them; without one it could not start, which would count
    as a result of a comparison."""
    known = sorted(file.stem for file in ROWS.glob("*.csv"))
    if unknown := [each for each in models if each.partition("-")[0] not in known]:
        raise UsageError(
            f"model={unknown[0]}: the baseline {baseline} is written for the examples alone "
            f"({', '.join(known)}). `BASELINE_IMAGE=name just compare` compares a model of your "
            "own with an image of your service"
        )


def load_run(
    order: Order, place: Place, backend: Backend, console: Console, *, quiet: bool = False
) -> Loaded:
    """One load run on a fresh server, judged, its table printed unless `quiet`; raises
    `KeyboardInterrupt` if the user ended it."""
    cool_down()
    folder, ended = session.carry_out(order, place, backend, console, set_id="", repeat=1)
    verdict = conclude(folder, Console(quiet=True) if quiet else console)
    if ended.kind == "interrupted":
        raise KeyboardInterrupt
    return Loaded(read(folder), verdict, ended)


def trial(run: Loaded, block: int, side: str) -> Trial:
    """A run in the experiment's own numbers."""
    return Trial(
        block=block,
        side=side,
        run=run.log.run.id,
        outcome=run.verdict.outcome,
        sentence=run.verdict.sentence,
        could_start=run.ended.kind != "infrastructure",
        cpu_us=run.us_per_answer(cpu_s),
        p99_ms=run.quantile_ms(0.99),
        memory_mib=run.verdict.figures.memory_peak_mib,
        figures=run.verdict.figures,
    )


def command(
    asked: argparse.Namespace,
    root: Path,
    console: Console,
    carry_out: Callable[[argparse.Namespace, Place, Console], int],
) -> int:
    """Carry out a command that makes load runs, alone on this machine; returns its exit code, or 3
    wrong usage, 4 no run could be made, 130 interrupted."""
    try:
        with alone():
            return carry_out(asked, Place.of(root), console)
    except UsageError as error:
        say(console, f"loadlab: {error}")
        return USAGE
    except (Busy, BackendFailed, LabFailed, StoreError, cgroup.Unavailable, OSError) as error:
        say(console, f"loadlab: {error}")
        return INFRASTRUCTURE
    except KeyboardInterrupt:  # what was measured is kept
        say(console, "interrupted; the same words continue it")
        return INTERRUPTED


def tally(trials: Iterable[Trial]) -> str:
    """How often what, in words."""
    counts = Counter(each.outcome for each in trials)
    return ", ".join(f"{counts[kind]} {kind}" for kind in get_args(Outcome) if counts[kind])
