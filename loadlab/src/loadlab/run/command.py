"""`loadlab load` and `loadlab doctor`: words in, a verdict and an exit code out; and what this
machine can carry, and what is missing, before anything is started."""

import argparse
import os
import resource
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadlab import words
from loadlab.generator.plan import scenarios
from loadlab.parser import add_command
from loadlab.record import cgroup, counters, machine
from loadlab.record.schema import Backend
from loadlab.record.store import read_run
from loadlab.report.command import conclude, say_json
from loadlab.report.terminal import say
from loadlab.run import given, session
from loadlab.run import order as orders
from loadlab.run.lock import Busy, alone
from loadlab.run.order import Order, too_small
from loadlab.run.session import Place
from loadlab.target import tiers
from loadlab.target.containers import no_container
from loadlab.target.process import try_groups
from loadlab.target.programs import case
from loadlab.target.serving import BackendFailed
from loadlab.target.start import choose
from loadlab.target.tiers import Tier
from loadlab.verdict.judge import Judged, combine
from loadlab.words import LoadWords, UsageError

COMMANDS = ("load", "doctor")
USAGE, INFRASTRUCTURE, INTERRUPTED = 3, 4, 130
_USERS = 10_000
"""For which the doctor looks."""
_SPARE_FILES = 512
_RAISE_BACKLOG = "raise it to 4096: a ramp of 500 users a second needs it"
_WATCH_S = 1.0


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    load = add_command(commands, "load", "how many users in which limits: a judged run")
    words.add_to(load, LoadWords)
    says = "what this machine can carry, and what is missing"
    looks = add_command(commands, "doctor", says)
    looks.add_argument("--json", action="store_true", help="print it as JSON to standard output")


def main(asked: argparse.Namespace, root: Path, console: Console) -> int:
    """Carry out one of them; returns the exit code: 0 PASS, 1 FAIL, 2 INVALID, 3 wrong usage, 4 no
    run could be made, 130 interrupted."""
    try:
        known = tiers.read(root / tiers.FILE, os.environ)
        if asked.command == "doctor":
            return doctor(known, root, Console(), as_json=asked.json)
        return _load(orders.parse(asked.words, known, scenarios()), root, console)
    except UsageError as error:
        say(console, f"loadlab: {error}")
        return USAGE
    except (Busy, BackendFailed, OSError) as error:
        say(console, f"loadlab: {error}")
        return INFRASTRUCTURE


def _load(order: Order, root: Path, console: Console) -> int:
    with alone():
        backend, why = choose(order, root)
        if backend == "cgroup":
            case(Place.of(root).bundles, order.model)  # that there is one, before the null server
        elif backend == "given":
            given.ask(order, Place.of(root).bundles)
        what = f"tier {order.tier.name}, scenario {order.scenario.name}, {order.users:,} users"
        say(console, f"{what}; backend {backend} ({why})")
        for reason in machine.watch(_WATCH_S).reasons:
            advice = "Stop what is not needed, or expect INVALID"
            say(console, f"the machine is not quiet: {reason}. {advice}")
        if order.remote:
            there = f"`just load-worker master={order.listen}`"
            plural = "s" if order.remote > 1 else ""
            say(
                console,
                f"waiting for {order.remote} worker{plural} of other machines: {there} there",
            )
        judged, interrupted = _repeats(order, root, backend, console)
    if interrupted:
        return INTERRUPTED
    if order.repeats == 1:
        return judged[0].verdict.exit_code
    together = combine(judged)
    say(console, f"{together.outcome}: {together.sentence}")
    if together.claim:
        say(Console(), together.claim)
    return together.exit_code


def _repeats(
    order: Order, root: Path, backend: Backend, console: Console
) -> tuple[list[Judged], bool]:
    """All runs, and whether the user ended the last one."""
    place = Place.of(root)
    set_id = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}" if order.repeats > 1 else ""
    judged: list[Judged] = []
    for repeat in range(1, order.repeats + 1):
        folder, ended = session.carry_out(
            order, place, backend, console, set_id=set_id, repeat=repeat
        )
        if ended.kind == "disk_full":
            raise OSError(f"{ended.sentence}; what was seen before is in {folder}")
        judged.append(Judged(read_run(folder), conclude(folder, Console())))
        if ended.kind == "interrupted":
            return judged, True
    return judged, False


class Finding(NamedTuple):
    """One thing that was looked at; `hint` says what to do, and is empty where all is well."""

    what: str
    found: str
    hint: str = ""


def doctor(
    known: Mapping[str, Tier], root: Path, console: Console, *, as_json: bool = False
) -> int:
    """Print what was found; returns 0 if some backend works and 10,000 users can be had, else 4."""
    findings = examine(known.values(), root)
    well = {finding.what for finding in findings if not finding.hint}
    possible = {"open files", "ports"} <= well and well & {"backend cgroup", "backend compose"}
    if as_json:
        say_json({"possible": bool(possible), "findings": [each._asdict() for each in findings]})
        return 0 if possible else 4
    table = Table(box=None)
    for heading in ("", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.what, finding.found, finding.hint or "–")
    console.print(table)
    return 0 if possible else 4


def examine(known: Collection[Tier], root: Path) -> list[Finding]:
    """Look at everything that a run needs."""
    quiet = machine.watch()
    busy = f"others use {quiet.busy_cores:.2f} cores, steal {quiet.steal:.1%}"
    return [
        *_backends(known, root),
        *_limits(root),
        Finding("quiet", busy, "; ".join(quiet.reasons)),
    ]


def _backends(known: Collection[Tier], root: Path) -> list[Finding]:
    fitting = [tier.name for tier in known if not too_small(tier)]
    left_out = ", ".join(tier.name for tier in known if too_small(tier))
    cores = Finding(
        "cores",
        f"{len(os.sched_getaffinity(0))}: enough for {', '.join(fitting) or 'no tier'}",
        f"more cores for {left_out}: here they are INVALID" if left_out else "",
    )
    try:
        groups = Finding("backend cgroup", f"control groups version {try_groups()}")
    except cgroup.Unavailable as error:
        groups = Finding("backend cgroup", "no", str(error))
    tier = next(iter(known), None)
    reason = no_container(root, tier.image) if tier else "the compose file has no tiers"
    containers = Finding(
        "backend compose",
        "no" if reason or not tier else f"image {tier.image}",
        reason and f"{reason}; `just image` builds it",
    )
    return [cores, groups, containers]


def _limits(root: Path) -> list[Finding]:
    manifests = (root / ".halfcore/bundles").glob("*/*/manifest.json")
    models = ", ".join(sorted({file.parent.parent.name for file in manifests}))
    hard, wanted = resource.getrlimit(resource.RLIMIT_NOFILE)[1], _USERS + _SPARE_FILES
    ports, backlog = counters.ports(), int(Path("/proc/sys/net/core/somaxconn").read_text())
    few_files = hard != resource.RLIM_INFINITY and hard < wanted
    too_few = f"raise ulimit -Hn to {wanted:,} for {_USERS:,} users" if few_files else ""
    no_models = "" if models else "`just examples light` makes them (backend cgroup needs one)"
    few_ports = "" if ports * 0.7 >= _USERS else "widen net.ipv4.ip_local_port_range"
    short = "" if backlog >= 1024 else _RAISE_BACKLOG
    return [
        Finding("models", models or "none", no_models),
        Finding("open files", f"at most {hard:,}", too_few),
        Finding("ports", f"{ports:,} to one address", few_ports),
        Finding("accept queue", f"net.core.somaxconn {backlog:,}", short),
    ]
