"""`loadlab search users=10000 …`: the words of `loadlab load`, and `against=`, `budget=`, `fresh=`
and `rerun=`."""

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta
from rich.console import Console, RenderableType
from rich.table import Table

from loadlab import words
from loadlab.experiments import runner, trial
from loadlab.experiments import search as stored
from loadlab.experiments.axis import PATIENCE, REPEATS, Judgement
from loadlab.experiments.search import Found, Goal, Probe, Search, Service, Step, decide
from loadlab.experiments.trial import LabFailed, Loaded
from loadlab.generator import scenarios
from loadlab.generator.scenarios import Scenario
from loadlab.record.criteria import criteria
from loadlab.run.order import Order, too_small, understand
from loadlab.run.phases import caching_s
from loadlab.run.session import Place
from loadlab.target import tiers
from loadlab.target.tiers import Tier
from loadlab.verdict.steadiness import WINDOWS
from loadlab.words import Engine, LoadWords, UsageError, YesNo

_SHORT_S, _SHORTER = 20.0, 4
_AROUND_S = 75.0
"""What a run takes besides ramp, steady and repeated phases, as long as none was measured: null
server, start, warm-up, settling, drain, …"""
PASSED, NOTHING_PASSES, UNDECIDED = 0, 1, 2


class Words(LoadWords, frozen=True, kw_only=True):
    """Those of `just search`."""

    tier: Annotated[str, Meta(description="the greatest limits, by its name")] = "one-core"
    engine: Annotated[Engine, Meta(description="who drives the load")] = "raw"
    against: Annotated[Service, Meta(description="whose minimum is searched")] = "halfcore"
    budget: Annotated[
        int, Meta(ge=1, le=1440, description="that it may take", extra={"counts": "minutes"})
    ] = 90
    fresh: Annotated[YesNo, Meta(description="forget what was kept of the same search")] = "no"
    rerun: Annotated[YesNo, Meta(description="run a stored search's minimum again")] = "no"


class Asked(NamedTuple):
    """The words, understood."""

    order: Order
    goal: Goal
    words: Words


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "the least CPU and memory with which so many users pass"
    words.add_to(commands.add_parser("search", help=says), Words, trial.REFUSED)


def main(
    asked: argparse.Namespace,
    root: Path,
    console: Console,
    table: Callable[[Search], RenderableType],
) -> int:
    """Search, or run what was found again; returns the exit code.

    0 a minimum was found (or passed again), 1 not even the greatest limits pass (or the minimum
    failed), 2 nothing is proven (INVALID, or the budget is spent). `table` shows the probes.
    """

    def carry_out(place: Place, command: str) -> int:
        found = parse(asked.words, tiers.read(root / tiers.FILE, os.environ), scenarios.read())
        fresh = trial.begin(Search, [found.order], place, command=command, goal=found.goal)
        if found.words.rerun == "yes":
            return _rerun(found, fresh, place, console)
        return _search(found, fresh, place, console, table)

    return trial.command(asked, root, console, carry_out)


def parse(
    given: Sequence[str], known: Mapping[str, Tier], workloads: Mapping[str, Scenario]
) -> Asked:
    """Order and goal; raises `UsageError`, `TierError`, `ScenarioError`."""
    asked = words.parse(Words, given, trial.REFUSED)
    if asked.fresh == asked.rerun == "yes":
        raise UsageError(
            "fresh=yes forgets a search, rerun=yes runs a stored one's minimum again: expected "
            "one of them"
        )
    asked = msgspec.structs.replace(asked, backend="cgroup")
    order = understand(asked, known, workloads)
    order = msgspec.structs.replace(order, service=asked.against)
    return Asked(order, _goal(order), asked)


def _goal(order: Order) -> Goal:
    tier, rules = order.tier, criteria(order.scenario.name).rules
    least_s = rules.v13_window_s * WINDOWS
    enough_s = rules.v12_samples * order.scenario.mean_think_s / order.users
    wrong = ""
    if tier.replicas > 1:
        wrong = (
            f"tier={tier.name} has {tier.replicas} replicas: a search is of one, which the tier "
            "gives its greatest limits"
        )
    elif sentence := too_small(tier):
        wrong = f"{sentence}: name a smaller one with tier="
    elif order.steady_s < least_s:
        wrong = (
            f"duration={order.steady_s:g}s is too short: expected at least {least_s} s, because "
            f"rule V13 looks at {WINDOWS} windows"
        )
    elif order.steady_s < enough_s:
        wrong = (
            f"users={order.users} with duration={order.steady_s:g}s make fewer than the "
            f"{rules.v12_samples} answers that rule V12 wants; {enough_s:.0f} s would do"
        )
    if wrong:
        raise UsageError(wrong)
    shorter_s = max(_SHORT_S, order.steady_s / _SHORTER, 1.5 * enough_s)
    return Goal(
        most_centicores=round(tier.cpus * 100),
        most_mib=tier.memory_bytes >> 20,
        full_s=order.steady_s,
        # A surge has its time in the run: such a run cannot be shortened.
        short_s=order.steady_s if order.scenario.surge else min(order.steady_s, shorter_s),
    )


def _search(
    asked: Asked,
    fresh: Search,
    place: Place,
    console: Console,
    table: Callable[[Search], RenderableType],
) -> int:
    search, file = runner.kept(fresh, place.root, again=asked.words.fresh == "yes")
    if search.rows:
        done = f"continuing after {len(search.rows)} probes, kept in {file}"
        runner.say(console, f"{done}; fresh=yes forgets them")
    plan = Plan(asked.words.budget * 60, asked.order.users / asked.order.rate, console)
    probe = _prober(asked, place, console, len(search.rows) + 1)
    search = runner.run(search, plan.left, probe, file=file, show=plan.show)
    shown = (table(search), *stored.sentences(search))
    if isinstance(decide(search), Found):
        runner.finish(search, None, place.root, *shown)
    else:
        spent = f"The budget of {asked.words.budget} minutes is spent"
        runner.show(*shown, f"{spent}; the same words continue from here.")
    return end_of(search)


def end_of(search: Search) -> int:
    """The exit code."""
    found = decide(search)
    if not isinstance(found, Found):
        return UNDECIDED
    if found.minimum:
        return PASSED
    return NOTHING_PASSES if found.cpu.fails is not None else UNDECIDED


class Plan:
    """What is left to try within the time that this invocation may take.

    Args:
        budget_s: no probe is begun that is not expected to end within it.
        ramp_s: how long the users' ramp takes.
    """

    def __init__(
        self,
        budget_s: float,
        ramp_s: float,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ends, self._ramp_s = clock() + budget_s, ramp_s
        self._console, self._clock = console, clock

    def left(self, search: Search) -> list[Step]:
        """The expected probes, the next one first; none if that would not fit."""
        steps = stored.forecast(search)
        fits = steps and self.expected_s(search, steps[0]) <= self._ends - self._clock()
        return steps if fits else []

    def expected_s(self, search: Search, step: Step) -> float:
        """How long a probe should take: as long as those like it that passed, or what its phases
        add up to. One that fails ends sooner."""
        kind = (step.full, step.twice, "PASS")
        like = [row.seconds for row in search.rows if (row.full, row.twice, row.outcome) == kind]
        steady_s = search.goal.steady_s(step)
        phases_s = _AROUND_S + self._ramp_s + steady_s + caching_s(steady_s)
        return statistics.median(like) if like else phases_s

    def show(self, search: Search, steps: Sequence[Step]) -> None:
        """The next probe and the time; before the first one also all that are expected."""
        if not search.rows:
            title = "The plan, if the edges lie where they are expected"
            plan = Table("", "CPU", "MiB", "steady s", "why", box=None, title=title)
            for number, step in enumerate(steps, 1):
                length = f"{search.goal.steady_s(step):g}"
                plan.add_row(f"{number}", f"{step.cpus:g}", f"{step.mib:,}", length, step.why)
            self._console.print(plan)
        minutes = math.fsum(self.expected_s(search, step) for step in steps) / 60
        left = (self._ends - self._clock()) / 60
        self._console.print(
            f"[bold]probe {len(search.rows) + 1}[/]: {steps[0].text}, "
            f"{search.goal.steady_s(steps[0]):g} s steady · then about {len(steps) - 1} more · "
            f"about {minutes:.0f} min to go · {left:.0f} min left of the budget",
            highlight=False,
            soft_wrap=True,
        )


def _prober(asked: Asked, place: Place, console: Console, number: int) -> Callable[[Step], Probe]:
    """Carries out probes, each on a fresh server, and prints what each says; `number` is the first
    one's, and moves the seed, so that repeats do not repeat chance too."""
    numbers = itertools.count(number)

    def run(step: Step) -> Probe:
        began = time.monotonic()
        order = order_of(step, next(numbers), asked)
        done = probe(step, trial.load_run(order, place, "cgroup", console, quiet=True))
        runner.say(console, f"{done.outcome}: {step.text}. {done.sentence}")
        return msgspec.structs.replace(done, seconds=round(time.monotonic() - began, 1))

    return run


def order_of(step: Step, number: int, asked: Asked) -> Order:
    """The load run that a step asks for."""
    name = f"search-{step.cpus:g}-{step.mib}m"
    tier = msgspec.structs.replace(
        asked.order.tier, name=name, cpus=step.cpus, memory_bytes=step.mib << 20
    )
    steady_s, seed = asked.goal.steady_s(step), asked.order.seed + number
    return msgspec.structs.replace(asked.order, tier=tier, steady_s=steady_s, seed=seed)


def probe(step: Step, run: Loaded) -> Probe:
    """What a run says to the search; raises `LabFailed`."""
    verdict, outcome = run.verdict, judgement(run)
    could_start = run.ended.kind != "infrastructure"
    # A figure that misses the objective was kept from a FAIL, any other from a PASS.
    needs = "allows_pass" if all(line.holds for line in verdict.objective) else "allows_fail"
    broken = [found.rule for found in verdict.findings if not getattr(found, needs)]
    return Probe(
        **msgspec.structs.asdict(step),
        outcome=outcome,
        could_start=could_start,
        sentence=verdict.sentence,
        rules=broken if outcome == "INVALID" else [],
        run=run.log.run.id,
        seconds=0.0,
        figures=verdict.figures if could_start else None,
    )


def judgement(run: Loaded) -> Judgement:
    """What a run says of its limits: a server that cannot start in them, or not answer without
    load, fails in them.

    Raises:
        LabFailed: the generator could not start, the disk is full, the server answers wrongly,
            which limits do not explain, …
    """
    kind, phases = run.ended.kind, run.log.run.phases
    starting = bool(phases) and phases[-1].name in {"start", "warmup"}
    if kind in {"disk_full", "wrong_answer"} or (kind == "infrastructure" and not starting):
        raise LabFailed(run.ended.sentence)
    return "FAIL" if run.verdict.outcome == "ERROR" else run.verdict.outcome


def _rerun(asked: Asked, fresh: Search, place: Place, console: Console) -> int:
    file, search = to_run_again(place.root / runner.STORED, fresh)
    rerun = msgspec.structs.replace(fresh, kind="rerun", of=file.name)
    rerun, kept = runner.kept(rerun, place.root)
    made = [search, *stored.reruns(file), rerun]
    rerun = runner.run(
        rerun,
        lambda so_far: rerun_left(search, so_far),
        _prober(asked, place, console, sum(len(each.rows) for each in made) + 1),
        file=kept,
        show=runner.progress(console, lambda step: step.text),
    )
    runner.finish(rerun, kept, place.root, stored.again(rerun))
    codes = {"PASS": PASSED, "FAIL": NOTHING_PASSES, "INVALID": UNDECIDED}
    return codes[rerun.rows[-1].outcome]


def to_run_again(runs: Path, fresh: Search) -> tuple[Path, Search]:
    """The last stored search of the same server, users and limits, whatever its commit.

    Raises:
        UsageError: there is none, or it found no minimum.
        StoreError: one cannot be read.
    """
    fields = ("service", "tier", "scenario", "users", "model", "engine", "goal")
    for file in sorted(runs.glob(f"*-search-{fresh.about}.json"), reverse=True):
        search = runner.load(file, Search)
        if all(getattr(search, field) == getattr(fresh, field) for field in fields):
            found = decide(search)
            if not isinstance(found, Found) or found.minimum is None:
                raise UsageError(f"rerun=yes: {file.name} found no minimum that could be run again")
            return file, search
    raise UsageError(
        "rerun=yes: no search of these words is stored; the same words without rerun= make one"
    )


def rerun_left(search: Search, rerun: Search) -> list[Step]:
    """The minimum at full length, as often as it has to pass; what is INVALID is repeated as in the
    search, and one FAIL is the end."""
    found, said = decide(search), "".join(row.outcome[0] for row in rerun.rows)
    invalid, passed = len(said) - len(said.rstrip("I")), said.count("P")
    if "F" in said or invalid == PATIENCE or not isinstance(found, Found) or not found.minimum:
        return []
    left = [
        Step(*found.minimum, True, f"the minimum, run again, {number} of {REPEATS}")
        for number in range(passed + 1, REPEATS + 1)
    ]
    if invalid:
        left[0] = msgspec.structs.replace(
            left[0], why="again, for it was INVALID", twice=invalid > 1
        )
    return left
