"""Reads a table of rows from a CSV, Parquet or NPY file, in bounded memory."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
import pandas as pd

from model_export.errors import ExportError, is_memory_error, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

MOST_ROWS = 1_000_000
MOST_CELLS = 50_000_000
"""Rows times columns: 400 MB as doubles."""
_SEPARATORS = ",;\t|"
_OPEN: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_HEADER_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    frame: pd.DataFrame
    cut: bool = False
    """The file holds more rows than were read."""


def read(path: Path, text_columns: frozenset[str] = frozenset()) -> Table:
    """Read the first rows of a file, at most `MOST_ROWS` and `MOST_CELLS`.

    Args:
        path: of the file; its first bytes determine the format, not its name.
        text_columns: columns of a CSV that are text even if they look like numbers (ZIP codes).

    Raises:
        ExportError: it does not exist, is not a file, or does not hold such a table.
    """
    if not path.exists():
        raise ExportError("there is no such file")
    if not path.is_file():
        raise ExportError("it is a folder or a device, expected one CSV, Parquet or NPY file")
    try:
        table = _read_any(path, text_columns)
    except ExportError:
        raise
    except Exception as error:  # pandas, pyarrow and NumPy raise exceptions of many kinds
        if is_memory_error(error):
            raise
        said = understood(error, 200) or "its format is not CSV, Parquet or NPY"
        raise ExportError(f"not a readable table: {said}") from error
    if table.frame.empty:
        raise ExportError("it holds no rows")
    return table


def _read_any(path: Path, text_columns: frozenset[str]) -> Table:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PAR1"):
        return _read_parquet(path)
    if start == b"\x93NUMPY":
        return _read_npy(path)
    return _read_csv(path, text_columns)


def _bounded(columns: int) -> int:
    """How many rows to read."""
    return max(1, min(MOST_ROWS, MOST_CELLS // max(1, columns)))


def _read_csv(path: Path, text_columns: frozenset[str]) -> Table:
    separator, header = _header(path)
    most = _bounded(len(header))
    types: dict[Hashable, type[str]] = {name: str for name in header if name in text_columns}
    frame = pd.read_csv(path, sep=separator, nrows=most + 1, dtype=types)
    return Table(frame.iloc[:most], len(frame) > most)


def _header(path: Path) -> tuple[str, list[str]]:
    """The separator that splits the first line into the most names, and these names."""
    with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        line = file.readline(_HEADER_CHARACTERS)
    if "\0" in line:
        raise ExportError("neither CSV, Parquet nor NPY")
    split = {
        separator: next(csv.reader([line], delimiter=separator), []) for separator in _SEPARATORS
    }
    best = max(_SEPARATORS, key=lambda separator: len(split[separator]))
    return best, split[best]


def _read_parquet(path: Path) -> Table:
    # MLflow depends on pyarrow; imported here because only this format needs it.
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    total = file.metadata.num_rows
    most = _bounded(file.metadata.num_columns)
    if total <= most:
        return Table(pd.read_parquet(path))
    batches, rows = [], 0
    for batch in file.iter_batches(batch_size=min(most, 65_536)):
        batches.append(batch.to_pandas())
        rows += len(batch)
        if rows >= most:
            break
    return Table(pd.concat(batches).iloc[:most], cut=True)


def _read_npy(path: Path) -> Table:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise ExportError(
            f"an array of {array.dtype} with {array.ndim} dimensions, expected a matrix of numbers"
        )
    most = _bounded(array.shape[1])
    return Table(pd.DataFrame(np.array(array[:most])), len(array) > most)
