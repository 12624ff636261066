"""`loadlab history`, `loadlab report RUN` and `loadlab keep RUN`; and the end of every run: judge,
store the verdict, report."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from loadlab.parser import add_command
from loadlab.record.schema import Run
from loadlab.record.store import (
    RUN_FILE,
    SAMPLES_FILE,
    SECONDS_FILE,
    VERDICT_FILE,
    Log,
    StoreError,
    compress,
    read,
    read_run,
    write,
)
from loadlab.report.page import write_reports
from loadlab.report.terminal import history_table, say, summary
from loadlab.verdict.judge import Judged, Verdict, combine, judge

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


class NoSuchRun(LookupError):
    """No run matches; the message quotes the given name and says how to name a run."""


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    name = "an id of the history, its beginning, or a folder (default: %(default)s)"
    store = f"where runs are kept (default: {STORE} of the checkout)"
    for command, does in COMMANDS.items():
        parser = add_command(commands, command, does)
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
        run = find(folder, asked.run)
        _report(run, *_judged(run, console), console)
    elif asked.command == "keep":
        for copied in keep(asked.run, folder, root / KEPT):
            say(console, f"kept: {copied.relative_to(root)}")
    else:
        _show_history(folder, console)


def _show_history(folder: Path, console: Console) -> None:
    """The table of all runs, and how many cannot be read."""
    runs = history(folder)
    if runs:
        console.print(history_table(runs))
    if unread := len(list(folder.glob(f"*/{RUN_FILE}"))) - len(runs):
        which = "`loadlab report ID` says why, for each of their folders"
        say(console, f"not shown because they cannot be read: {unread} more in {folder}; {which}")
    elif not runs:
        say(console, f"no runs in {folder}: `just load tier=half-core` makes one")


def say_json(found: object) -> None:
    """Print as JSON to standard output."""
    # A command line writes to its terminal
    print(msgspec.json.encode(found).decode())  # noqa: T201


def _history(folder: Path) -> list[dict[str, Any]]:
    return [_facts(*judged) for judged in history(folder)]


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
    run, console = find(folder, name), Console(stderr=True)
    log, verdict = _judged(run, console)
    claim, _ = _report(run, log, verdict, console)
    return _facts(log.run, verdict) | {
        "objective": [
            {
                "what": each.what,
                "measured": each.value,
                "limit": each.bound,
                "holds": each.holds,
                "state": each.state,
            }
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
    run = find(runs, name)
    log = read(run)
    if log.run.ended is None:
        raise StoreError(f"{run}: the run has not ended")
    mates = [run]
    if log.run.set_id:
        mates = [run.parent / each.run.id for each in history(run.parent, log.run.set_id)]
    for mate in mates:
        compress(mate)  # where a full disk kept its end from doing so
        if lost := [name for name in _KEPT_FILES[2:] if not (mate / name).exists()]:
            raise StoreError(f"{mate}: {', '.join(lost)} is missing, so it cannot be kept")
        if not (mate / VERDICT_FILE).exists():
            write(judge(read(mate)), mate / VERDICT_FILE)
    for mate in mates:
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
    claim, mates = claim_for(run.parent, log.run)
    say(console, f"report: {write_reports(log, verdict, run, claim=claim)}")
    return claim, [mate for mate in mates if mate.name != run.name]


def history(folder: Path, set_id: str = "") -> list[Judged]:
    """All runs of a folder that can be read, oldest first; or the repeats of one set."""
    found = []
    for file in folder.glob(f"*/{RUN_FILE}"):
        try:
            run = read_run(file.parent)
            if not set_id or run.set_id == set_id:
                found.append(Judged(run, _stored_verdict(file.parent)))
        except StoreError:  # of another version of the lab
            continue
    return sorted(found, key=lambda each: (each.run.started_at, each.run.id))


def find(folder: Path, name: str) -> Path:
    """The folder of a run: by path, by id, by the beginning of one id, or `latest`; raises
    `NoSuchRun`."""
    if (Path(name) / RUN_FILE).is_file():
        return Path(name)
    known = sorted(file.parent.name for file in folder.glob(f"*/{RUN_FILE}"))
    if name == "latest":
        matching = known[-1:]
    else:
        begin_so = [each for each in known if each.startswith(name)]
        matching = [name] if name in known else begin_so
    if len(matching) != 1:
        what = f"{len(matching)} runs begin with {name!r}"
        what = what if matching else f"no run {name!r} in {folder}"
        raise NoSuchRun(f"{what}: give an id of `loadlab history`, a folder, or latest")
    return folder / matching[0]


def claim_for(folder: Path, run: Run) -> tuple[str, list[Path]]:
    """What the repeats that a run belongs to allow to be claimed, and the folders of all of them.

    Both are empty if they are not all there, or do not hold.
    """
    repeats = history(folder, run.set_id) if run.set_id else []
    claim = combine(repeats).claim if repeats else ""
    return claim, [folder / each.run.id for each in repeats] if claim else []


def _stored_verdict(run: Path) -> Verdict:
    """As it was stored, or, of a run that was killed before, as its record says."""
    try:
        return msgspec.json.decode((run / VERDICT_FILE).read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        return judge(read(run))
