"""The road of an export: fetch → study → convert → prove → write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model_export import stages
from model_export.bundle.write import write
from model_export.convert.convert import convert
from model_export.errors import (
    ExportError,
    InfrastructureError,
    MemoryLimitError,
    is_memory_error,
    sentence,
)
from model_export.manifest import compose
from model_export.prove.draw import GATE_ROWS
from model_export.prove.oracle import check_predict_function
from model_export.prove.prove import GateError, prove
from model_export.prove.table import parity_table
from model_export.publish import publish, refuse
from model_export.registry.client import fetch, registered_version
from model_export.report import Reporter
from model_export.study.data import LEAST_ROWS, data_summary, too_few_rows_error
from model_export.study.study import study

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.prove.prove import Proof
    from model_export.registry.client import FetchedModel
    from model_export.study.study import StudiedModel


_ASKED_FIRST = 100
"""Rows of the data."""


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported, and how."""

    uri: str
    out: Path
    name: str | None = None
    data: Path | None = None
    dtype: Literal["auto", "float32", "float64"] = "auto"
    accept_parity: float | None = None
    allow_unpickle: bool = True
    gate_rows: int = GATE_ROWS


def export(order: ExportRequest, reporter: Reporter) -> Path:
    """Export one model; MLflow is already connected.

    Returns:
        the bundle's folder.

    Raises:
        ExportError: says in one line why there is no bundle; a `GateError` shows the worst row.
        InfrastructureError: MLflow or the disk failed.
    """
    with stages.while_exporting(order.uri):
        return _export(order, reporter, time.perf_counter())


def _export(order: ExportRequest, reporter: Reporter, started: float) -> Path:
    reporter.heading(order.uri)
    with reporter.stage("fetch"):
        fetched = fetch(order.uri, name=order.name, allow_unpickle=order.allow_unpickle)
    for note in fetched.notes:
        reporter.note(note)
    try:
        studied, proof = _prove(order, fetched, reporter)
    except (InfrastructureError, GateError):
        raise
    except Exception as error:
        if fetched.other_version is None or is_memory_error(error):
            raise
        # A model of another scikit-learn fails in ways that say nothing of the cause.
        raise ExportError(f"{_described(error)} ({fetched.other_version})") from error
    stages.enter("write the bundle")
    try:
        path = write(order.out, compose(studied, proof), proof.candidate.model)
    except OSError as error:
        raise InfrastructureError(f"cannot write the bundle: {sentence(error)}") from error
    reporter.console.print(parity_table(studied, proof, time.perf_counter() - started))
    reporter.note(f"bundle: {path}")  # a table on a narrow terminal would break the path
    return path


def _prove(
    order: ExportRequest, fetched: FetchedModel, reporter: Reporter
) -> tuple[StudiedModel, Proof]:
    with reporter.stage("inspect the model and its data"):
        studied = study(fetched, order.data)
    if studied.data.distinct_rows < LEAST_ROWS:
        raise too_few_rows_error(studied.data)
    reporter.note(data_summary(studied.data))
    if function := check_predict_function(
        fetched, studied.schema, studied.data.packed[:_ASKED_FIRST]
    ):
        reporter.note(function)
    if studied.schema.ignored:
        names = ", ".join(column.name for column in studied.schema.ignored)
        reporter.note(f"columns that the model does not read, optional and ignored: {names}")
    with reporter.stage("convert"):
        candidate = convert(studied, "float64" if order.dtype == "float64" else "float32")
    stages.enter("prove")
    proof = prove(
        studied,
        candidate,
        reporter,
        fall_back=order.dtype == "auto",
        accept=order.accept_parity,
        rows=order.gate_rows,
    )
    return studied, proof


def _described(error: Exception) -> str:
    return str(error if isinstance(error, ExportError) else stages.unexpected_error(error))


def export_and_publish(order: ExportRequest, reporter: Reporter) -> str:
    """Export one registered version, upload the bundle and tag the version; a refusal is tagged
    too.

    Returns:
        runs:/RUN_ID/halfcore/NAME/VERSION-SHA8.

    Raises:
        ExportError: as `export`; or the URI leads to no registered version, which alone can be
            tagged.
        InfrastructureError: MLflow or the disk failed; then nothing is tagged.
    """
    version = registered_version(order.uri)
    try:
        path = export(order, reporter)
    except (InfrastructureError, MemoryLimitError):  # neither is a verdict on the model
        raise
    except ExportError as error:
        refuse(version.name, version.version, error.reason)
        raise
    if not path.name.startswith(f"{version.version}-"):
        raise InfrastructureError(
            f"{order.uri} has moved from version {version.version} to "
            f"{path.name.rpartition('-')[0]} meanwhile"
        )
    with reporter.stage("upload"):
        uri = publish(path, version.name, version.version)
    reporter.note(f"uploaded to {uri}")
    return uri
