"""Coverage-guided fuzzing of what reads a request's body: `just prove-fuzz`. The exit code tells.

Every body, in every protocol, for models of numbers, of mixed columns and of text, is either read
or refused with a `Problem` of status 4xx that can be written in the protocol's form. Anything else
ends the run with the body. What the quick way reads, the whole way reads as well, to the same rows;
and JSON that is parsed in slices, here of a few bytes, has the value of one parse.

A file as argument is one body to be read again: what a run that failed has left.

The first two bytes choose model and protocol; the rest is the body. libFuzzer (atheris) looks for
bodies that reach new lines of `halfcore`, from the bodies of the other tests on.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import atheris
import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # for support
with atheris.instrument_imports(include=["halfcore"]):
    from halfcore import bundle
    from halfcore.metrics.counters import ModelMetrics
    from halfcore.models.loading import load
    from halfcore.models.served import LoadedModel
    from halfcore.pipeline import json_slices
    from halfcore.pipeline.decode import Rows
    from halfcore.pipeline.scan import BrokenText
    from halfcore.predict.admission import Head
    from halfcore.predict.coding import expand
    from halfcore.predict.prediction import refusal
    from halfcore.predict.protocols.inference import Inference
    from halfcore.predict.protocols.kserve import Instances
    from halfcore.predict.protocols.mlflow import CSV_TYPE, Scoring
    from halfcore.predict.protocols.protocol import Wire
    from halfcore.problem import Problem

from support.bodies import REFUSED, RIGHT, dumped
from support.bundles import MIXED, NUMBERS, write_bundle
from support.limits import LIMITS
from support.proven import MEASURED

MOST_EXPANDED = 1 << 16
MOST_ROWS = 20
MOST_SEED = 4096
NOTED_EVERY = 10_000
"""Bodies after which their number is noted."""
PROTOCOLS = Path(__file__).parents[1] / "protocols"
JSON = Head("application/json", None, None)
CSV = Head(CSV_TYPE, None, None)
Read = Callable[[LoadedModel, bytes], object]


class WrongError(AssertionError):
    """What must never happen."""


def finished(steps: Any) -> Any:
    """What a generator of steps returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def whole(model: LoadedModel, rows: Rows) -> None:
    """Rows must be as long as they say."""
    if len(rows.payload) != rows.size * model.schema.row_bytes or rows.size < 1:
        raise WrongError(f"{rows.size} rows in {len(rows.payload)} bytes")


def refused(problem: Problem, wire: Wire | None) -> None:
    """A refusal must be one of the client's errors, and can be written."""
    if not 400 <= problem.status < 500:
        raise WrongError(f"status {problem.status}") from problem
    answer = refusal(problem) if wire is None else wire.refusal(problem)
    if not answer.body:
        raise WrongError("a refusal without a body") from problem


def by_predict(model: LoadedModel, body: bytes) -> None:
    """`/predict`."""
    try:
        rows = model.decoder.decode(body)
    except Problem as problem:
        refused(problem, None)
    else:
        whole(model, rows)


def by_wire(make: Callable[[], Wire], head: Head) -> Read:
    """Another protocol: the quick way, then the whole one."""

    def read(model: LoadedModel, body: bytes) -> None:
        wire = make()
        try:
            quick = wire.quick(model, body, head)
            call = finished(wire.read(model, body, head, lambda _: None))
        except Problem as problem:
            refused(problem, wire)
            return
        whole(model, call.rows)
        if quick is not None and quick.rows.payload != call.rows.payload:
            raise WrongError("the quick way reads other rows")

    return read


def binary(model: LoadedModel, body: bytes) -> None:
    """The inference protocol with binary tensors: the first byte is the length of the JSON part in
    units of eight bytes."""
    head = JSON._replace(json_length=str(8 * body[0] if body else 0))
    by_wire(Inference, head)(model, body[1:])


def sliced(_: LoadedModel, body: bytes) -> None:
    """JSON in slices; the first byte is their length."""
    json_slices.SLICE_BYTES, text = 1 + body[0] if body else 1, body[1:]
    steps = json_slices.json_in_slices(
        text, max_rows=sys.maxsize, reserve=lambda _: None, decode=msgspec.json.decode
    )
    try:
        wanted = repr(msgspec.json.decode(text))
    except (ValueError, RecursionError):
        wanted = ""
    try:
        found = repr(finished(steps))
    except BrokenText as error:
        found = wanted if "nested" in error.reason else ""
    if found != wanted:
        raise WrongError(f"parsed as {found}, expected {wanted or 'a refusal'}")


def coded(coding: str) -> Read:
    """A compressed body."""

    def read(_: LoadedModel, body: bytes) -> None:
        try:
            expanded = finished(expand(body, coding, max_bytes=MOST_EXPANDED))
        except Problem as problem:
            refused(problem, None)
        else:
            if len(expanded) > MOST_EXPANDED:
                raise WrongError(f"{len(expanded)} bytes")

    return read


WAYS: tuple[Read, ...] = (
    by_predict,
    by_wire(Scoring, JSON),
    by_wire(Scoring, CSV),
    by_wire(Instances, JSON),
    by_wire(Inference, JSON),
    binary,
    sliced,
    coded("gzip"),
    coded("deflate"),
)


async def models(folder: Path, executor: ThreadPoolExecutor) -> list[LoadedModel]:
    """Of numbers, and of mixed columns; a batcher, which nothing here uses, wants a loop."""
    paths = [
        write_bundle(folder, "numbers", inputs=NUMBERS),
        write_bundle(folder, "mixed", inputs=MIXED, changes={"named": True}),
    ]
    return [
        load(
            bundle.read(path),
            metrics=ModelMetrics(),
            limits=replace(LIMITS, max_rows=MOST_ROWS),
            executor=executor,
        )
        for path in paths
    ]


def seeds() -> Iterator[bytes]:
    """The bodies of the other tests, for each way and model."""
    bodies = [
        *(case.body for case in REFUSED),
        dumped(RIGHT),
        dumped([RIGHT, RIGHT]),
        b'{"features":[1,2,3,4]}',
        dumped({"dataframe_records": [RIGHT]}),
        dumped({"dataframe_split": {"columns": list(RIGHT), "data": [list(RIGHT.values())] * 2}}),
        b"x0,x1,x2,x3\n1,2,3,4\n",
        b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}',
        *recorded(),
    ]
    for way in range(len(WAYS)):
        for number in range(2):
            yield from (bytes([number, way]) + body for body in bodies if len(body) < MOST_SEED)


def recorded() -> list[bytes]:
    """The bodies that were sent to other servers."""
    bodies = set()
    for file in sorted(PROTOCOLS.glob("*.json")):
        for one in json.loads(file.read_text())["recorded"]:
            if isinstance(body := one.get("body"), str):
                bodies.add(body.encode())
            if (document := one.get("document")) is not None:
                bodies.add(dumped(document))
    return sorted(bodies)


def dictionary() -> str:
    """Words that bodies consist of, in libFuzzer's format."""
    words = {*RIGHT, *map(str, RIGHT.values()), *(str(column["name"]) for column in NUMBERS)}
    words |= {"dataframe_split", "dataframe_records", "instances", "inputs", "params", "columns"}
    words |= {"data", "index", "features", "name", "shape", "datatype", "parameters", "outputs"}
    words |= {"FP32", "FP64", "INT64", "BOOL", "BYTES", "binary_data_size", "binary_data", "id"}
    words |= {"predict_method", "predict_proba", "label", "probabilities", "null", "true", "NaN"}
    lines = [f'"{word}"' for word in sorted(words)]
    return "\n".join([*lines, *(rf'"\"{word}\":"' for word in sorted(words))]) + "\n"


def note(measured: str) -> None:
    """Write what was measured until now, for the line that ends the proof."""
    if file := os.environ.get(MEASURED):
        Path(file).write_text(measured)


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        served = asyncio.run(models(Path(folder) / "bundles", executor))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(seed)

        tried = 0

        def one(data: bytes) -> None:
            nonlocal tried
            tried += 1
            if tried % NOTED_EVERY == 0:  # libFuzzer ends the process without a word to Python
                note(f"at least {tried:,} bodies")
            if len(data) >= 2:
                WAYS[data[1] % len(WAYS)](served[data[0] % len(served)], data[2:])

        words = Path(folder) / "words"
        words.write_text(dictionary())
        replayed = any(not word.startswith("-") for word in sys.argv[1:])
        atheris.Setup([*sys.argv, *([] if replayed else [f"-dict={words}", str(corpus)])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
