"""Scores tables with a bundle: a file is read and converted in chunks, the model runs in threads
next to that, and the answers are written in order."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from halfcore import bundle, host
from halfcore.bundle import BundleError, Manifest
from halfcore.models.preparing import prepare
from halfcore.offline import answers, files
from halfcore.offline.answers import Answers, Form, Writer
from halfcore.offline.convert import Converted, Converter
from halfcore.offline.sources import Chunk, FileError, Wanted

BATCH_ROWS = 1024
"""Rows of one run of the model: more are not faster, and the processor's cache holds these."""
MOST_REPORTED = 20
"""Wrong rows of a file that are reported each; the others are counted."""
NOT_FINITE = "the model has no finite answer to these values"


class Scored(NamedTuple):
    """What became of a file."""

    rows: int
    wrong: int
    """Rows without an answer."""


class Table(NamedTuple):
    """A file and its format: `csv`, `jsonl` or `parquet`."""

    path: str
    """`-`: standard input or output."""
    kind: str


Report = Callable[[int, str], None]
"""Gets the line of a wrong row, and what is wrong with it."""
Show = Callable[[float, int], None]
"""Gets the share of the file that is scored, and the rows."""


def quiet(_: float, __: int) -> None:
    """Show no progress."""


def threads_of(machine: int = 0) -> int:
    """Threads of the model: a core each, as many as this process may use.

    Args:
        machine: cores; 0: those that this process is allowed to run on.
    """
    cores = machine or len(os.sched_getaffinity(0))
    return max(1, min(cores, int(host.cpu_quota() or cores)))


def newest(path: Path) -> Path:
    """The bundle, or the newest of a folder of one model's bundles.

    Raises:
        BundleError: a manifest cannot be read.
        FileError: there is no bundle.
    """
    if (path / bundle.MANIFEST_FILE).exists():
        return path
    found = sorted(file.parent for file in path.glob(f"*/{bundle.MANIFEST_FILE}"))
    if not found:
        raise FileError(
            f"{path}: no bundle, expected a folder with manifest.json and model.onnx; "
            "`model-export export` makes one"
        )
    return max(found, key=lambda each: bundle.read_manifest(each, any_name=True).created_at)


class Scorer:
    """A loaded bundle, for any number of files.

    Args:
        path: the bundle.
        threads: that run the model; 1: it runs between reading and writing.
        keep: names of columns that are copied to the answers.

    Attributes:
        manifest: of the bundle.

    Raises:
        BundleError: the bundle cannot be served.
        FileError: the answers have a column that is to be copied.
    """

    def __init__(self, path: Path, *, threads: int = 1, keep: Sequence[str] = ()) -> None:
        # Nothing is warmed up: the first chunk does it, and no request waits.
        prepared = prepare(bundle.read(path, any_name=True), max_batch_size=1)
        self.manifest: Manifest = prepared.manifest
        self._schema, self._engine = prepared.schema, prepared.engine
        self._form = Form.of(prepared.manifest, prepared.engine.number_dtype, keep)
        unnamed = not prepared.manifest.named
        self._wanted = Wanted(prepared.schema.names, by_position=unnamed, keep=keep)
        self._threads = threads

    def score(
        self,
        source: Table,
        target: Table,
        report: Report,
        *,
        show: Show = quiet,
        note: Callable[[Scored], dict[str, str]] = lambda _: {},
    ) -> Scored:
        """Score a file: one answer per row, in order; an empty one for a wrong row.

        Args:
            source: what to read.
            target: what to write.
            report: called for the first `MOST_REPORTED` wrong rows.
            show: called after each chunk.
            note: makes the metadata of a Parquet file.

        Raises:
            FileError: a file cannot be read or written, or a column is missing.
        """
        run = _Run(self, source, report)
        with answers.writing(target.path, target.kind, self._form) as writer:
            for chunk in self._chunks(run, source, writer):
                show(chunk.done, run.rows)
            scored = Scored(run.rows, run.wrong)
            writer.close(note(scored))
        return scored

    def converter(self, kind: str) -> Converter:
        """For a file of this format."""
        return Converter(self._schema, text=kind == "csv")

    def infer(self, matrix: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """The model's outputs; none for no rows. Raises `FileError` if it fails."""
        batches = [matrix[at : at + BATCH_ROWS] for at in range(0, len(matrix), BATCH_ROWS)]
        try:
            found = [self._engine.arrays(batch) for batch in batches]
        # The runtime has one exception class per status code, and its messages quote the graph.
        except Exception as error:
            raise FileError(
                f"the model failed: {type(error).__name__}; export it again, or report this"
            ) from error
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _chunks(self, run: "_Run", source: Table, writer: Writer) -> Iterator[Chunk]:
        """Score chunk by chunk; each is yielded when its answers are written."""
        waiting: deque[_Waiting] = deque()
        with _pool(self._threads) as submit:
            for chunk in files.read(source.path, source.kind, self._wanted):
                converted = run.converter.convert(chunk)
                waiting.append(_Waiting(chunk, converted, submit(self.infer, converted.matrix)))
                if len(waiting) > self._threads:
                    yield run.finish(waiting.popleft(), writer)
            while waiting:
                yield run.finish(waiting.popleft(), writer)


class _Waiting(NamedTuple):
    """A chunk that the model runs on."""

    chunk: Chunk
    converted: Converted
    outputs: "Future[list[NDArray[np.generic]]]"


class _Run:
    """One file on its way; counts and reports wrong rows."""

    def __init__(self, scorer: Scorer, source: Table, report: Report) -> None:
        self.converter = scorer.converter(source.kind)
        self._report = report
        self.rows = self.wrong = 0

    def finish(self, waiting: _Waiting, writer: Writer) -> Chunk:
        """Write the answers of a chunk, and report its wrong rows."""
        chunk, converted = waiting.chunk, waiting.converted
        outputs, right = waiting.outputs.result(), converted.right
        if outputs and not (finite := _finite(outputs[-1])).all():
            outputs = [output[finite] for output in outputs]
            right = right.copy()
            right[np.flatnonzero(converted.right)[~finite]] = False
        if not right.all():
            self._report_wrong(chunk, converted, right)
        writer.write(Answers(right, outputs if right.any() else [], chunk.kept))
        self.rows += len(right)
        return chunk

    def _report_wrong(self, chunk: Chunk, converted: Converted, right: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(~right).tolist():
            self.wrong += 1
            if self.wrong <= MOST_REPORTED:
                known = converted.right[row]
                reason = NOT_FINITE if known else self.converter.reason(chunk, row)
                self._report(chunk.lines[row], reason)


def _finite(output: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which rows have only finite numbers."""
    finite: NDArray[np.bool_] = np.isfinite(output).reshape(len(output), -1).all(axis=1)
    return finite


_Task = Callable[[NDArray[np.generic]], list[NDArray[np.generic]]]
_Submit = Callable[[_Task, NDArray[np.generic]], "Future[list[NDArray[np.generic]]]"]


@contextmanager
def _pool(threads: int) -> Iterator[_Submit]:
    """Runs the model in threads, or at once where there is one core."""
    if threads == 1:
        yield _at_once
        return
    pool = ThreadPoolExecutor(threads, "model")
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)


def _at_once(task: _Task, matrix: NDArray[np.generic]) -> "Future[list[NDArray[np.generic]]]":
    done: Future[list[NDArray[np.generic]]] = Future()
    done.set_result(task(matrix))
    return done


__all__ = ["BundleError", "Scored", "Scorer", "Table"]
