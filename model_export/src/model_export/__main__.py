"""The command line. Only the commands that need heavy packages import them, so that checking for
existing examples is quick."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from model_export import completion, examples, imports, limits, stages
from model_export.bundle.write import exists, require_writable
from model_export.errors import ExportError, InfrastructureError, is_memory_error
from model_export.parser import Parser, add_json, between_0_and_1, did_you_mean, gate_rows
from model_export.registry.connection import connect
from model_export.watch import command as watch_command

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = Path(".halfcore")
BUNDLES = HOME / "bundles"
_INTERRUPTED = 130
_MEMORY_LIMIT = "MODEL_EXPORT_MEMORY_LIMIT_MB"
_SIGNING_KEY = "MODEL_EXPORT_SIGNING_KEY"


def main(argv: Sequence[str] | None = None, *, within_limits: bool = False) -> int:
    """Run one command.

    Args:
        argv: the arguments; default: the process's.
        within_limits: this process may load models; otherwise it starts another for that, with a
            memory limit.

    Returns:
        the exit status: 0 done, 1 refused, 2 wrong usage, 3 MLflow or the disk failed, 130
            interrupted.
    """
    arguments = _parser().parse_args(argv)
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    arguments.within_limits = within_limits
    if getattr(arguments, "debug", False):
        os.environ[stages.DEBUG] = "1"
    stages.clear()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("model-export: interrupted\n")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - every error becomes one line, not a traceback
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
    # A parent of every command's parser, so that it may be before or after the command's name.
    common = Parser(add_help=False)
    common.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help=f"also show the traceback of an error [{stages.DEBUG}=1]",
    )
    parser = Parser(
        prog="model-export",
        description="Exports models of scikit-learn, XGBoost, LightGBM, CatBoost and ONNX from "
        "MLflow to ONNX bundles for the server, and proves that each bundle gives the model's "
        "answers.",
        parents=[common],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str) -> argparse.ArgumentParser:
        text = _COMMANDS[name]
        described = f"{text[0].upper()}{text[1:]}."
        return commands.add_parser(name, help=text, description=described, parents=[common])

    _add_export(command("export"))
    _add_examples(command("examples"))
    _add_verify(command("verify"))
    watch_command.add_watch(command("watch"))
    watch_command.add_healthy(command("healthy"))
    completion.add_completion(commands).set_defaults(run=_completion)
    return parser


_COMMANDS = {
    "export": "export one model: fetch, study, convert, prove and write it",
    "examples": "train, register and export the example models that are missing",
    "verify": "compare a running server's answers with the registered model's, row by row",
    "watch": "run as a service that exports every new model version, uploads and tags it",
    "healthy": "check whether a watch is alive, for a container's health check",
}


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri",
        metavar="URI",
        help="the model: models:/NAME@ALIAS, models:/NAME/STAGE, models:/NAME/VERSION, "
        "models:/m-ID, runs:/ID/path or a folder; NAME=models:/… is short for --name NAME",
    )
    parser.add_argument("--name", help="name of the bundle; default: the registered name")
    _add_data(parser, "prove the model on")
    _add_proof(parser)
    parser.add_argument(
        "--accept-unknown",
        action="store_true",
        help="serve unknown categories as the model answers them, where its encoder is made for "
        "them (handle_unknown); default: the server refuses them",
    )
    parser.add_argument(
        "--no-unpickle",
        action="store_true",
        help="refuse models that run code when they are loaded (pickle, cloudpickle, code files)",
    )
    parser.add_argument(
        "--signing-key",
        type=Path,
        default=os.environ.get(_SIGNING_KEY) or None,
        metavar="FILE",
        help="sign the bundle with this Ed25519 private key, PEM without a password; default: no "
        f"signature [{_SIGNING_KEY}]",
    )
    parser.add_argument(
        "--upload",
        action="store_true",
        help="also upload the bundle to the version's MLflow run, and tag the version as passed "
        "or refused",
    )
    _add_memory_limit(parser)
    _add_places(parser)
    add_json(parser, "the bundle's path, name and version, and its proof")
    parser.set_defaults(run=_export)


def _add_data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=f"CSV, Parquet or NPY file with the rows to {purpose}; default: the data logged to "
        "the model's run, otherwise its input example",
    )


def _add_proof(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float64"),
        default="auto",
        help="number type of the graph; default: auto, which is float32, or float64 if the proof "
        "in float32 fails",
    )
    parser.add_argument(
        "--accept-parity",
        type=between_0_and_1,
        metavar="X",
        help="tolerate differences of up to X (between 0 and 1) between the answers of graph and "
        "model; the bundle records it; default: 1e-06 or 1e-05, by the kind of the model",
    )
    parser.add_argument(
        "--gate-rows",
        type=gate_rows,
        metavar="N",
        help="rows that the proof compares, besides those around tree thresholds: 1,000 to "
        "10,000,000; default: 100,000, or as many as the model answers in about 40 s",
    )


def _add_examples(parser: argparse.ArgumentParser) -> None:
    known = ", ".join((*examples.NAMES, *examples.GROUPS))
    parser.add_argument(
        "names",
        nargs="*",
        default=["light"],
        metavar="NAME",
        help=f"names or groups: {known}; default: light (without cover-heavy and cover-lightgbm)",
    )
    _add_memory_limit(parser)
    _add_places(parser)
    add_json(parser, "the names of the examples, and which of them were made now")
    parser.set_defaults(run=_examples)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri",
        nargs="+",
        metavar="URI",
        help="the models, one or more, each as for export",
    )
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:8000",
        help="address of the server; default: %(default)s",
    )
    parser.add_argument(
        "--path",
        help="path on the server to post single rows to, one row per request; default: "
        "/models/NAME/predict, with all rows in batches and some one by one",
    )
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help="with --path: post at most N rows, spread over the data; default: all rows",
    )
    _add_data(parser, "post")
    _add_tracking_uri(parser)
    add_json(parser, "for each model how many answers differ")
    parser.set_defaults(run=_verify)


def _print_json(found: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")


def _add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's server or store; default: $MLFLOW_TRACKING_URI, otherwise "
        "sqlite:///.halfcore/mlflow.db",
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=BUNDLES,
        metavar="FOLDER",
        help="folder to write bundles to; default: %(default)s",
    )
    _add_tracking_uri(parser)


def _add_memory_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-limit-mb",
        type=_megabytes,
        # argparse parses a default that is text like a flag's value.
        default=os.environ.get(_MEMORY_LIMIT) or limits.default_mb(),
        metavar="MB",
        help="memory that the export may use, in megabytes; default: %(default)s "
        f"(90 %% of this machine's memory, at most {limits.MOST_MB}) [{_MEMORY_LIMIT}]",
    )


def _megabytes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < limits.LEAST_MB:
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected a whole number of megabytes, {limits.LEAST_MB} or more"
        )
    return int(text)


def _within_limits(arguments: argparse.Namespace) -> int:
    """Run the same command in a process with a memory limit. If that process ends without an error
    line of its own, raise an error with the reason."""
    limit_mb: int = arguments.memory_limit_mb
    command = [*limits.interpreter(), "-m", "model_export.limited"]
    child = limits.Supervised([*command, str(limit_mb), str(os.getpid()), *arguments.argv])
    try:
        ended = child.wait(limit_mb)
    except KeyboardInterrupt:
        return _INTERRUPTED  # the process has printed that
    if ended.limit_exceeded:
        raise ExportError(stages.memory_limit_message(ended.stage, limit_mb))
    if ended.status >= 0:
        return ended.status
    raise ExportError(limits.killed_message(ended, limit_mb))


def _export(arguments: argparse.Namespace) -> int:
    require_writable(arguments.out)
    if not arguments.within_limits:
        return _within_limits(arguments)
    from model_export.export import ExportRequest, export, export_and_publish
    from model_export.report import Reporter

    connect(arguments.tracking_uri)
    request = ExportRequest(
        arguments.uri,
        arguments.out,
        name=arguments.name,
        data=arguments.data,
        dtype=arguments.dtype,
        accept_parity=arguments.accept_parity,
        gate_rows=arguments.gate_rows,
        allow_unpickle=not arguments.no_unpickle,
        accept_unknown=arguments.accept_unknown,
        signing_key=arguments.signing_key,
    )
    uploaded = None
    if arguments.upload:
        folder, uploaded = export_and_publish(request, Reporter())
    else:
        folder = export(request, Reporter())
    if arguments.json:
        manifest = json.loads((folder / "manifest.json").read_text())
        chosen = {key: manifest[key] for key in ("name", "version", "task", "dtype", "parity")}
        _print_json({"bundle": str(folder), "uploaded": uploaded} | chosen)
    return 0


def _examples(arguments: argparse.Namespace) -> int:
    try:
        names = examples.expand(arguments.names)
    except KeyError as error:
        wrong, known = error.args[0], [*examples.NAMES, *examples.GROUPS]
        meant = did_you_mean(wrong, known)
        sys.stderr.write(
            f"model-export examples: no example {wrong!r}; known: {', '.join(known)}{meant}\n"
        )
        return 2
    missing = [name for name in names if not exists(arguments.out, name)]
    if missing and not arguments.within_limits:
        return _within_limits(arguments)
    if missing:
        require_writable(arguments.out)
        _make_examples(missing, arguments)
    if arguments.json:
        _print_json({"out": str(arguments.out), "examples": names, "made": missing})
        return 0
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
    imports.end()  # before the training makes garbage
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
        wrong = [
            verify_one_by_one(
                uri, f"{arguments.url}{arguments.path}", arguments.data, reporter, arguments.rows
            )
            for uri in arguments.uri
        ]
    else:
        wrong = [verify(uri, arguments.url, arguments.data, reporter) for uri in arguments.uri]
    if arguments.json:
        differ = zip(arguments.uri, wrong, strict=True)
        _print_json({"models": [{"uri": uri, "differ": count} for uri, count in differ]})
    return 1 if any(wrong) else 0


def _completion(arguments: argparse.Namespace) -> int:
    sys.stdout.write(f"{completion.script(_parser(), arguments.shell)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
