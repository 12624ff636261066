"""Finds the data from which the gate draws its rows: the training data, if possible."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from model_export.errors import (
    DataError,
    ExportError,
    InfrastructureError,
    NoSuchRowError,
    is_memory_error,
    plain,
    redact,
    sentence,
    shorten,
)
from model_export.study import tables
from model_export.study.arrays import Matrix
from model_export.study.download import download
from model_export.study.example import example_table
from model_export.study.rows import columns_of, from_frame, refused_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlflow.entities import DatasetInput

    from model_export.registry.client import FetchedModel
    from model_export.study.answers import Answers
    from model_export.study.schema import Schema

ENOUGH_ROWS = 100
"""Distinct rows below which the proof warns: of n rows that all agree, up to 3/n of all such rows
may still differ (with 95 % confidence), so of a hundred 3 %."""
LEAST_ROWS = 2
"""One row says nothing about how the answer depends on the columns."""
_SHOWN_REASONS = 3
_MOST_REFUSED = 10_000
"""Rows of those left out that are read again for the reason."""
_PROXY = "/api/2.0/mlflow-artifacts/artifacts/"
_ADVICE = (
    "give --data FILE.csv, or log the model with more rows of its training data: log_model(…, "
    "input_example=X[:1000]), or "
    "log_input(from_pandas(X, source=PATH_OR_URL))"
)


@dataclass(frozen=True)
class Data:
    """Rows that the server would accept."""

    packed: Matrix
    origin: str
    unknown_rows: int
    """Rows left out because the server refuses one of their values, an unknown category for
    example."""
    distinct_rows: int = 0
    """Different rows in `packed`."""
    unused: tuple[str, ...] = ()
    """Sources that were tried before this one, and why they were not used."""
    refused: str = ""
    """What the rows hold that are left out, in words."""

    @property
    def warnings(self) -> list[str]:
        """Warnings for readers of the proof about its rows."""
        if self.distinct_rows >= ENOUGH_ROWS:
            return []
        few = f"only {self.distinct_rows} distinct rows of data ({ENOUGH_ROWS} or more are wanted)"
        return [f"the proof is drawn from {few}: answers may differ on rows unlike them"]


@dataclass(frozen=True)
class Source:
    """One place where rows of the model may be found."""

    origin: str
    """Its name in the proof; without an address, which may be private."""
    read: Callable[[], tables.Table]
    """Raises ExportError if it cannot be read."""


def of_file(path: Path, schema: Schema) -> Source:
    """The file that the user names."""
    return Source(f"the file {path.name}", lambda: tables.read(path, _text_columns(schema)))


def logged(fetched: FetchedModel, schema: Schema) -> Iterator[Source]:
    """The sources to try, best first: the datasets logged to the model's run, then its input
    example.

    Raises:
        InfrastructureError: MLflow does not say what was logged.
    """
    for entry in _logged(fetched):
        yield Source(
            f"the dataset {entry.dataset.name!r} logged to the run",
            _Logged(entry, _text_columns(schema)).read,
        )
    if fetched.input_example is not None:
        example, width = fetched.input_example, len(schema.columns)
        yield Source("the model's input example", lambda: example_table(example, width))


def _text_columns(schema: Schema) -> frozenset[str]:
    """Columns of a CSV whose values are text even where they look like numbers."""
    return frozenset(
        c.name
        for c in schema.columns
        if c.kind == "text" or (c.categories and isinstance(c.categories[0], str))
    )


def _logged(fetched: FetchedModel) -> list[DatasetInput]:
    """The datasets logged to the run, training data first."""
    if fetched.origin.run_id is None:
        return []
    try:
        inputs = mlflow.get_run(fetched.origin.run_id).inputs
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []  # the model was registered from another server: its run is not on this one
        # Using the input example instead would weaken the proof because of a temporary failure.
        raise InfrastructureError(
            f"cannot read the datasets of the model's run: {sentence(error)}"
        ) from error
    entries = [] if inputs is None else inputs.dataset_inputs
    return sorted(
        entries, key=lambda entry: not any(tag.value in ("training", "train") for tag in entry.tags)
    )


class _Logged:
    """One dataset that was logged to a run."""

    def __init__(self, entry: DatasetInput, text_columns: frozenset[str]) -> None:
        self._type = str(entry.dataset.source_type)
        self._source = str(entry.dataset.source)
        self._text_columns = text_columns

    def read(self) -> tables.Table:
        """Read it from the address that was logged.

        Raises:
            ExportError: it has no address, or cannot be read.
            InfrastructureError: it is among MLflow's artifacts, and their store does not answer.
        """
        if self._type == "code":
            raise ExportError("it was logged without a source")
        address = self._address()
        if self._type == "local":
            return self._at(
                Path(unquote(urlsplit(address).path))
                if address.startswith("file:")
                else Path(address),
                address,
            )
        with tempfile.TemporaryDirectory() as folder:
            return self._at(_fetched(address, Path(folder)), address)

    def _at(self, path: Path, address: str) -> tables.Table:
        try:
            return tables.read(path, self._text_columns)
        except ExportError as error:
            raise ExportError(f"{redact(address)}: {error}") from error

    def _address(self) -> str:
        try:
            source = json.loads(self._source)
        except ValueError:
            source = {}
        address = (source.get("url") or source.get("uri")) if isinstance(source, dict) else None
        if not isinstance(address, str) or not address:
            raise ExportError(f"its source is of the type {self._type!r}, which is not read here")
        return address


def _fetched(address: str, folder: Path) -> Path:
    own = _own_artifact(address)
    try:
        return download(own or address, folder)
    except ExportError as error:
        if own and isinstance(error, InfrastructureError):
            raise InfrastructureError(
                f"cannot fetch the model's data from MLflow: {error}"
            ) from error
        raise ExportError(f"{redact(address)}: {error}") from error


def _own_artifact(url: str) -> str | None:
    """The mlflow-artifacts: URI of an artifact on MLflow's server, to be fetched with MLflow's
    credentials; None for any other address."""
    server, found, path = url.partition(_PROXY)
    return (
        f"mlflow-artifacts:/{path}"
        if found and server.rstrip("/") == mlflow.get_tracking_uri().rstrip("/")
        else None
    )


def columns_for(frame: pd.DataFrame, schema: Schema, answers: Answers) -> pd.DataFrame:
    """The model's columns of a table: by name; for a model of an unnamed matrix the first ones,
    after an index and the labels are removed."""
    if schema.named or columns_of(frame, schema)[1]:
        return frame
    width = len(schema.columns)
    if frame.shape[1] > width and _is_index(frame.iloc[:, 0], str(frame.columns[0])):
        frame = frame.iloc[:, 1:]
    if frame.shape[1] == width + 1:
        labels = set(map(str, answers.classes))
        like_labels = [
            i
            for i in range(width + 1)
            if labels and set(map(str, frame.iloc[:, i].dropna().unique())) == labels
        ]
        if len(like_labels) == 1:
            frame = frame.drop(columns=frame.columns[like_labels[0]])
    return frame


def _is_index(column: pd.Series, name: str) -> bool:
    """True for the index column that `to_csv` writes by default."""
    if not name.startswith("Unnamed: ") and name not in ("", "index"):
        return False
    values = column.to_numpy()
    return values.dtype.kind in "iu" and bool((np.diff(values) == 1).all())


def pack(
    table: tables.Table, origin: str, schema: Schema, made: Mapping[int, str] | None = None
) -> Data:
    """Turn a table into packed rows, leaving out those with values that the server refuses.

    Args:
        table: with the model's columns.
        origin: where it is from, in words.
        schema: of the model.
        made: columns of which a function makes the categories → its step.

    Raises:
        ExportError: a column is missing, or no row is left.
        NoSuchRowError: no row is left, because of a function.
    """
    packed, known = from_frame(table.frame, schema)
    others = table.frame[~known][:_MOST_REFUSED]
    refused = refused_values(others, schema, made or {})
    if not known.any():
        is_made = refused != refused_values(others, schema, {})  # a function is named
        kind = NoSuchRowError if is_made else ExportError
        raise kind(f"no row holds only values that the model takes: {refused}")
    kept = packed[known]
    shown = f"the first {len(packed):,} rows of {origin}" if table.cut else origin
    return Data(kept, shown, int((~known).sum()), _distinct(kept), refused=refused)


def _distinct(packed: Matrix) -> int:
    return int((~pd.DataFrame(packed).duplicated()).sum())


def reason_of(error: Exception) -> str:
    """Why a source cannot be used, in one line.

    Raises:
        Exception: the error itself, if the source is not its cause: MLflow does not answer, or
            memory is short.
    """
    if isinstance(error, InfrastructureError) or is_memory_error(error):
        raise error
    if isinstance(error, ExportError):
        return sentence(error, 300)
    return f"its rows cannot be read{plain(error, 300)}"


def no_data_error(unused: list[str]) -> ExportError:
    """The error for a model without a usable source."""
    why = "; ".join(unused) or "no dataset is logged to its run, and it has no input example"
    return DataError(f"no data to prove the model on: {why}; {_ADVICE}")


def too_few_rows_error(data: Data) -> ExportError:
    """The error for data with a single distinct row."""
    before = "".join(f"; {reason}" for reason in data.unused)
    return DataError(
        f"{data.origin} holds a single distinct row, which proves nothing{before}; {_ADVICE}"
    )


def data_summary(data: Data) -> str:
    """One line: which source is used, how many rows it has, and why others were not used."""
    rows = len(data.packed)
    left_out = (
        f" ({data.unknown_rows:,} left out: they hold {data.refused})" if data.unknown_rows else ""
    )
    line = (
        f"rows drawn from {data.origin}: {rows:,} {'row' if rows == 1 else 'rows'}, "
        f"{data.distinct_rows:,} of them distinct{left_out}"
    )
    hidden = len(data.unused) - _SHOWN_REASONS
    unused = [*data.unused[:_SHOWN_REASONS], *([f"{hidden} more"] if hidden > 0 else [])]
    return shorten(line + (f"; not used: {'; '.join(unused)}" if unused else ""))
