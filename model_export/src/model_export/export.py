"""One export, step by step: fetch, study, convert, prove, write.

The modules of the steps after the fetch import scikit-learn, skl2onnx and ONNX Runtime, so they are
imported once the model's files are here: a wrong alias is refused without them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from model_export import imports, stages
from model_export.bundle.sign import read_key
from model_export.bundle.write import write
from model_export.errors import (
    ExportError,
    InfrastructureError,
    MemoryLimitError,
    is_memory_error,
    pointing,
    sentence,
)
from model_export.publish import publish, refuse
from model_export.registry.client import fetch, registered_version
from model_export.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from model_export.convert.convert import Candidate
    from model_export.prove.prove import Proof
    from model_export.registry.client import FetchedModel
    from model_export.study.study import StudiedModel


_STEPS = (
    "bundle.check",
    "convert.convert",
    "manifest",
    "prove.prove",
    "prove.table",
    "study.study",
)
_CHECKED_ROWS = 100
"""Rows of the data on which the pyfunc's function is checked."""


@dataclass(frozen=True)
class ExportRequest:
    """Which model to export, and how."""

    uri: str
    out: Path
    name: str | None = None
    data: Path | None = None
    dtype: Literal["auto", "float32", "float64"] = "auto"
    accept_parity: float | None = None
    allow_unpickle: bool = True
    gate_rows: int | None = None
    """How many rows the proof compares; None: `GATE_ROWS`, or as many as fit its time."""
    accept_unknown: bool = False
    """Serve unknown categories as the model answers them, in columns where it does."""
    signing_key: Path | None = None
    """Signs the bundle: a file, PEM; None: it gets no signature."""


def export(request: ExportRequest, reporter: Reporter) -> Path:
    """Export one model; MLflow is already connected.

    Returns:
        the bundle's folder.

    Raises:
        ExportError: says in one line why there is no bundle; a `GateError` shows the worst row.
        InfrastructureError: MLflow or the disk failed.
    """
    with stages.while_exporting(request.uri):
        started = time.perf_counter()
        reporter.heading(request.uri)
        key = read_key(request.signing_key) if request.signing_key else None
        fetched = _fetch(request, reporter)
        with _naming_other_version(fetched), _pointing_to_page():
            studied = _study(request, fetched, reporter)
            candidate = _convert(request, studied, reporter)
            proof = _prove(request, studied, candidate, reporter)
        path = _write(request, studied, proof, key)
        _print_table(studied, proof, time.perf_counter() - started, reporter)
        reporter.note(f"bundle: {path}")  # a table on a narrow terminal would break the path
        return path


def _fetch(request: ExportRequest, reporter: Reporter) -> FetchedModel:
    with reporter.stage("fetch"):
        fetched = fetch(
            request.uri,
            name=request.name,
            allow_unpickle=request.allow_unpickle,
            before_loading=import_steps,
        )
    for note in fetched.notes:
        reporter.note(note)
    return fetched


def import_steps() -> None:
    """Import the steps after the fetch. Before the model is loaded: it may bring modules of any
    name, which must not take the place of theirs.

    Raises:
        InfrastructureError: a package is missing, which says nothing about the model.
    """
    try:
        for name in _STEPS:
            import_module(f"model_export.{name}")
        imports.end()
    except ImportError as error:
        raise InfrastructureError(
            f"the exporter's own packages cannot be imported: {sentence(error)}; install "
            "halfcore-export again"
        ) from error


def _study(request: ExportRequest, fetched: FetchedModel, reporter: Reporter) -> StudiedModel:
    from model_export.prove.function import check_predict_function
    from model_export.study.data import LEAST_ROWS, data_summary, too_few_rows_error
    from model_export.study.study import study

    with reporter.stage("inspect the model and its data"):
        studied = study(fetched, request.data, unknown=request.accept_unknown)
    schema, data = studied.schema, studied.data
    if data.distinct_rows < LEAST_ROWS:
        raise too_few_rows_error(data)
    reporter.note(data_summary(data))
    if function := check_predict_function(fetched, schema, data.packed[:_CHECKED_ROWS]):
        reporter.note(function)
    if request.accept_unknown:
        accepting = ", ".join(c.name for c in schema.columns if c.unknown) or "none"
        reporter.note(f"columns that accept unknown categories: {accepting}")
    if schema.ignored:
        names = ", ".join(column.name for column in schema.ignored)
        reporter.note(f"columns that the model does not read, optional and ignored: {names}")
    return studied


def _convert(request: ExportRequest, studied: StudiedModel, reporter: Reporter) -> Candidate:
    from model_export.convert.convert import convert

    with reporter.stage("convert"):
        return convert(studied, "float64" if request.dtype == "float64" else "float32")


def _prove(
    request: ExportRequest, studied: StudiedModel, candidate: Candidate, reporter: Reporter
) -> Proof:
    from model_export.prove.budget import PROOF_S
    from model_export.prove.draw import GATE_ROWS
    from model_export.prove.prove import prove

    stages.enter("prove")
    return prove(
        studied,
        candidate,
        reporter,
        fall_back=request.dtype == "auto",
        accept=request.accept_parity,
        rows=request.gate_rows or GATE_ROWS,
        budget_s=PROOF_S if request.gate_rows is None else float("inf"),
    )


def _write(
    request: ExportRequest, studied: StudiedModel, proof: Proof, key: Ed25519PrivateKey | None
) -> Path:
    from model_export.bundle.check import require_servable
    from model_export.manifest import compose

    stages.enter("write the bundle")
    manifest = compose(studied, proof)
    cuts = {column.name: column.text.cut for column in studied.schema.columns if column.text}
    require_servable(manifest, proof.candidate.model, cuts)
    try:
        return write(request.out, manifest, proof.candidate.model, key)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write the bundle: {sentence(error)}; give another folder with --out"
        ) from error


def _print_table(studied: StudiedModel, proof: Proof, seconds: float, reporter: Reporter) -> None:
    from model_export.prove.table import parity_table

    reporter.console.print(parity_table(studied, proof, seconds))


@contextmanager
def _pointing_to_page() -> Iterator[None]:
    """End a refusal of the model or its data with the section of the page that says more."""
    try:
        yield
    except (InfrastructureError, MemoryLimitError):
        raise
    except ExportError as error:
        if is_memory_error(error) or error.complete:
            raise
        raise pointing(error) from error


@contextmanager
def _naming_other_version(fetched: FetchedModel) -> Iterator[None]:
    """Add the two scikit-learn versions to an error of a model trained with another scikit-learn:
    such a model fails in ways that do not show the cause."""
    from model_export.prove.prove import GateError

    try:
        yield
    except (InfrastructureError, GateError):
        raise
    except Exception as error:
        if fetched.other_version is None or is_memory_error(error):
            raise
        said = error if isinstance(error, ExportError) else stages.unexpected_error(error)
        raise ExportError(f"{said} ({fetched.other_version})") from error


def export_and_publish(request: ExportRequest, reporter: Reporter) -> tuple[Path, str]:
    """Export one registered version, upload the bundle and tag the version; tag a refusal too.

    Returns:
        the bundle's folder, and runs:/RUN_ID/halfcore/NAME/VERSION-SHA8.

    Raises:
        ExportError: as `export`; or the URI names no registered version, and only a registered
            version can be tagged.
        InfrastructureError: MLflow or the disk failed; then nothing is tagged.
    """
    version = registered_version(request.uri)
    try:
        path = export(request, reporter)
    except (InfrastructureError, MemoryLimitError):  # neither is a verdict on the model
        raise
    except ExportError as error:
        refuse(version.name, version.version, error.reason)
        raise
    if not path.name.startswith(f"{version.version}-"):
        raise InfrastructureError(
            f"{request.uri} moved from version {version.version} to "
            f"{path.name.rpartition('-')[0]} during the export: export it again"
        )
    with reporter.stage("upload"):
        uri = publish(path, version.name, version.version)
    reporter.note(f"uploaded to {uri}")
    return path, uri
