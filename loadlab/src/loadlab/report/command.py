"""`loadlab history`, `loadlab report RUN` and `loadlab keep RUN`; and the end of every run: judge,
store, report."""

import argparse
import shutil
from pathlib import Path

from rich.console import Console

from loadlab.record import library
from loadlab.record.read import RecordError, read
from loadlab.record.write import RUN_FILE, SAMPLES_FILE, SECONDS_FILE, compress
from loadlab.report.table import history_table, summary
from loadlab.report.write import write_reports
from loadlab.verdict.judge import VERDICT_FILE, Verdict, judge, store

STORE = Path(".halfcore/loads")
"""Where runs are kept, from the checkout's root."""
KEPT = Path("docs/runs")
"""Where the runs are kept that the documentation shows."""
_KEPT_FILES = (RUN_FILE, VERDICT_FILE, f"{SECONDS_FILE}.gz", f"{SAMPLES_FILE}.gz")
COMMANDS = ("history", "report", "keep")
_FILE_COLUMNS = 160


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    adding = [
        commands.add_parser("history", help="every stored load run"),
        commands.add_parser("report", help="write a run's reports again"),
        commands.add_parser("keep", help=f"copy a run, with all repeats of its set, to {KEPT}"),
    ]
    for parser in adding[1:]:
        parser.add_argument(
            "run",
            nargs="?",
            default="latest",
            help="an id of the history, its beginning, or a folder (default: %(default)s)",
        )
    for parser in adding:
        parser.add_argument(
            "--store", type=Path, help=f"where runs are kept (default: {STORE} of the checkout)"
        )


def main(asked: argparse.Namespace, root: Path, console: Console) -> None:
    """Carry out one of them."""
    folder = asked.store or root / STORE
    if not console.is_terminal:  # a file has room
        console = Console(file=console.file, width=_FILE_COLUMNS)
    if asked.command == "history":
        history(folder, console)
    elif asked.command == "keep":
        for copied in keep(asked.run, folder, root / KEPT):
            _say(console, f"kept: {copied.relative_to(root)}")
    else:
        report(asked.run, folder, console)


def conclude(run: Path, console: Console) -> Verdict:
    """Judge a run that has ended, store verdict and reports, and show the table.

    With the last of several repeats, the claim they allow is written into the reports of them all.
    A disk that is full costs the reports, not the verdict.

    Raises:
        RecordError: the folder holds no run.
    """
    log = read(run)
    verdict = judge(log)
    console.print(summary(log.run, verdict))
    try:
        store(verdict, run)
        if log.run.ended:
            compress(run)
        claim, mates = library.claim_for(run.parent, log.run)
        for mate in mates:
            _write(mate, claim)
        _say(console, f"report: {write_reports(log, verdict, run, claim=claim)}")
    except OSError as error:
        _say(console, f"the reports could not be written: {error}")
    return verdict


def report(name: str, folder: Path, console: Console) -> Verdict:
    """Write the reports of a stored run again, by the criteria that were stored with it; raises
    `NoSuchRun`, `RecordError`, `OSError`."""
    run = library.find(folder, name)
    log = read(run)
    verdict = judge(log)
    console.print(summary(log.run, verdict))
    claim, _ = library.claim_for(run.parent, log.run)
    _say(console, f"report: {write_reports(log, verdict, run, claim=claim)}")
    return verdict


def keep(name: str, runs: Path, kept: Path) -> list[Path]:
    """Copy a run of the folder `runs`, or with it all repeats of its set, into `kept`, without
    their reports; returns the folders.

    Raises:
        NoSuchRun, RecordError: no run of that name, or one that has not ended.
    """
    run = library.find(runs, name)
    log = read(run)
    if log.run.ended is None:
        raise RecordError(f"{run}: the run has not ended")
    mates = [run]
    if log.run.set_id:
        entries = library.history(run.parent)
        mates = [run.parent / each.id for each in entries if each.set_id == log.run.set_id]
    for mate in mates:
        compress(mate)  # where a full disk kept its end from doing so
        if not (mate / VERDICT_FILE).exists():
            store(judge(read(mate)), mate)
        (kept / mate.name).mkdir(parents=True, exist_ok=True)
        for file in _KEPT_FILES:
            shutil.copyfile(mate / file, kept / mate.name / file)
    return [kept / mate.name for mate in mates]


def _write(run: Path, claim: str) -> None:
    log = read(run)
    write_reports(log, judge(log), run, claim=claim)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def history(folder: Path, console: Console) -> None:
    """Show every stored run."""
    entries = library.history(folder)
    if entries:
        console.print(history_table(entries))
    else:
        _say(console, f"no runs in {folder}: `just load tier=half-core` makes one")
