"""`loadlab history`, `loadlab report RUN` and `loadlab keep RUN`; and the end of every run: judge,
store the verdict, report."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from loadlab.record.read import Log, read
from loadlab.record.schema import Run
from loadlab.record.store import (
    RUN_FILE,
    SAMPLES_FILE,
    SECONDS_FILE,
    VERDICT_FILE,
    StoreError,
    compress,
    write,
)
from loadlab.report import library
from loadlab.report.page import write_reports
from loadlab.report.terminal import history_table, say, summary
from loadlab.verdict.judge import Verdict, judge

STORE = Path(".halfcore/loads")
"""Where runs are kept, from the checkout's root."""
KEPT = Path("docs/runs")
"""Where the runs are kept that the documentation shows."""
COMMANDS = {
    "history": "every stored load run",
    "report": "write a run's reports again",
    "keep": f"copy a run, with all repeats of its set, to {KEPT}",
}
"""With their help."""
_KEPT_FILES = (RUN_FILE, VERDICT_FILE, f"{SECONDS_FILE}.gz", f"{SAMPLES_FILE}.gz")


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    name = "an id of the history, its beginning, or a folder (default: %(default)s)"
    store = f"where runs are kept (default: {STORE} of the checkout)"
    for command, does in COMMANDS.items():
        parser = commands.add_parser(command, help=does)
        if command != "history":
            parser.add_argument("run", nargs="?", default="latest", help=name)
        parser.add_argument("--store", type=Path, help=store)
        if command != "keep":
            says = "print it as JSON to standard output"
            parser.add_argument("--json", action="store_true", help=says)


def main(asked: argparse.Namespace, root: Path, console: Console) -> None:
    """Carry out one of them; raises `NoSuchRun`, `StoreError`, `OSError`."""
    folder = asked.store or root / STORE
    if asked.command != "keep" and asked.json:
        say_json(_history(folder) if asked.command == "history" else _one(folder, asked.run))
        return
    if not console.is_terminal:
        console = Console(file=console.file, width=160)  # a file has room
    if asked.command == "report":
        run = library.find(folder, asked.run)
        _report(run, *_judged(run, console), console)
    elif asked.command == "keep":
        for copied in keep(asked.run, folder, root / KEPT):
            say(console, f"kept: {copied.relative_to(root)}")
    elif runs := library.history(folder):
        console.print(history_table(runs))
    else:
        say(console, f"no runs in {folder}: `just load tier=half-core` makes one")


def say_json(found: object) -> None:
    """Print as JSON to standard output."""
    # A command line writes to its terminal
    print(msgspec.json.encode(found).decode())  # noqa: T201


def _history(folder: Path) -> list[dict[str, Any]]:
    return [_facts(*judged) for judged in library.history(folder)]


def _facts(run: Run, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": run.id,
        "started_at": run.started_at,
        "tier": run.tier.name,
        "scenario": run.scenario.name,
        "users": run.scenario.users,
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "figures": verdict.figures,
    }


def _one(folder: Path, name: str) -> dict[str, Any]:
    """A run whose reports were written again; what people read of it goes to standard error."""
    run, console = library.find(folder, name), Console(stderr=True)
    log, verdict = _judged(run, console)
    claim, _ = _report(run, log, verdict, console)
    return _facts(log.run, verdict) | {
        "objective": [
            {"what": each.what, "measured": each.value, "limit": each.bound, "holds": each.holds}
            for each in verdict.objective
        ],
        "broken_rules": [each.sentence for each in verdict.findings if not each.holds],
        "missing": verdict.missing,
        "claim": claim,
        "report": str(run / "report.html"),
    }


def conclude(run: Path, console: Console) -> Verdict:
    """Judge a run that has ended, store verdict and reports, and show the table.

    With the last of several repeats, the claim they allow is written into the reports of them all.
    A disk that is full costs the reports, not the verdict.

    Raises:
        StoreError: the folder holds no run.
    """
    log, verdict = _judged(run, console)
    try:
        write(verdict, run / VERDICT_FILE)
        if log.run.ended:
            compress(run)
        claim, others = _report(run, log, verdict, console)
        for other in others:
            its = read(other)
            write_reports(its, judge(its), other, claim=claim)
    except OSError as error:
        say(console, f"the reports could not be written: {error}")
    return verdict


def keep(name: str, runs: Path, kept: Path) -> list[Path]:
    """Copy a run of the folder `runs`, or with it all repeats of its set, into `kept`, without
    their reports; returns the folders.

    Raises:
        NoSuchRun, StoreError: no run of that name, or one that has not ended.
    """
    run = library.find(runs, name)
    log = read(run)
    if log.run.ended is None:
        raise StoreError(f"{run}: the run has not ended")
    mates = [run]
    if log.run.set_id:
        mates = [run.parent / each.run.id for each in library.history(run.parent, log.run.set_id)]
    for mate in mates:
        compress(mate)  # where a full disk kept its end from doing so
        if not (mate / VERDICT_FILE).exists():
            write(judge(read(mate)), mate / VERDICT_FILE)
        (kept / mate.name).mkdir(parents=True, exist_ok=True)
        for file in _KEPT_FILES:
            shutil.copyfile(mate / file, kept / mate.name / file)
    return [kept / mate.name for mate in mates]


def _judged(run: Path, console: Console) -> tuple[Log, Verdict]:
    log = read(run)
    verdict = judge(log)
    console.print(summary(log.run, verdict))
    return log, verdict


def _report(run: Path, log: Log, verdict: Verdict, console: Console) -> tuple[str, list[Path]]:
    """Returns the claim that the run and its repeats allow, and the others of them."""
    claim, mates = library.claim_for(run.parent, log.run)
    say(console, f"report: {write_reports(log, verdict, run, claim=claim)}")
    return claim, [mate for mate in mates if mate.name != run.name]
