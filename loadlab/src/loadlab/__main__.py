"""`loadlab`: the command line. Exit codes: 0 done, 2 wrong arguments, 3 refused or failed, with one
line that says why."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from loadlab.experiments.bench import memory, orders, session
from loadlab.experiments.bench.cases import CaseError
from loadlab.experiments.bench.measure import ClientFailed
from loadlab.experiments.compare import command as compare_command
from loadlab.experiments.search import command as search_command
from loadlab.experiments.studies import command as study_command
from loadlab.generator.epoll.plan import PlanError
from loadlab.pages import render
from loadlab.record import store
from loadlab.record.read import RecordError
from loadlab.report import command as report_command
from loadlab.report.library import NoSuchRun
from loadlab.run import command as run_command
from loadlab.target.cgroup import Unavailable
from loadlab.target.process import CannotStart

_REFUSALS = (
    session.Refused,
    CaseError,
    ClientFailed,
    Unavailable,
    PlanError,
    CannotStart,
    NoSuchRun,
    RecordError,
    store.StoreError,
    subprocess.CalledProcessError,
)

_JUDGED = dict.fromkeys(run_command.COMMANDS, run_command.main) | {
    "compare": compare_command.main,
    "search": search_command.main,
}
_JUDGED |= dict.fromkeys(study_command.COMMANDS, study_command.main)
"""Commands that return their own exit code."""
_ORDERS = {"bench": orders.bench, "ablate": orders.ablate, "ladder": orders.ladder}


def main() -> None:
    """Run the command line."""
    asked = _parser().parse_args()
    # As an exception, so that servers and control groups are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=True)
    try:
        _carry_out(asked, console)
    except _REFUSALS as error:
        console.print(f"loadlab: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loadlab", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_bench_commands(commands)
    run_command.add_arguments(commands)
    report_command.add_arguments(commands)
    compare_command.add_arguments(commands)
    search_command.add_arguments(commands)
    study_command.add_arguments(commands)
    return parser


def _add_bench_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    orders.add_bench(
        commands.add_parser(
            "bench",
            help="CPU time per request of halfcore, a minimal server and other servers",
        )
    )
    orders.add_ablate(commands.add_parser("ablate", help="what each default of halfcore is worth"))
    orders.add_ladder(
        commands.add_parser(
            "ladder", help="from the course's first service to halfcore, one change at a time"
        )
    )
    render.add_arguments(
        commands.add_parser(
            "render", help="write docs/benchmarks.md and its plots from stored runs"
        )
    )
    memory.add_arguments(
        commands.add_parser(
            "memory", help="a server's memory at rest, while loading, and with many connections"
        )
    )


def _carry_out(asked: argparse.Namespace, console: Console) -> None:
    if asked.command in _JUDGED:
        sys.exit(_JUDGED[asked.command](asked, _root(), console))
    elif asked.command in report_command.COMMANDS:
        report_command.main(asked, _root(), Console())
    elif asked.command == "memory":
        console.print(f"stored in {memory.main(asked, _root())}", highlight=False, soft_wrap=True)
    elif asked.command == "render":
        for written in render.main(asked):
            console.print(f"wrote {written}", highlight=False, soft_wrap=True)
    else:
        _measure(asked, console)


def _measure(asked: argparse.Namespace, console: Console) -> None:
    order = _ORDERS[asked.command](asked, _root())
    run = session.carry_out(order, console)
    console.print(f"stored in {store.save(run, asked.store)}", highlight=False, soft_wrap=True)


def _root() -> Path:
    """The checkout of the current folder; without git, the current folder."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return Path.cwd()
    return Path(found.stdout.strip()) if found.returncode == 0 else Path.cwd()


if __name__ == "__main__":
    main()
