"""Finds the data that a model was trained on, or the nearest thing to it, for the gate to draw its rows from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from model_export.errors import ExportError, InfrastructureError, shorten
from model_export.rows import Matrix, from_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.registry import Fetched
    from model_export.schema import Schema


@dataclass(frozen=True)
class RawData:
    """A table as it was found."""

    frame: pd.DataFrame
    origin: str


@dataclass(frozen=True)
class Data:
    """Rows that the server would let in."""

    packed: Matrix
    origin: str
    unknown_rows: int
    """Rows left out because of a value that the server refuses: an unknown category, say."""


def find(fetched: Fetched, path: Path | None) -> RawData:
    """Read `path`; else the dataset logged to the model's run; else the model's input example.

    Raises:
        ExportError: none of these can be read.
        InfrastructureError: MLflow does not say what was logged.
    """
    if path is not None:
        return RawData(_read_table(path), str(path))
    for found in _logged(fetched):
        return found
    if (example := _input_example(fetched)) is not None:
        return RawData(example, "the model's input example")
    raise ExportError("no data to prove the model on: no dataset is logged to its run and it has no input example; give --data FILE.csv")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not a readable table: {error}") from error


def _logged(fetched: Fetched) -> Iterator[RawData]:
    """Every dataset logged to the run that can still be read, training data first."""
    if fetched.origin.run_id is None:
        return
    try:
        inputs = mlflow.get_run(fetched.origin.run_id).inputs
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return  # a model of another server: its run is not here
        # Going on with the input example would make a weaker proof out of a passing fault.
        raise InfrastructureError(f"the model's run cannot be asked for its data: {shorten(str(error))}") from error
    entries = [] if inputs is None else inputs.dataset_inputs
    for entry in sorted(entries, key=lambda entry: [tag.value for tag in entry.tags] != ["training"]):
        try:
            path = Path(mlflow.data.get_source(entry).load())
            yield RawData(_read_table(path), f"the dataset {entry.dataset.name!r} logged to the run")
        except (MlflowException, ExportError, OSError, AttributeError, TypeError):
            continue  # code as a source, a vanished file, a database: the next one may be readable


def _input_example(fetched: Fetched) -> pd.DataFrame | None:
    example = fetched.input_example
    if example is None:
        return None
    return example if isinstance(example, pd.DataFrame) else pd.DataFrame(np.asarray(example))


def pack(raw: RawData, schema: Schema) -> Data:
    """Turn the table into packed rows, leaving out those with values that the server refuses.

    Raises:
        ExportError: a column is missing, or no row is left.
    """
    packed, known = from_frame(raw.frame, schema)
    if not known.any():
        raise ExportError(f"{raw.origin}: no row holds only values that the model takes")
    return Data(packed[known], raw.origin, int((~known).sum()))
