"""The command line of `halfcore predict`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from halfcore.bundle import BundleError
from halfcore.log import configure
from halfcore.offline import files, partitions
from halfcore.offline.partitions import Outcome
from halfcore.offline.score import MOST_REPORTED, Scorer, Table, newest, threads_of
from halfcore.offline.sources import FileError
from halfcore.settings.parser import Parser

DESCRIPTION = """Score a table: one answer per row, in order. A wrong row gets an empty answer, and
is reported with its line; the rest goes on. A folder of Parquet files gives a folder of answers;
what is finished there is kept. Exit status: 0 every row has an answer, 1 some have none, 2 the
bundle or a file cannot be used, 130 and 143 interrupted."""
SOME_WRONG, UNUSABLE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
Say = Callable[[str], None]


def predict(words: Sequence[str]) -> NoReturn:
    """Score a file or a folder, and exit with the status.

    Args:
        words: of the command line, after `halfcore predict`.
    """
    parser = Parser("halfcore predict", description=DESCRIPTION)
    add_arguments(parser)
    sys.exit(main(parser.parse_args(words)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `halfcore predict`."""
    parser.add_argument(
        "bundle",
        type=Path,
        help="folder of a bundle, or of one model's bundles, of which the newest is used",
    )
    parser.add_argument(
        "file",
        help="CSV, JSON lines or Parquet, also .gz; - for standard input; or a folder or pattern "
        "of Parquet files",
    )
    parser.add_argument(
        "--out", default="-", help="where to write, a folder for a folder; default: standard output"
    )
    for flag, what in (("--format", "FILE"), ("--out-format", "the answers")):
        parser.add_argument(
            flag,
            choices=("csv", "jsonl", "parquet"),
            default="",
            help=f"format of {what}; default: by the end of the name, for - csv",
        )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="copy this column to the answers, for instance a key; may be repeated",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        help="cores for the model; default: all that this process may use",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score a folder with the Ray cluster at this address; auto: the one that this machine "
        "is part of, local: one that is started for the run",
    )
    parser.add_argument(
        "--workers", type=_positive, help="with --ray: files at once; default: one per core"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a summary as JSON to standard output; the answers then need --out",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1, expected 1 or more")
    return number


def main(asked: argparse.Namespace) -> int:
    """Run as the process's command; returns the exit status."""
    configure(level="error", form="text")
    signal.signal(signal.SIGTERM, _terminated)  # so that temporary files are removed
    return run(asked)


def run(asked: argparse.Namespace) -> int:
    """Score what was asked for; returns the exit status."""
    with _progress() as (say, show):
        try:
            if asked.json and asked.out == "-":
                raise FileError("--json: the answers take standard output; name a file with --out")
            many = partitions.are_meant(asked.file)
            return _score_folder(asked, say, show) if many else _score_file(asked, say, show)
        except (BundleError, FileError) as error:
            say(f"halfcore: {error}")
            return UNUSABLE
        except KeyboardInterrupt:
            kept = "" if asked.out == "-" else f"; {asked.out} holds only what was complete"
            say(f"halfcore: interrupted{kept}; run the same command again")
            return INTERRUPTED


def _terminated(*_: object) -> None:
    sys.exit(TERMINATED)


def _score_file(asked: argparse.Namespace, say: Say, show: Callable[[float, int], None]) -> int:
    source = Table(asked.file, files.kind_of(asked.file, asked.format))
    target = Table(asked.out, files.kind_of(asked.out, asked.out_format))
    if asked.ray or asked.workers:
        raise FileError(f"{asked.file}: --ray and --workers are for a folder of Parquet files")
    if "-" not in (asked.file, asked.out) and _are_the_same(asked.file, asked.out):
        raise FileError(f"{asked.out}: the answers would replace the rows; name another file")
    unit = "row" if source.kind == "parquet" else "line"
    threads = asked.threads or threads_of()
    scorer = Scorer(newest(asked.bundle), threads=threads, keep=asked.keep)
    rows, wrong = scorer.score(
        source,
        target,
        lambda line, reason: say(f"halfcore: {unit} {line}: {reason}"),
        show=show,
    )
    return _summary(asked, rows, wrong, say)


def _are_the_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other) and Path(one).is_file()
    except OSError:
        return False


def _summary(
    asked: argparse.Namespace,
    rows: int,
    wrong: int,
    say: Say,
    files_done: Mapping[str, int] | None = None,
) -> int:
    if wrong:
        say(f"halfcore: {wrong:,} of {rows:,} rows have no answer")
    if asked.json:
        found = {"rows": rows, "without_answer": wrong, "out": asked.out}
        if files_done is not None:
            found["files"] = files_done
        print(json.dumps(found))  # noqa: T201  a command line writes to its terminal
    return SOME_WRONG if wrong else 0


def _score_folder(asked: argparse.Namespace, say: Say, show: Callable[[float, int], None]) -> int:
    for given in (asked.format, asked.out_format):
        if given not in ("", "parquet"):
            raise FileError(f"{asked.file}: a folder is read and written as Parquet, not {given}")
    plan = partitions.plan(newest(asked.bundle), asked.file, asked.out, keep=asked.keep)
    outcomes = _outcomes(asked, plan)
    reported = failed = 0
    rows = sum(each.rows for each in plan.finished)
    wrong = sum(each.wrong for each in plan.finished)
    workers = set()
    for number, outcome in enumerate(outcomes, 1):
        workers.add(outcome.worker)
        rows, wrong = rows + outcome.rows, wrong + outcome.wrong
        for row, reason in outcome.reports[: MOST_REPORTED - reported]:
            say(f"halfcore: {outcome.name}, row {row}: {reason}")
            reported += 1
        if outcome.error:
            say(f"halfcore: {outcome.error}")
            failed += 1
        show(number / len(plan.todo), rows)
    say(
        f"halfcore: {len(plan.todo) - failed} files scored by {len(workers)} processes, "
        f"{len(plan.finished)} kept from an earlier run, {failed} failed"
    )
    done = {"scored": len(plan.todo) - failed, "kept": len(plan.finished), "failed": failed}
    status = _summary(asked, rows, wrong, say, done)
    return UNUSABLE if failed else status


def _outcomes(asked: argparse.Namespace, plan: partitions.Plan) -> Iterator[Outcome]:
    if asked.ray is None:
        return partitions.score_here(plan, threads=asked.threads or threads_of())
    from halfcore.offline import cluster  # late: an extra

    return cluster.score(plan, address=asked.ray, workers=asked.workers)


@contextmanager
def _progress() -> Iterator[tuple[Say, Callable[[float, int], None]]]:
    """Messages and progress on standard error; progress if that is a terminal."""
    if not sys.stderr.isatty():
        yield _print, lambda _, __: None
        return
    from rich.console import Console  # late: a run without a terminal does not wait for them
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rows = TextColumn("{task.fields[rows]:,} rows")
    columns = (BarColumn(), rows, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task: Any = progress.add_task("", total=None, rows=0)

        def say(message: str) -> None:
            progress.console.print(message, markup=False, highlight=False, soft_wrap=True)

        def show(done: float, rows: int) -> None:
            progress.update(task, total=1.0 if done else None, completed=done, rows=rows)

        yield say, show


def _print(message: str) -> None:
    # A command line writes to its terminal
    print(message, file=sys.stderr)  # noqa: T201
