"""Scores a table, chunk by chunk: whole columns are converted and checked at once, and only rows
that do not pass are looked at one by one."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from halfcore import bundle
from halfcore.bundle import BundleError, Input, Manifest
from halfcore.models.loading import prepare
from halfcore.offline import files
from halfcore.offline.files import Chunk, FileError
from halfcore.pipeline.engine import Engine, NotFiniteError, Result
from halfcore.pipeline.row_checks import ExpectedRow, RowChecks
from halfcore.pipeline.schema import NUMPY_TYPES, Schema
from halfcore.pipeline.values import as_pandas, from_text

BATCH_ROWS = 1024
"""Rows of one run of the model."""
MOST_REPORTED = 20
"""Wrong rows that are reported each; the others are counted."""


class Scored(NamedTuple):
    """What became of a file."""

    rows: int
    wrong: int
    """Rows without an answer."""


def score(
    bundle_path: Path, source: str, target: str, *, source_kind: str, target_kind: str
) -> Scored:
    """Score a file, and print what is wrong with rows that get no answer.

    Args:
        bundle_path: a bundle, or a folder of one model's bundles, of which the newest counts.
        source: a file, or `-` for standard input.
        target: a file, or `-` for standard output.
        source_kind: `csv`, `jsonl` or `parquet`; so is `target_kind`.

    Raises:
        BundleError: the bundle cannot be served.
        FileError: a file cannot be read or written, or a column is missing.
    """
    prepared = prepare(bundle.read(_newest(bundle_path), any_name=True), max_batch_size=BATCH_ROWS)
    scorer = _Scorer(prepared.manifest, prepared.schema, prepared.engine, text=source_kind == "csv")
    with files.writing(target, target_kind) as write, _progress() as show:
        for chunk in files.read(source, source_kind):
            write(scorer.names, scorer.answers(chunk))
            show(chunk.done, scorer.rows)
    return Scored(scorer.rows, scorer.wrong)


def _newest(path: Path) -> Path:
    """The bundle, or the newest of a model's bundles."""
    if (path / bundle.MANIFEST_FILE).exists():
        return path
    found = sorted(file.parent for file in path.glob(f"*/{bundle.MANIFEST_FILE}"))
    if not found:
        raise FileError(
            f"{path}: no bundle, expected a folder with manifest.json and model.onnx; "
            "`model-export export` makes one"
        )
    return max(found, key=lambda each: bundle.read_manifest(each, any_name=True).created_at)


class _Scorer:
    """Turns chunks into answers.

    Args:
        manifest: of the bundle.
        schema: its columns.
        engine: its model.
        text: whether all values are texts, as in CSV.
    """

    def __init__(self, manifest: Manifest, schema: Schema, engine: Engine, *, text: bool) -> None:
        self._manifest, self._schema, self._engine = manifest, schema, engine
        self._coerce: Callable[[Input, Any], Any] = from_text if text else as_pandas
        self._expected = ExpectedRow(schema)
        self._dtype = np.dtype(NUMPY_TYPES[schema.dtype])
        self.names = _answer_names(manifest)
        self.rows = self.wrong = 0

    def answers(self, chunk: Chunk) -> list[Sequence[Any]]:
        """One answer per row, in order; an empty one for a wrong row."""
        missing = [name for name in self._schema.names if name not in chunk.columns]
        if missing:
            raise FileError(
                f"the columns {', '.join(missing)} are missing; the file has "
                f"{', '.join(chunk.columns)}"
            )
        columns = [chunk.columns[name] for name in self._schema.names]
        matrix, right = self._convert(columns, chunk)
        answers: list[Sequence[Any]] = [("",) * len(self.names)] * chunk.rows
        places = np.flatnonzero(right)
        for at in range(0, len(places), BATCH_ROWS):
            some = places[at : at + BATCH_ROWS]
            for place, result in zip(some, self._infer(matrix[some], chunk, some), strict=True):
                if result is not None:
                    answers[place] = _answer(self._manifest, result)
        self.rows += chunk.rows
        return answers

    def _convert(
        self, columns: Sequence[list[Any]], chunk: Chunk
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The rows as a matrix of the model's type, and which of them are right."""
        matrix = np.zeros((chunk.rows, self._schema.width), self._dtype)
        narrow = self._schema.width == len(columns)
        right = np.full(chunk.rows, narrow)  # rows with a text are packed one by one
        for i, values in enumerate(columns if narrow else ()):
            column = self._schema.inputs[i]
            numbers, good = self._column(i, column, values)
            with np.errstate(over="ignore"):
                matrix[:, i] = numbers
            right &= good
        for row in np.flatnonzero(~right):
            packed = self._checked([values[row] for values in columns], chunk.lines[int(row)])
            if packed is not None:
                matrix[row] = np.frombuffer(packed, self._dtype)
                right[row] = True
        return matrix, right

    def _column(
        self, i: int, column: Input, values: list[Any]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A column's packed numbers, and which are surely right; others are looked at again."""
        nothing = np.zeros(len(values)), np.zeros(len(values), bool)
        if column.kind == "boolean":
            return nothing
        if column.categories is not None:
            return self._codes(i, values) if isinstance(column.categories[0], str) else nothing
        try:
            numbers = np.array(["nan" if value in ("", None) else value for value in values], float)
        except (ValueError, TypeError, OverflowError):
            return nothing
        rule, largest = self._schema.rule(column.name), self._schema.largest
        low = -largest if rule.minimum is None else rule.minimum
        high = largest if rule.maximum is None else rule.maximum
        good = (numbers >= low) & (numbers <= high)
        if column.kind == "integer":
            good &= numbers == np.floor(numbers)
        if column.nullable:
            good |= np.isnan(numbers)
        return numbers, good

    def _codes(self, i: int, values: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        codes = self._schema.codes[i] or {}  # `get` does not find what is unknown
        numbers = np.array([codes.get(value, -1.0) for value in values])
        return numbers, numbers >= 0

    def _checked(self, values: list[Any], line: int) -> bytes | None:
        """One row packed, or None after a report of what is wrong."""
        coerced = [
            self._coerce(column, value)
            for column, value in zip(self._schema.inputs, values, strict=True)
        ]
        checks = RowChecks(self._expected)
        checks.check_vector(coerced, None, "$")
        if not checks.error_count:
            return bytes(checks.packed)
        self._report(line, "; ".join(error.message for error in checks.errors))
        return None

    def _infer(
        self, matrix: NDArray[Any], chunk: Chunk, places: NDArray[Any]
    ) -> Sequence[Result | None]:
        """The results; None, after a report, for rows without a finite answer."""
        try:
            return self._engine.infer(matrix.tobytes(), len(matrix))
        except NotFiniteError:
            if len(matrix) == 1:
                line = chunk.lines[int(places[0])]
                self._report(line, "the model has no finite answer to these values")
                return [None]
            half = len(matrix) // 2
            return [
                *self._infer(matrix[:half], chunk, places[:half]),
                *self._infer(matrix[half:], chunk, places[half:]),
            ]

    def _report(self, line: int, message: str) -> None:
        self.wrong += 1
        if self.wrong <= MOST_REPORTED:
            # A command line writes to its terminal
            print(f"halfcore: line {line}: {message}", file=sys.stderr)  # noqa: T201


def _answer_names(manifest: Manifest) -> list[str]:
    if "probabilities" in manifest.outputs:
        return ["prediction", *[f"probability_{label}" for label in manifest.classes]]
    return ["prediction"]


def _answer(manifest: Manifest, result: Result) -> Sequence[Any]:
    if not manifest.classes:
        value = result[0]
        return [value.tolist() if isinstance(value, np.ndarray) else float(f"{value:.9g}")]
    label = manifest.classes[result[0]]
    return [label, *[float(f"{p:.7g}") for p in result[1]]] if len(result) > 1 else [label]


@contextmanager
def _progress() -> Iterator[Callable[[float, int], None]]:
    """Progress on standard error, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=1.0, rows=0)
        yield lambda done, rows: progress.update(task, completed=done, rows=rows)


__all__ = ["BundleError", "Scored", "score"]
