"""`loadlab search users=10000 …`: the words of `loadlab load`, and `against=`, `budget=`, `fresh=`
and `rerun=`; and what a search allows to be said."""

import argparse
import itertools
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from msgspec.structs import asdict, replace
from rich.console import Console, RenderableType

from loadlab import words
from loadlab.experiments import runner, trial
from loadlab.experiments.search import (
    REPEATS,
    Found,
    Goal,
    Judgement,
    Probe,
    Search,
    Service,
    Step,
    cpu_axis,
    decide,
    forecast,
    rerun_left,
)
from loadlab.experiments.trial import LabFailed, Loaded
from loadlab.generator.plan import Scenario, scenarios
from loadlab.parser import add_command
from loadlab.record.schema import criteria
from loadlab.report.terminal import say
from loadlab.run.order import Order, too_small, understand
from loadlab.run.phases import caching_s
from loadlab.run.session import Place
from loadlab.target import tiers
from loadlab.target.tiers import Tier
from loadlab.verdict.steadiness import WINDOWS
from loadlab.words import EngineWord, LoadWords, UsageError, YesNo

_SHORT_S, _SHORTER = 20.0, 4
_AROUND_S = 75.0
"""What a run takes besides ramp, steady and repeated phases, as long as none was measured: null
server, start, warm-up, settling, drain, …"""
PASSED, NOTHING_PASSES, UNDECIDED = 0, 1, 2


class Words(LoadWords, frozen=True, kw_only=True):
    """Those of `just search`."""

    tier: Annotated[str, Meta(description="a tier of one replica: the largest limits")] = "one-core"
    engine: EngineWord = "raw"
    against: Annotated[Service, Meta(description="service whose minimum is searched")] = "halfcore"
    budget: Annotated[
        int,
        Meta(ge=1, le=1440, description="time for the whole search", extra={"counts": "minutes"}),
    ] = 90
    fresh: Annotated[YesNo, Meta(description="discard what was kept of the same search")] = "no"
    rerun: Annotated[YesNo, Meta(description="run the newest search's minimum again")] = "no"


class Asked(NamedTuple):
    """The words, understood."""

    order: Order
    goal: Goal
    words: Words


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "the least CPU and memory with which so many users pass"
    words.add_to(add_command(commands, "search", says), Words, trial.REFUSED)


def carry_out(
    typed: argparse.Namespace,
    place: Place,
    console: Console,
    table: Callable[[Search], RenderableType],
) -> int:
    """Search, or run what was found again; returns the exit code.

    0 a minimum was found (or passed again), 1 not even the greatest limits pass (or the minimum
    failed), 2 nothing is proven (INVALID, or the budget is spent). `table` shows the probes.
    """
    known = tiers.read(place.root / tiers.FILE, os.environ)
    asked = parse(typed.words, known, scenarios())
    fresh = trial.begin(Search, [asked.order], place, typed, goal=asked.goal)
    if asked.words.rerun == "yes":
        return _rerun(asked, fresh, place, console)
    return _search(asked, fresh, place, console, table)


def parse(
    given: Sequence[str], known: Mapping[str, Tier], workloads: Mapping[str, Scenario]
) -> Asked:
    """Order and goal; raises `UsageError`."""
    names = {"tier": known, "scenario": workloads}
    asked = words.parse(Words, given, trial.REFUSED, names)
    if asked.fresh == asked.rerun == "yes":
        raise UsageError(
            "fresh=yes forgets a search, rerun=yes runs a stored one's minimum again: expected "
            "one of them"
        )
    order = understand(replace(asked, backend="cgroup"), known, workloads)
    return Asked(replace(order, service=asked.against), _goal(order), asked)


def _goal(order: Order) -> Goal:
    tier, rules = order.tier, criteria(order.scenario.name).rules
    least_s = rules.v13_window_s * WINDOWS
    enough_s = rules.v12_samples * order.scenario.mean_think_s / order.users
    if tier.replicas > 1:
        raise UsageError(
            f"tier={tier.name} has {tier.replicas} replicas: a search is of one, which the tier "
            "gives its greatest limits"
        )
    if sentence := too_small(tier):
        raise UsageError(f"{sentence}: name a smaller one with tier=")
    if order.steady_s < least_s:
        raise UsageError(
            f"duration={order.steady_s:g}s is too short: expected at least {least_s} s, because "
            f"rule V13 looks at {WINDOWS} windows"
        )
    if order.steady_s < enough_s:
        raise UsageError(
            f"users={order.users} with duration={order.steady_s:g}s make fewer than the "
            f"{rules.v12_samples} answers that rule V12 wants; {enough_s:.0f} s would do"
        )
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
        say(console, f"{done}; fresh=yes forgets them")
    plan = Plan(asked.words.budget * 60, asked.order.users / asked.order.rate, console)
    probe = _prober(asked, place, console, len(search.rows) + 1)
    search = runner.run(search, plan.left, probe, file=file, show=plan.show)
    shown = (table(search), *sentences(search))
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


@dataclass
class Plan:
    """What is left to try within the time that this invocation may take."""

    budget_s: float
    """No probe is begun that is not expected to end within it."""
    ramp_s: float
    """How long the users' ramp takes."""
    console: Console
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.ends = self.clock() + self.budget_s

    def left(self, search: Search) -> list[Step]:
        """The expected probes, the next one first; none if that would not fit."""
        steps = forecast(search)
        fits = steps and self.expected_s(search, steps[0]) <= self.ends - self.clock()
        return steps if fits else []

    def expected_s(self, search: Search, step: Step) -> float:
        """How long a probe should take: as long as those like it that passed, or what its phases
        add up to. One that fails ends sooner."""
        kind = (step.full, step.twice, "PASS")
        like = [row.seconds for row in search.rows if (row.full, row.twice, row.outcome) == kind]
        steady_s = search.goal.steady_s(step)
        phases_s = _AROUND_S + self.ramp_s + steady_s + caching_s(steady_s)
        return statistics.median(like) if like else phases_s

    def show(self, search: Search, steps: Sequence[Step]) -> None:
        """The next probe and the time; before the first one also all that are expected."""
        if not search.rows:
            say(self.console, "The plan, if the edges lie where they are expected:")
            for step in steps:
                say(self.console, f"  {step.text}, {search.goal.steady_s(step):g} s steady")
        minutes = math.fsum(self.expected_s(search, step) for step in steps) / 60
        left = (self.ends - self.clock()) / 60
        following = f"{steps[0].text}, {search.goal.steady_s(steps[0]):g} s steady"
        to_go = f"then about {len(steps) - 1} more · about {minutes:.0f} min to go"
        said = f"probe {len(search.rows) + 1}: {following} · {to_go}"
        say(self.console, f"{said} · {left:.0f} min left of the budget")


def _prober(asked: Asked, place: Place, console: Console, number: int) -> Callable[[Step], Probe]:
    """Carries out probes, each on a fresh server, and prints what each says; `number` is the first
    one's, and moves the seed, so that repeats do not repeat chance too."""
    numbers = itertools.count(number)

    def run(step: Step) -> Probe:
        began = time.monotonic()
        order = order_of(step, next(numbers), asked)
        done = probe(step, trial.load_run(order, place, "cgroup", console, quiet=True))
        say(console, f"{done.outcome}: {step.text}. {done.sentence}")
        return replace(done, seconds=round(time.monotonic() - began, 1))

    return run


def order_of(step: Step, number: int, asked: Asked) -> Order:
    """The load run that a step asks for."""
    name = f"search-{step.cpus:g}-{step.mib}m"
    tier = replace(asked.order.tier, name=name, cpus=step.cpus, memory_bytes=step.mib << 20)
    steady_s, seed = asked.goal.steady_s(step), asked.order.seed + number
    return replace(asked.order, tier=tier, steady_s=steady_s, seed=seed)


def probe(step: Step, run: Loaded) -> Probe:
    """What a run says to the search; raises `LabFailed`."""
    verdict, outcome = run.verdict, judgement(run)
    could_start = run.ended.kind != "infrastructure"
    # A figure that misses the objective was kept from a FAIL, any other from a PASS.
    needs = "allows_pass" if all(line.holds for line in verdict.objective) else "allows_fail"
    broken = [found.rule for found in verdict.findings if not getattr(found, needs)]
    return Probe(
        **asdict(step),
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
    rerun, kept = runner.kept(replace(fresh, kind="rerun", of=file.name), place.root)
    made = [search, *reruns(file), rerun]
    rerun = runner.run(
        rerun,
        lambda so_far: rerun_left(search, so_far),
        _prober(asked, place, console, sum(len(each.rows) for each in made) + 1),
        file=kept,
        show=runner.progress(console, lambda step: step.text),
    )
    runner.finish(rerun, kept, place.root, again(rerun))
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


def reruns(file: Path) -> list[Search]:
    """All reruns of a stored search, the oldest first; raises `StoreError`."""
    files = sorted(file.parent.glob(f"*-rerun-{file.stem.partition('-search-')[2]}.json"))
    return [rerun for each in files if (rerun := runner.load(each, Search)).of == file.name]


def sentences(search: Search) -> list[str]:
    """The minimum, what fails below it and why, and what proves nothing."""
    decided = decide(search)
    found = decided if isinstance(decided, Found) else None
    low, high = cpu_axis(search).gap()
    return runner.said(
        "search",
        search=search,
        found=found,
        next=None if found else decided,
        low=low,
        high=high,
        repeats=REPEATS,
        ends=_ends(search, found) if found else [],
        undecided=_undecided(search, found) if found else {},
        invalid=[n for n, row in enumerate(search.rows, 1) if row.outcome == "INVALID"],
        why=_why,
    )


def _ends(search: Search, found: Found) -> list[dict[str, Any]]:
    """Limits that fail, just below the minimum: in words, with the last failure, and how often they
    passed all the same."""
    most, passes, fails = search.goal.most_mib, found.cpu.passes, found.cpu.fails
    limits, ends = {}, []
    if fails is not None:
        limits[fails, most] = f"{fails / 100:g} CPU with {most:,} MiB"
    if passes is not None and found.memory and (mib := found.memory.fails) is not None:
        limits[passes, mib] = f"{mib:,} MiB with {passes / 100:g} CPU"
    for pair, name in limits.items():
        mine = [row for row in search.rows if (row.centicores, row.mib) == pair]
        last = [row for row in mine if row.outcome == "FAIL"][-1]
        passed = sum(row.outcome == "PASS" for row in mine)
        ends.append({"name": name, "last": last, "passed": passed, "runs": len(mine)})
    return ends


def _undecided(search: Search, found: Found) -> dict[str, list[str]]:
    """By unit, the values of which nothing is known, with the rules that made them INVALID."""
    memory = found.memory.undecided if found.memory else ()
    return {
        "CPU": [_doubted(search, "cpus", each / 100) for each in found.cpu.undecided],
        "MiB": [_doubted(search, "mib", each) for each in memory],
    }


def _doubted(search: Search, field: str, value: float) -> str:
    runs = [row for row in search.rows if getattr(row, field) == value]
    broken = {rule for row in runs if row.outcome == "INVALID" for rule in row.rules}
    rules = ", ".join(sorted(broken, key=lambda rule: int(rule[1:])))
    return f"{value:g} ({rules})" if rules else f"{value:g}"


def _why(probe: Probe) -> str:
    sentence = " ".join(probe.sentence.splitlines())
    return sentence if probe.could_start else f"cannot start: {sentence.rstrip('.')}."


def again(rerun: Search) -> str:
    """What a minimum did when it was run again."""
    (sentence,) = runner.said("rerun", rerun=rerun, why=_why)
    return sentence


def earlier(search: Search, link: str) -> str:
    """What a search found that was made before the one that is shown: a minimum depends on the
    machine's hour."""
    when = f"[{search.started_at}]({link}), commit {search.fingerprint.checkout}"
    return f"An earlier search ({when}): {sentences(search)[0]}"


def counted(reruns: Sequence[Search]) -> str:
    """How often a minimum held when it was run again."""
    counts = sorted(Counter(each.rows[-1].outcome for each in reruns).items(), reverse=True)
    listed = ", ".join(f"{times} {outcome}" for outcome, times in counts)
    return f"run again: {listed} of {len(reruns)}"
