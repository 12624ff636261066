"""`loadlab compare tier=half-core against=typical`: halfcore and a baseline in one tier, in blocks
of random order, through the load run's own rules.

The words are those of `loadlab load`, and `against=` and `blocks=`; exit codes as there. Where
`BASELINE_IMAGE` names an image, it is compared with that, and both sides run in containers.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import msgspec
from rich.console import Console, RenderableType

from loadlab.experiments import runner
from loadlab.experiments.runner import Experiment, say
from loadlab.experiments.trial import (
    LOAD_KEYS,
    Trial,
    begin,
    exit_code,
    load_run,
    one_of,
    own_words,
    trial,
    whole,
)
from loadlab.generator import scenarios
from loadlab.generator.scenarios import Scenario
from loadlab.record.read import read_run
from loadlab.report.command import STORE
from loadlab.run import arguments, session
from loadlab.run.arguments import Order, UsageError
from loadlab.run.session import Place
from loadlab.target import cgroup, compose, tiers
from loadlab.target.choice import Backend
from loadlab.target.docker import no_container
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier
from loadlab.verdict.stats import Interval, paired_ratio

Side = Literal["halfcore", "typical", "tuned", "onnx", "image"]
MEASURES = (
    ("cpu_us", "CPU time per right answer", False),
    ("p99_ms", "p99", True),
    ("memory_mib", "memory peak", True),
)
"""Field of a trial, name, and whether a server that failed shows a lower bound of it: with more
time it would take more. Its CPU time includes the overload, and bounds nothing."""
_OWN = {"against": "typical", "blocks": "5"}
_KEYS = (*LOAD_KEYS, *_OWN)
ENOUGH = 5
"""With fewer blocks an interval is shown, but nothing is concluded from it."""
_JUDGED = ("PASS", "FAIL")


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
    against: Side
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
        again = sum(block <= self.blocks for block in invalid)
        done = {(row.block, row.side) for row in self.rows}
        sides: list[Side] = ["halfcore", self.against]
        return runner.in_blocks(
            sides, self.blocks + again, self.seed, lambda block, side: (block, side) in done
        )

    @property
    def valid_blocks(self) -> list[tuple[Trial, Trial]]:
        """(halfcore, baseline) of every block in which both runs say something about the server."""
        found = []
        for ours in self.of("halfcore"):
            theirs = next((row for row in self.of(self.against) if row.block == ours.block), None)
            if theirs and {ours.outcome, theirs.outcome} <= set(_JUDGED):
                found.append((ours, theirs))
        return found


@dataclass(frozen=True)
class Effect:
    """One measure: how many times the baseline's value is of halfcore's."""

    name: str
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
    for field, name, bounds in MEASURES:
        counted = [
            (getattr(ours, field), getattr(theirs, field), theirs.outcome)
            for ours, theirs in comparison.valid_blocks
            if ours.outcome == "PASS" and (bounds or theirs.outcome == "PASS")
        ]
        known = [each for each in counted if each[0] and each[1]]
        pairs = tuple((ours, theirs) for ours, theirs, _ in known)
        failed = sum(outcome == "FAIL" for _, _, outcome in known)
        found.append(Effect(name, pairs, failed, _ratio(pairs, comparison.seed) if pairs else None))
    return found


@cache
def _ratio(pairs: tuple[tuple[float, float], ...], seed: int) -> Interval:
    """Kept: a page asks several times for what takes 10,000 resamples."""
    return paired_ratio(pairs, seed=seed)


def sentences(comparison: Comparison) -> list[str]:
    """What may be said, the baseline's failure and what is missing included."""
    said = [_outcomes(comparison, side) for side in ("halfcore", comparison.against)]
    blocks = len(comparison.valid_blocks)
    if not blocks:
        return [*said, "No block in which both sides were measured validly: there is no ratio."]
    said += [_effect(effect, comparison.against) for effect in effects(comparison)]
    if blocks < ENOUGH:
        said.append(
            f"Only {blocks} of at least {ENOUGH} blocks are valid on both sides: nothing is "
            "concluded."
        )
    return said


def _effect(effect: Effect, against: str) -> str:
    if effect.ratio is None:
        bounds = next(bounds for _, name, bounds in MEASURES if name == effect.name)
        needed = "halfcore" if bounds else "both sides"
        return f"{effect.name}: no ratio, for it needs blocks in which {needed} passed."
    reason = (
        f"; {against} failed in {effect.failed} of them, so its figure is a lower bound"
        if effect.failed
        else ""
    )
    between = f"{times(effect.ratio.low)}–{times(effect.ratio.high)}"
    return (
        f"{effect.name}: {against} takes {effect.text} × of halfcore's (95 % interval {between}, "
        f"{len(effect.pairs)} blocks{reason})."
    )


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    compare = commands.add_parser(
        "compare", help="halfcore and a baseline in one tier, in blocks of random order"
    )
    compare.add_argument("words", nargs="*", metavar="KEY=VALUE", help=f"of {', '.join(_KEYS)}")


def main(
    asked: argparse.Namespace,
    root: Path,
    console: Console,
    table: Callable[[Comparison], RenderableType],
) -> int:
    """Carry it out and store it, or continue one that was cut off; returns the exit code: 0 however
    it went for either side, 3 wrong usage, 4 no run, 130 interrupted. `table` shows every run."""

    def carry_out() -> int:
        known, image = tiers.read(root / tiers.FILE, os.environ), os.environ.get("BASELINE_IMAGE")
        order, against, blocks = parse(asked.words, known, scenarios.read(), image=image or "")
        if against == "image":
            _need_containers(order, root)
        else:
            cgroup.version()
        place = Place(root, root / ".halfcore/bundles", root / STORE)
        with session.alone(root):
            command = " ".join(["just compare", *asked.words])
            fresh = begin_comparison(order, against, blocks, place, command)
            found, file = runner.kept(fresh, root)
            found = compare(found, file, order, place, console)
        file.unlink()
        out = Console()
        out.print(table(found))
        say(out, *sentences(found), runner.stored(found, root))
        return 0

    return exit_code(carry_out, console)


def parse(
    words: Sequence[str],
    known: Mapping[str, Tier],
    workloads: Mapping[str, Scenario],
    *,
    image: str = "",
) -> tuple[Order, Side, int]:
    """Order, baseline and number of blocks; raises `UsageError`, `TierError`, `ScenarioError`.

    Args:
        image: what `against=image` is, and then the default of `against=`.
    """
    own, rest = own_words(words, _OWN | ({"against": "image"} if image else {}), "comparison")
    against = one_of(own, "against", get_args(Side)[1:])
    if against == "image" and not image:
        raise UsageError("against=image: BASELINE_IMAGE is not set, expected an image's name")
    blocks, in_containers = whole(own, "blocks", 100), against == "image"
    backend = f"backend={'compose' if in_containers else 'cgroup'}"
    order = arguments.parse([*rest, backend], known, workloads, offered=_KEYS)
    if in_containers and order.balancer != "none":
        raise UsageError(
            "balancer= is for processes of the lab; an image and the server that it is compared "
            "with are containers"
        )
    order = msgspec.structs.replace(order, image=image if in_containers else "")
    return order, against, blocks  # type: ignore[return-value]  # one of `Side`


def _need_containers(order: Order, root: Path) -> None:
    """Both sides are containers, or neither: a bridge costs what loopback does not."""
    if reason := no_container(root, order.image) or compose.missing(order.tier, root):
        raise BackendFailed(f"BASELINE_IMAGE={order.image}: {reason}")


def begin_comparison(
    order: Order, against: Side, blocks: int, place: Place, command: str
) -> Comparison:
    """A comparison without runs; raises as `begin`."""
    tier = order.tier
    return begin(
        Comparison,
        [order, msgspec.structs.replace(order, service=against)],
        place,
        backend=_backend(against),
        command=command,
        tier=tier.name,
        limits=f"{tier.replicas} × {tier.cpus:g} CPU, {tier.memory_bytes / 2**20:.0f} MiB",
        scenario=order.scenario.name,
        users=order.users,
        steady_s=order.steady_s,
        model=order.model,
        against=against,
        blocks=blocks,
        image=order.image,
    )


def _backend(against: Side) -> Backend:
    return "compose" if against == "image" else "cgroup"


def compare(
    found: Comparison, file: Path, order: Order, place: Place, console: Console
) -> Comparison:
    """Make every run that is missing; an INVALID one proves nothing, so its block is made again,
    once. Takes minutes for each."""

    def measure(cell: tuple[int, Side]) -> Trial:
        block, side = cell
        mine = msgspec.structs.replace(order, service=side, seed=order.seed + block)
        return trial(load_run(mine, place, _backend(found.against), console), block, side)

    found = runner.run(
        found,
        lambda so_far: so_far.left,
        measure,
        file=file,
        show=runner.progress(console, lambda cell: f"block {cell[0]}: {cell[1]}"),
    )
    if images := found.of("image"):
        image_id = read_run(place.store / images[-1].run).details.get("image_id", "")
        found = msgspec.structs.replace(found, image=f"{order.image} {image_id}".strip())
    return found


def times(ratio: float) -> str:
    """A ratio in three digits, or whole where it has more of them: 2.75, 1,470."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def counted(comparison: Comparison, side: str) -> str:
    """How a side's runs ended, in a few words: `5 PASS of 5`."""
    trials = comparison.of(side)
    if trials and not any(each.could_start for each in trials):
        return "cannot start"
    kinds = [
        (kind, sum(each.outcome == kind for each in trials))
        for kind in ("PASS", "FAIL", "INVALID", "ERROR")
    ]
    said = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
    return f"{said} of {comparison.made}"


def _outcomes(comparison: Comparison, side: str) -> str:
    trials = comparison.of(side)
    if trials and not any(each.could_start for each in trials):
        return f"{side} cannot start in this tier: {trials[0].sentence}"
    reasons = (f" {each.outcome}: {each.sentence}" for each in trials if each.outcome != "PASS")
    return f"{side}: {counted(comparison, side)}.{next(reasons, '')}"
