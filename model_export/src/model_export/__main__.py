"""The command line. Heavy packages are imported by the commands that need them: asking for what is
already there takes a moment."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from model_export import examples, limits, stages
from model_export.bundle.write import exists, require_writable
from model_export.errors import ExportError, InfrastructureError, is_memory_error
from model_export.registry.connection import connect
from model_export.watch import command as watch_command

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = Path(".halfcore")
BUNDLES = HOME / "bundles"
_INTERRUPTED = 130
_MEMORY_LIMIT = "MODEL_EXPORT_MEMORY_LIMIT_MB"


def main(argv: Sequence[str] | None = None, *, within_limits: bool = False) -> int:
    """Run one command.

    Args:
        argv: the arguments; default: the process's.
        within_limits: this process may load models; else one is started for that, with a limit of
            memory.

    Returns:
        the exit status: 0 done, 1 refused, 2 used wrongly, 3 MLflow or the disk failed, 130
            interrupted.
    """
    arguments = _parser().parse_args(argv)
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    arguments.within_limits = within_limits
    if getattr(arguments, "debug", False):
        os.environ[stages.DEBUG] = "1"
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("model-export: interrupted\n")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - one line instead of a traceback, whatever it is
        return _failed(error)


def _failed(error: Exception) -> int:
    if stages.debugging():
        traceback.print_exception(error)
    if not isinstance(error, ExportError):
        memory = is_memory_error(error)
        error = (
            ExportError(stages.memory_limit_message(stages.current(), None))
            if memory
            else stages.unexpected_error(error)
        )
    sys.stderr.write(f"model-export: {error}\n")
    return 3 if isinstance(error, InfrastructureError) else 1


def _parser() -> argparse.ArgumentParser:
    # Of every command, so that it may stand before or after its other arguments.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help=f"show the traceback of an error as well [{stages.DEBUG}=1]",
    )
    parser = argparse.ArgumentParser(
        prog="model-export",
        description="Exports registered models to ONNX bundles, with proof.",
        parents=[common],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, parents=[common])

    _add_export(command("export", "export one model: fetch, convert, prove, write"))
    _add_examples(
        command("examples", "train, register and export example models, where they are missing")
    )
    _add_verify(
        command(
            "verify", "compare a running server's answers with the registered model's, row by row"
        )
    )
    watch_command.add_watch(
        command("watch", "a service: export every new version, upload and tag it")
    )
    watch_command.add_healthy(
        command("healthy", "is the watch alive? for a container's health check")
    )
    return parser


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri",
        help="models:/NAME@ALIAS, models:/NAME/STAGE, models:/NAME/VERSION, models:/m-ID, "
        "runs:/ID/path or a folder; "
        "NAME= before it is short for --name NAME",
    )
    parser.add_argument("--name", help="of the bundle; default: as registered")
    parser.add_argument(
        "--data",
        type=Path,
        help="CSV, Parquet or NPY to prove it on; default: the data logged to its run, else its "
        "input example",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float64"),
        default="auto",
        help="auto: float32, and float64 where that fails",
    )
    parser.add_argument(
        "--accept-parity",
        type=_positive,
        metavar="X",
        help="tolerate differences up to X; recorded in the bundle",
    )
    parser.add_argument(
        "--no-unpickle", action="store_true", help="refuse models that only unpickling can load"
    )
    parser.add_argument(
        "--upload",
        action="store_true",
        help="put the bundle into the version's run and tag the version with the verdict",
    )
    _add_memory_limit(parser)
    _add_places(parser)
    parser.set_defaults(run=_export)


def _add_examples(parser: argparse.ArgumentParser) -> None:
    known = ", ".join((*examples.GROUPS["all"], *examples.GROUPS))
    parser.add_argument(
        "names",
        nargs="*",
        default=["light"],
        metavar="NAME",
        help=f"{known}; default: light (all but cover-heavy)",
    )
    _add_memory_limit(parser)
    _add_places(parser)
    parser.set_defaults(run=_examples)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri", nargs="+", help="as for export; several are verified one after another"
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="of the server; default: %(default)s"
    )
    parser.add_argument(
        "--path",
        help="where the model answers, one row a request (default: /models/NAME/predict, in "
        "batches too)",
    )
    parser.add_argument(
        "--rows",
        type=int,
        help="with --path: at most so many rows, spread over the data (default: all)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="CSV, Parquet or NPY with the rows; default: the data logged to the model's run",
    )
    parser.add_argument("--tracking-uri", help=_TRACKING_HELP)
    parser.set_defaults(run=_verify)


_TRACKING_HELP = (
    "MLflow's store or server; default: $MLFLOW_TRACKING_URI, else sqlite:///.halfcore/mlflow.db"
)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=BUNDLES, help="folder of the bundles; default: %(default)s"
    )
    parser.add_argument("--tracking-uri", help=_TRACKING_HELP)


def _add_memory_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-limit-mb",
        type=_megabytes,
        # argparse parses a default that is text as it parses a flag.
        default=os.environ.get(_MEMORY_LIMIT) or limits.default_mb(),
        metavar="MB",
        help="megabytes of memory that the export may use; default: %(default)s "
        f"(90 %% of the memory here, at most {limits.MOST_MB}) [{_MEMORY_LIMIT}]",
    )


def _megabytes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < limits.LEAST_MB:
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected a whole number of megabytes, {limits.LEAST_MB} or more"
        )
    return int(text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return value


def _within_limits(arguments: argparse.Namespace) -> int:
    """Run the same command in a process with a limit of memory; says in one line why it ended, if
    it cannot say so itself."""
    here = sys.path[:1] in (
        [""],
        [str(Path.cwd())],
    )  # -P: no module in the current folder may shadow one of ours
    limit_mb: int = arguments.memory_limit_mb
    command = [sys.executable, *([] if here else ["-P"]), "-m", "model_export.limited"]
    child = limits.Supervised([*command, str(limit_mb), str(os.getpid()), *arguments.argv])
    try:
        ended = child.wait(limit_mb)
    except KeyboardInterrupt:
        return _INTERRUPTED  # it has said so itself
    if ended.limit_exceeded:
        raise ExportError(stages.memory_limit_message(ended.stage, limit_mb))
    if ended.status >= 0:
        return ended.status
    raise ExportError(limits.killed_message(ended, limit_mb))


def _export(arguments: argparse.Namespace) -> int:
    require_writable(arguments.out)
    if not arguments.within_limits:
        return _within_limits(arguments)
    from model_export.export import ExportRequest, export
    from model_export.report import Reporter

    connect(arguments.tracking_uri)
    order = ExportRequest(
        arguments.uri,
        arguments.out,
        name=arguments.name,
        data=arguments.data,
        dtype=arguments.dtype,
        accept_parity=arguments.accept_parity,
        allow_unpickle=not arguments.no_unpickle,
    )
    if arguments.upload:
        from model_export.export import export_and_publish

        export_and_publish(order, Reporter())
    else:
        export(order, Reporter())
    return 0


def _examples(arguments: argparse.Namespace) -> int:
    try:
        names = examples.expand(arguments.names)
    except KeyError as error:
        known = ", ".join((*examples.GROUPS["all"], *examples.GROUPS))
        sys.stderr.write(f"model-export examples: no example {error.args[0]!r}; known: {known}\n")
        return 2
    missing = [name for name in names if not exists(arguments.out, name)]
    if missing and not arguments.within_limits:
        return _within_limits(arguments)
    if missing:
        require_writable(arguments.out)
        _make_examples(missing, arguments)
    sys.stdout.write(
        f"{len(names)} example models in {arguments.out}, {len(names) - len(missing)} of them "
        "already there\n"
    )
    return 0


def _make_examples(names: list[str], arguments: argparse.Namespace) -> None:
    from model_export.examples import train
    from model_export.export import ExportRequest, export
    from model_export.report import Reporter

    reporter = Reporter()
    connect(arguments.tracking_uri)
    for position, name in enumerate(names, start=1):
        reporter.heading(f"[{position}/{len(names)}] {name}")
        if not train.is_registered(name):
            with stages.while_exporting(f"example {name}"):
                train.train(name, HOME / "artifacts", reporter)
        export(ExportRequest(f"models:/{name}@{train.ALIAS}", arguments.out), reporter)


def _verify(arguments: argparse.Namespace) -> int:
    from model_export.report import Reporter
    from model_export.verify import verify, verify_one_by_one

    connect(arguments.tracking_uri)
    reporter = Reporter()
    if arguments.path:
        one_by_one = [
            verify_one_by_one(
                uri, f"{arguments.url}{arguments.path}", arguments.data, reporter, arguments.rows
            )
            for uri in arguments.uri
        ]
        return 1 if any(one_by_one) else 0
    wrong = [verify(uri, arguments.url, arguments.data, reporter) for uri in arguments.uri]
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
