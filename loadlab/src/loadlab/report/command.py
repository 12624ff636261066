"""`loadlab history` and `loadlab report RUN`, and the end of every run: judge, store, write the reports, show the table."""

import argparse
from pathlib import Path

from rich.console import Console

from loadlab import library
from loadlab.record.read import read
from loadlab.record.write import compress
from loadlab.report.table import history_table, summary
from loadlab.report.write import write_reports
from loadlab.verdict.judge import Verdict, judge, store

STORE = Path(".halfcore/loads")
"""Where runs are kept, from the checkout's root."""
COMMANDS = ("history", "report")
_FILE_COLUMNS = 160


def add_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    adding = [
        commands.add_parser("history", help="every stored load run"),
        commands.add_parser("report", help="write a run's reports again"),
    ]
    adding[1].add_argument(
        "run", nargs="?", default="latest", help="an id of the history, its beginning, or a folder (default: %(default)s)"
    )
    for parser in adding:
        parser.add_argument("--store", type=Path, help=f"where runs are kept (default: {STORE} of the checkout)")


def main(asked: argparse.Namespace, root: Path, console: Console) -> None:
    """Carry out one of them."""
    folder = asked.store or root / STORE
    if not console.is_terminal:  # a file has room
        console = Console(file=console.file, width=_FILE_COLUMNS)
    if asked.command == "history":
        history(folder, console)
    else:
        report(asked.run, folder, console)


def conclude(run: Path, console: Console, *, claim: str = "") -> Verdict:
    """Judge a run that has ended, store verdict and reports, and show the table; raises `RecordError`, `OSError`."""
    log = read(run)
    verdict = judge(log)
    store(verdict, run)
    if log.run.ended:
        compress(run)
    page = write_reports(log, verdict, run, claim=claim)
    console.print(summary(log.run, verdict))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return verdict


def report(name: str, folder: Path, console: Console) -> Verdict:
    """Write the reports of a stored run again, by the criteria that were stored with it; raises `NoSuchRun`, `RecordError`."""
    run = library.find(folder, name)
    log = read(run)
    verdict = judge(log)
    page = write_reports(log, verdict, run, claim=library.claim_for(folder, log.run))
    console.print(summary(log.run, verdict))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return verdict


def history(folder: Path, console: Console) -> None:
    """Show every stored run."""
    entries = library.history(folder)
    if entries:
        console.print(history_table(entries))
    else:
        console.print(f"no runs in {folder}: `just load tier=half-core` makes one", highlight=False, soft_wrap=True)
