"""`loadlab`: the command line. Exit codes: 0 done, 2 wrong arguments, 3 refused or failed, with one
line that says why."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
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
_JUDGED: dict[str, Callable[[argparse.Namespace, Path, Console], int]] = {
    **dict.fromkeys(run_command.COMMANDS, run_command.main),
    **dict.fromkeys(study_command.COMMANDS, study_command.main),
    "compare": compare_command.main,
    "search": search_command.main,
}
"""Commands that return their own exit code."""
_ORDERS = {"bench": orders.bench, "ablate": orders.ablate, "ladder": orders.ladder}
_OTHERS = {
    "bench": (
        orders.add_bench,
        "CPU time per request of halfcore, a minimal server and other servers",
    ),
    "ablate": (orders.add_ablate, "what each default of halfcore is worth"),
    "ladder": (
        orders.add_ladder,
        "from the course's first service to halfcore, one change at a time",
    ),
    "render": (render.add_arguments, "write docs/benchmarks.md and its plots from stored runs"),
    "memory": (
        memory.add_arguments,
        "a server's memory at rest, while loading, and with many connections",
    ),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="loadlab", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add, says) in _OTHERS.items():
        add(commands.add_parser(name, help=says))
    for command in (run_command, report_command, compare_command, search_command, study_command):
        command.add_arguments(commands)
    asked = parser.parse_args()
    # As an exception, so that servers and control groups are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=True)
    try:
        _carry_out(asked, _root(), console)
    except _REFUSALS as error:
        console.print(f"loadlab: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)


def _carry_out(asked: argparse.Namespace, root: Path, console: Console) -> None:
    if asked.command in _JUDGED:
        sys.exit(_JUDGED[asked.command](asked, root, console))
    if asked.command in report_command.COMMANDS:
        report_command.main(asked, root, Console())
        return
    if asked.command == "render":
        said = [f"wrote {written}" for written in render.main(asked)]
    elif asked.command == "memory":
        said = [f"stored in {memory.main(asked, root)}"]
    else:
        run = session.carry_out(_ORDERS[asked.command](asked, root), console)
        said = [f"stored in {store.save(run, asked.store)}"]
    for line in said:
        console.print(line, highlight=False, soft_wrap=True)


def _root() -> Path:
    """The checkout of the current folder; without git, the current folder."""
    words = ["git", "rev-parse", "--show-toplevel"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return Path.cwd()
    return Path(found.stdout.strip()) if found.returncode == 0 else Path.cwd()


if __name__ == "__main__":
    main()
