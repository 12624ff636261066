"""`loadlab search users=10000 …`: the words of `loadlab load`, and `against=`, `budget=`, `fresh=`
and `rerun=`."""

import argparse
import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
from rich.console import Console
from rich.table import Table

from loadlab.experiments.bench import cases
from loadlab.experiments.bench.subjects import prepare_baseline
from loadlab.experiments.compare.carry import store_of
from loadlab.experiments.search import form, probe, rerun
from loadlab.experiments.search.carry import Budget, Outlook, carry_out
from loadlab.experiments.search.form import Goal, Search, Service
from loadlab.experiments.search.plan import Found, Step
from loadlab.experiments.search.probe import Interrupted, LabFailed
from loadlab.experiments.search.said import again, sentences
from loadlab.generator import scenarios
from loadlab.generator.scenarios import Scenario, ScenarioError
from loadlab.pages.experiments import search_table
from loadlab.record.store import StoreError
from loadlab.report.command import STORE
from loadlab.run import arguments, describe, session
from loadlab.run.arguments import Order, UsageError
from loadlab.run.command import INFRASTRUCTURE, INTERRUPTED, USAGE
from loadlab.run.session import Busy, Place
from loadlab.target import cgroup, tiers
from loadlab.target.processes import manifest
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier, TierError
from loadlab.verdict.criteria import criteria
from loadlab.verdict.steadiness import WINDOWS

_OWN = {"against": "halfcore", "budget": "90", "fresh": "no", "rerun": "no"}
_NOT_HERE = ("target", "allow-host", "repeats", "web", "backend")
_KEYS = (*(key for key in arguments.KEYS if key not in _NOT_HERE), *_OWN)
_DEFAULTS = {"tier": "one-core", "engine": "raw"}
_KEPT = Path(".halfcore/search")
_CODE = ("server", "loadlab", "compose", "uv.lock")
"""Paths whose uncommitted changes may change a probe's result; the commit does not show them."""
_SHORT_S, _SHORTER = 20.0, 4
_FILE_COLUMNS = 200
PASSED, NOTHING_PASSES, UNDECIDED = 0, 1, 2


class Asked(NamedTuple):
    """The words, understood."""

    order: Order
    goal: Goal
    budget_s: float
    fresh: bool
    rerun: bool


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    search = commands.add_parser(
        "search", help="the least CPU and memory with which so many users pass"
    )
    search.add_argument("words", nargs="*", metavar="KEY=VALUE", help=f"of {', '.join(_KEYS)}")


def main(asked: argparse.Namespace, root: Path, console: Console) -> int:
    """Search, or run what was found again; returns the exit code.

    0 a minimum was found (or passed again), 1 not even the greatest limits pass (or the minimum
    failed), 2 nothing is proven (INVALID, or the budget is spent), 3 wrong usage, 4 no run could be
    made, 130 interrupted.
    """
    try:
        found = parse(asked.words, tiers.read(root / tiers.FILE, os.environ), scenarios.read())
        cgroup.version()
        place = Place(root, root / ".halfcore/bundles", root / STORE)
        with session.alone(root):
            return (_rerun if found.rerun else _search)(
                found, place, " ".join(["just search", *asked.words]), console
            )
    except (UsageError, TierError, ScenarioError) as error:
        _say(console, f"loadlab: {error}")
        return USAGE
    except (
        Busy,
        BackendFailed,
        LabFailed,
        StoreError,
        cases.CaseError,
        cgroup.Unavailable,
    ) as error:
        _say(console, f"loadlab: {error}")
        return INFRASTRUCTURE
    except Interrupted:
        return INTERRUPTED


def parse(
    words: Sequence[str], known: Mapping[str, Tier], workloads: Mapping[str, Scenario]
) -> Asked:
    """Order, goal, budget; raises `UsageError`, `TierError`, `ScenarioError`."""
    keys = [word.partition("=")[0] for word in words]
    if twice := [key for key in keys if key in _OWN and keys.count(key) > 1]:
        raise UsageError(f"{twice[0]}= is given twice")
    if refused := [word for word, key in zip(words, keys, strict=True) if key in _NOT_HERE]:
        raise UsageError(
            f"{refused[0]}: a search starts its own servers, each in its own control group"
        )
    own = _OWN | {
        key: word.partition("=")[2] for word, key in zip(words, keys, strict=True) if key in _OWN
    }
    rest = [word for word, key in zip(words, keys, strict=True) if key not in _OWN]
    rest += [f"{key}={value}" for key, value in _DEFAULTS.items() if key not in keys]
    if own["against"] not in get_args(Service):
        raise UsageError(
            f"against={own['against']} is unknown; there are {', '.join(get_args(Service))}"
        )
    for key in ("fresh", "rerun"):
        if own[key] not in {"yes", "no"}:
            raise UsageError(f"{key}={own[key]} is unknown; there are yes, no")
    if own["fresh"] == own["rerun"] == "yes":
        raise UsageError(
            "fresh=yes forgets a search, rerun=yes runs a stored one's minimum again: expected "
            "one of them"
        )
    if not own["budget"].isdecimal() or not 1 <= int(own["budget"]) <= 1440:
        raise UsageError(
            f"budget={own['budget']} is invalid: expected whole minutes from 1 to 1,440"
        )
    order = arguments.parse([*rest, "backend=cgroup"], known, workloads, offered=_KEYS)
    order = msgspec.structs.replace(order, service=own["against"])
    return Asked(
        order, _goal(order), int(own["budget"]) * 60.0, own["fresh"] == "yes", own["rerun"] == "yes"
    )


def _goal(order: Order) -> Goal:
    tier, rules = order.tier, criteria(order.scenario.name).rules
    if tier.replicas > 1:
        raise UsageError(
            f"tier={tier.name} has {tier.replicas} replicas: a search is of one, which the tier "
            "gives its greatest limits"
        )
    if sentence := describe.too_small(tier):
        raise UsageError(f"{sentence}: name a smaller one with tier=")
    if order.steady_s < (least_s := rules.v13_window_s * WINDOWS):
        raise UsageError(
            f"duration={order.steady_s:g}s is too short: expected at least {least_s} s, "
            f"because rule V13 looks at {WINDOWS} windows"
        )
    enough_s = rules.v12_samples * order.scenario.mean_think_s / order.users
    if order.steady_s < enough_s:
        raise UsageError(
            f"users={order.users} with duration={order.steady_s:g}s make fewer than "
            f"the {rules.v12_samples} answers that rule "
            f"V12 wants; {enough_s:.0f} s would do"
        )
    # A surge has its time in the run: such a run cannot be shortened.
    short_s = (
        order.steady_s
        if order.scenario.surge
        else min(order.steady_s, max(_SHORT_S, order.steady_s / _SHORTER, 1.5 * enough_s))
    )
    return Goal(
        most_centicores=round(tier.cpus * 100),
        most_mib=tier.memory_bytes >> 20,
        full_s=order.steady_s,
        short_s=short_s,
    )


def _search(asked: Asked, place: Place, command: str, console: Console) -> int:
    order, goal = asked.order, asked.goal
    begun, file = begin(asked, place, command)
    if asked.fresh:
        file.unlink(missing_ok=True)
    if file.exists():
        begun = form.load(file)
        _say(
            console,
            f"continuing after {len(begun.probes)} probes, kept in {file}; fresh=yes forgets them",
        )

    search, found = carry_out(
        begun,
        _prober(asked, place, console),
        keep=lambda so_far: form.save(so_far, file),
        budget=Budget(asked.budget_s),
        ramp_s=order.users / order.rate,
        show=lambda outlook: show(outlook, goal, console),
    )
    out = Console()
    (out if out.is_terminal else Console(width=_FILE_COLUMNS)).print(search_table(search))
    for sentence in sentences(search):
        _say(out, sentence)
    if found is None:
        _say(
            out,
            (
                f"The budget of {asked.budget_s / 60:g} minutes is spent; the same words continue "
                "from here."
            ),
        )
        return UNDECIDED
    stored = form.save(search, store_of(place.root) / form.name(search))
    _say(out, f"stored in {stored}; `loadlab render` shows it in docs/benchmarks.md")
    return exit_code(found)


def _rerun(asked: Asked, place: Place, command: str, console: Console) -> int:
    folder = store_of(place.root)
    claim = rerun.newest(folder, asked.order, asked.goal)
    begun, _ = begin(asked, place, command)
    probes = rerun.carry_out(claim, _prober(asked, place, console))
    done = form.Rerun(
        of=claim.file.name,
        started_at=begun.started_at,
        command=command,
        fingerprint=begun.fingerprint,
        probes=probes,
    )
    stored = form.save_rerun(done, folder)
    out = Console()
    _say(out, again(done))
    _say(out, f"stored in {stored}; `loadlab render` shows it in docs/benchmarks.md")
    return {"PASS": PASSED, "FAIL": NOTHING_PASSES, "INVALID": UNDECIDED}[done.outcome]


def _prober(asked: Asked, place: Place, console: Console) -> Callable[[Step, int], form.Probe]:
    """Carries out probes, and prints what each says."""

    def run(step: Step, number: int) -> form.Probe:
        done = probe.carry_out(step, number, asked.order, asked.goal, place, console)
        _say(console, f"{done.outcome}: {step.text}. {done.sentence}")
        return done

    return run


def exit_code(found: Found) -> int:
    """Of a search that ended."""
    if found.minimum:
        return PASSED
    return NOTHING_PASSES if found.cpu.fails is not None else UNDECIDED


def begin(asked: Asked, place: Place, command: str) -> tuple[Search, Path]:
    """A new search, and the file that it is kept in: another for every other wish, model, machine
    and code.

    Raises:
        CaseError: no bundle of the model.
        subprocess.CalledProcessError: the baseline's environment cannot be installed.
    """
    order = asked.order
    bundle = manifest(cases.case(place.bundles, order.model).bundle)
    packages = prepare_baseline(place.root) if order.service != "halfcore" else {}
    fingerprint = describe.run(
        "search", order, place.root, "cgroup", set_id="", repeat=1
    ).fingerprint
    fingerprint = msgspec.structs.replace(
        fingerprint, baseline_packages=packages or fingerprint.baseline_packages
    )
    started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    search = Search(
        started_at=started,
        command=command,
        service=order.service,  # type: ignore[arg-type]
        tier=order.tier.name,
        scenario=order.scenario.name,
        users=order.users,
        model=order.model,
        engine=order.engine,
        seed=order.seed,
        goal=asked.goal,
        fingerprint=fingerprint,
    )
    # A result that is stored in the checkout makes it dirty, and changes nothing: only the code's
    # own changes count.
    same = [
        order,
        asked.goal,
        msgspec.structs.replace(fingerprint, dirty=False),
        bundle["onnx"]["sha256"],
        _changes(place.root),
    ]
    digest = hashlib.sha256(msgspec.json.encode(same)).hexdigest()[:12]
    return (
        search,
        place.root / _KEPT / f"{order.service}-{order.scenario.name}-{order.users}-{digest}.json",
    )


def _changes(root: Path) -> str:
    """What differs from the commit."""
    words = ["git", "-C", str(root), "diff", "HEAD", "--", *_CODE]
    # Our own words
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout  # noqa: S603


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def show(outlook: Outlook, goal: Goal, console: Console) -> None:
    """The next probe and the time; before the first one also the plan."""
    if outlook.number == 1:
        plan = Table(
            "",
            "CPU",
            "MiB",
            "steady s",
            "why",
            box=None,
            title="The plan, if the edges lie where they are expected",
        )
        for number, step in enumerate(outlook.steps, 1):
            plan.add_row(
                str(number),
                f"{step.centicores / 100:g}",
                f"{step.mib:,}",
                f"{goal.steady_s(full=step.full):g}",
                step.why,
            )
        console.print(plan)
    step, more = outlook.steps[0], len(outlook.steps) - 1
    minutes = (
        f"about {outlook.expected_s / 60:.0f} min to go · {outlook.left_s / 60:.0f} min left of "
        "the budget"
    )
    said = (
        f"[bold]probe {outlook.number}[/]: {step.text}, {goal.steady_s(full=step.full):g} s "
        f"steady · then about {more} more · {minutes}"
    )
    console.print(said, highlight=False, soft_wrap=True)
