"""`loadlab compare tier=half-core against=typical`: halfcore and a baseline in one tier, in blocks
of random order, through the load run's own rules.

The words are those of `loadlab load`, and `against=` and `blocks=`; exit codes as there. Where
`BASELINE_IMAGE` names an image, it is compared with that, and both sides run in containers.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta
from rich.console import Console, RenderableType

from loadlab import words
from loadlab.experiments import runner, trial
from loadlab.experiments.runner import Experiment
from loadlab.experiments.trial import Trial
from loadlab.generator.plan import Scenario, scenarios
from loadlab.parser import add_command
from loadlab.record.schema import Backend
from loadlab.record.store import read_run
from loadlab.run.order import Order, understand
from loadlab.run.session import Place
from loadlab.target import tiers
from loadlab.target.containers import no_container
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier
from loadlab.verdict.stats import Interval, paired_ratio
from loadlab.words import LoadWords, UsageError

Baseline = Literal["typical", "tuned", "onnx", "image"]
Side = Literal["halfcore", Baseline]
MEASURES = (
    ("cpu_us", "CPU time per right answer", "both sides"),
    ("p99_ms", "p99", "halfcore"),
    ("memory_mib", "memory peak", "halfcore"),
)
"""Field of a trial, name, and who has to have passed: a baseline that failed shows a lower bound,
with more time it would take more. Its CPU time includes the overload, and bounds nothing."""
ENOUGH = 5
"""With fewer blocks an interval is shown, but nothing is concluded from it."""
_ratio = cache(paired_ratio)
"""Kept: a page asks several times for what takes 10,000 resamples."""


class Words(LoadWords, frozen=True, kw_only=True):
    """Those of `just compare`."""

    against: Annotated[Baseline, Meta(description="the service that halfcore is compared with")] = (
        "typical"
    )
    blocks: Annotated[int, Meta(ge=1, le=100, description="each has one run of both services")] = 5


class Comparison(Experiment[Trial], frozen=True, kw_only=True):
    """A stored comparison."""

    kind: Literal["compare"] = "compare"
    tier: str
    limits: str
    """In words."""
    scenario: str
    users: int
    steady_s: float
    model: str
    against: Baseline
    blocks: int
    """That were asked for: another is made for each of them that has an INVALID run."""
    image: str = ""
    """What `image` is: its name and, once it has run, the engine's id of it."""

    @property
    def about(self) -> str:
        """Tier, baseline and number of users."""
        return f"{self.tier}-{self.against}-{self.users}"

    @property
    def made(self) -> int:
        """Blocks that were begun."""
        return max((row.block for row in self.rows), default=0)

    def of(self, side: str) -> list[Trial]:
        """One side's runs."""
        return [row for row in self.rows if row.side == side]

    @property
    def left(self) -> list[tuple[int, Side]]:
        """(block, side) of every run that is missing; the order in a block is drawn."""
        invalid = {row.block for row in self.rows if row.outcome == "INVALID"}
        blocks = self.blocks + sum(block <= self.blocks for block in invalid)
        done = {(row.block, row.side) for row in self.rows}
        sides: list[Side] = ["halfcore", self.against]
        return runner.in_blocks(sides, blocks, self.seed, lambda *run: run in done)

    @property
    def valid_blocks(self) -> list[tuple[Trial, Trial]]:
        """(halfcore, baseline) of every block in which both runs say something about the server."""
        ours, theirs = (
            {row.block: row for row in self.of(side) if row.outcome in {"PASS", "FAIL"}}
            for side in ("halfcore", self.against)
        )
        return [(ours[block], theirs[block]) for block in ours if block in theirs]


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "halfcore and a baseline in one tier, in blocks of random order"
    words.add_to(add_command(commands, "compare", says), Words, trial.REFUSED)


def carry_out(
    typed: argparse.Namespace,
    place: Place,
    console: Console,
    table: Callable[[Comparison], RenderableType],
) -> int:
    """Make a comparison, or continue one that was cut off, and store it; returns the exit code, 0
    however it went for either side. `table` shows every run."""
    image = os.environ.get("BASELINE_IMAGE", "")
    known = tiers.read(place.root / tiers.FILE, os.environ)
    order, against, blocks = parse(typed.words, known, scenarios(), image=image)
    tier = order.tier
    # Both sides are containers, or neither: a bridge costs what loopback does not.
    if against == "image" and (
        reason := no_container(place.root, order.image) or no_container(place.root, tier.image)
    ):
        raise BackendFailed(f"BASELINE_IMAGE={order.image}: {reason}")
    fresh = trial.begin(
        Comparison,
        [order, msgspec.structs.replace(order, service=against)],
        place,
        typed,
        backend=_backend(against),
        limits=f"{tier.replicas} × {tier.cpus:g} CPU, {tier.memory_bytes / 2**20:.0f} MiB",
        against=against,
        blocks=blocks,
    )
    found, file = compare(fresh, order, place, console)
    runner.finish(found, file, place.root, table(found), *sentences(found))
    return 0


def parse(
    given: Sequence[str],
    known: Mapping[str, Tier],
    workloads: Mapping[str, Scenario],
    *,
    image: str = "",
) -> tuple[Order, Baseline, int]:
    """Order, baseline and number of blocks; raises `UsageError`.

    Args:
        image: what `against=image` is, and then the default of `against=`.
    """
    if image and not any(word.startswith("against=") for word in given):
        given = [*given, "against=image"]
    names = {"tier": known, "scenario": workloads}
    asked = words.parse(Words, given, trial.REFUSED, names)
    if asked.against != "image":
        image = ""
    elif not image:
        raise UsageError("against=image: BASELINE_IMAGE is not set, expected an image's name")
    elif asked.balancer != "none":
        raise UsageError(
            "balancer= is for processes of the lab; an image and the server that it is compared "
            "with are containers"
        )
    asked = msgspec.structs.replace(asked, backend=_backend(asked.against))
    order = msgspec.structs.replace(understand(asked, known, workloads), image=image)
    return order, asked.against, asked.blocks


def _backend(against: Baseline) -> Backend:
    return "compose" if against == "image" else "cgroup"


def compare(
    fresh: Comparison, order: Order, place: Place, console: Console
) -> tuple[Comparison, Path]:
    """Make every run that is missing; an INVALID one proves nothing, so its block is made again,
    once. Takes minutes for each; returns also the file that keeps them."""

    def measure(cell: tuple[int, Side]) -> Trial:
        block, side = cell
        mine = msgspec.structs.replace(order, service=side, seed=order.seed + block)
        run = trial.load_run(mine, place, _backend(fresh.against), console)
        return trial.trial(run, block, side)

    named = "block {0[0]}: {0[1]}".format
    found, file = runner.conduct(fresh, measure, named, place.root, console)
    if images := found.of("image"):
        image_id = read_run(place.store / images[-1].run).details.get("image_id", "")
        found = msgspec.structs.replace(found, image=f"{order.image} {image_id}".strip())
    return found, file


class Effect(NamedTuple):
    """One measure: how many times the baseline's value is of halfcore's."""

    name: str
    needs: str
    """Who has to have passed in a block that counts."""
    pairs: Sequence[tuple[float, float]]
    """(halfcore, baseline) of each block that counts."""
    failed: int
    """Of these blocks, those in which the baseline failed: the ratio is at least what is shown."""
    ratio: Interval | None
    """With its 95 % bootstrap interval over the blocks; None without any pair."""

    @property
    def text(self) -> str:
        """The ratio; a lower bound as such."""
        return f"{'≥ ' if self.failed else ''}{times(self.ratio.estimate)}" if self.ratio else "–"


def effects(comparison: Comparison) -> list[Effect]:
    """All measures, from blocks in which halfcore passed: the figures of a server that failed
    cannot be divided by. The same comparison gives the same intervals."""
    found = []
    for field, name, needs in MEASURES:
        known = [
            (getattr(ours, field), getattr(theirs, field), theirs.outcome)
            for ours, theirs in comparison.valid_blocks
            if ours.outcome == "PASS" and (needs == "halfcore" or theirs.outcome == "PASS")
        ]
        known = [each for each in known if all(each)]
        pairs = tuple((ours, theirs) for ours, theirs, _ in known)
        failed = sum(outcome == "FAIL" for *_, outcome in known)
        ratio = _ratio(pairs, seed=comparison.seed) if pairs else None
        found.append(Effect(name, needs, pairs, failed, ratio))
    return found


def sentences(comparison: Comparison) -> list[str]:
    """What may be said, the baseline's failure and what is missing included."""
    sides = ("halfcore", comparison.against)
    return runner.said(
        "compare",
        sides=[(side, counted(comparison, side), comparison.of(side)) for side in sides],
        against=comparison.against,
        blocks=len(comparison.valid_blocks),
        effects=effects(comparison),
        enough=ENOUGH,
        times=times,
    )


def times(ratio: float) -> str:
    """A ratio in three digits, or whole where it has more of them: 2.75, 1,470."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def counted(comparison: Comparison, side: str) -> str:
    """How a side's runs ended, in a few words: `5 PASS of 5`."""
    trials = comparison.of(side)
    if trials and not any(each.could_start for each in trials):
        return "cannot start"
    return f"{trial.tally(trials)} of {comparison.made}"
