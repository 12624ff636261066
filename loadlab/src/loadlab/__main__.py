"""`loadlab`: the command line."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from loadlab.experiments import compare, runner, searching, studies, trial
from loadlab.experiments.bench import command as bench
from loadlab.experiments.bench import measure
from loadlab.experiments.bench.measure import ClientFailed
from loadlab.generator.plan import PlanError
from loadlab.pages import bench as bench_pages
from loadlab.pages import experiments as pages
from loadlab.pages import render
from loadlab.parser import Parser, add_command, add_completion, completion
from loadlab.record.cgroup import Unavailable
from loadlab.record.machine import git
from loadlab.record.store import StoreError
from loadlab.report import command as report_command
from loadlab.report.command import NoSuchRun
from loadlab.report.terminal import say
from loadlab.run import command as run_command
from loadlab.run.lock import Busy
from loadlab.run.session import Place
from loadlab.target.process import CannotStart
from loadlab.target.programs import CaseError

_REFUSALS = (
    Busy,
    measure.Refused,
    CaseError,
    ClientFailed,
    Unavailable,
    PlanError,
    CannotStart,
    NoSuchRun,
    StoreError,
    subprocess.CalledProcessError,
    OSError,
)
_DESCRIPTION = """Says how many users a server carries in which limits, and what a request costs."""
_ENDS = """Exit codes: load 0 PASS, 1 FAIL, 2 INVALID; search 0 a minimum was found, 1 nothing
passes, 2 nothing is proven; compare, seeds, scale and quota-study 0 whatever the verdicts; all of
these 3 wrong words, 4 no run could be made; doctor 0 a run is possible, 4 it is not; the others 0
done, 3 refused or failed. All: 2 an unknown command or flag, 130 interrupted."""
_STUDY = partial(studies.carry_out, sentences=pages.study_sentences)
_EXPERIMENTS: dict[str, Callable[[argparse.Namespace, Place, Console], int]] = {
    "compare": partial(compare.carry_out, table=pages.compare_table),
    "search": partial(searching.carry_out, table=pages.search_table),
    **dict.fromkeys(studies.KINDS, _STUDY),
}
"""Of load runs; they return their own exit code."""


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="loadlab", description=_DESCRIPTION, epilog=_ENDS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (bench, run_command, report_command, compare, searching, studies):
        command.add_arguments(commands)
    says = "write docs/benchmarks.md and its plots from stored runs"
    render.add_arguments(add_command(commands, "render", says))
    add_completion(commands)
    asked, _ = parser.parse_known_args()
    if "words" in asked:
        asked.words = sys.argv[2:]  # with what was typed as a flag: `words.parse` explains
    if asked.command == "completion":
        sys.stdout.write(f"{completion(parser, asked.shell)}\n")
        return
    # They end a command as Ctrl-C does, so that servers and control groups are removed. A closed
    # terminal sends SIGHUP; `nohup` has it ignored, and it stays so.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    console = Console(stderr=True)
    try:
        _carry_out(asked, _root(), console)
    except _REFUSALS as error:
        say(console, f"loadlab: {error}")
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)


def _carry_out(asked: argparse.Namespace, root: Path, console: Console) -> None:
    if asked.command in run_command.COMMANDS:
        sys.exit(run_command.main(asked, root, console))
    if asked.command in _EXPERIMENTS:
        sys.exit(trial.command(asked, root, console, _EXPERIMENTS[asked.command]))
    if asked.command in report_command.COMMANDS:
        report_command.main(asked, root, Console())
        return
    if getattr(asked, "dry_run", False):
        sys.stdout.writelines(f"{line}\n" for line in bench.planned(asked))
        return
    if asked.command == "render":
        said = [f"wrote {written}" for written in render.render(asked.runs, asked.out)]
    else:
        file = bench.main(asked, root, console)
        said = [f"stored in {file}"]
        if asked.command == "protocols":
            found = bench_pages.protocol_findings(runner.load(file, measure.Run))
            said = [*(each.text for each in found), *said]
    for line in said:
        say(console, line)


def _root() -> Path:
    """The checkout of the current folder; without git, the current folder."""
    return Path(git(Path.cwd(), "rev-parse", "--show-toplevel") or Path.cwd())


if __name__ == "__main__":
    main()
