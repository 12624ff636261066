"""Coverage-guided fuzzing of what reads a request's body: `just prove-fuzz`. The exit code tells.

Every body, in every protocol, for models of numbers, of mixed columns and of text, is either read
or refused with a `Problem` of status 4xx that can be written in the protocol's form. Anything else
ends the run with the body. What the quick way reads, the whole way reads as well, to the same rows.
What is done with long bodies is done here with short ones, in chunks and slices of a few bytes: the
rows are those of the same body in one piece, and JSON in slices has the value of one parse.

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
    from halfcore.pipeline import decode, explain, json_slices
    from halfcore.pipeline.decode import Decoder, Rows
    from halfcore.pipeline.scan import BrokenText
    from halfcore.pipeline.schema import Rule, Schema
    from halfcore.predict.admission import Head
    from halfcore.predict.coding import expand
    from halfcore.predict.prediction import refusal
    from halfcore.predict.protocols import forms, inference, mlflow, mlflow_columns
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
MODELS = 3
NOTED_EVERY = 10_000
"""Bodies after which their number is noted."""
PROTOCOLS = Path(__file__).parents[1] / "protocols"
JSON = Head("application/json", None, None)
CSV = Head(CSV_TYPE, None, None)
TEXT: dict[str, Any] = {
    "name": "review",
    "kind": "text",
    "nullable": False,
    "example": "good service",
    "text": {
        "analyzer": "word",
        "lowercase": True,
        "strip_accents": "unicode",
        "pattern": r"(?u)\b\w\w+\b",
        "stop_words": ["the"],
        "tokens": ["bad", "good", "service"],
        "max_length": 60,
        "slots": 8,
    },
}
WRITTEN = {"review": "Good, the service", "mass": 1.5, "island": "Dream"}
"""A row of the model of texts."""
WRITTEN_SUM = 7.5
"""Its packed values, the tokens `good` and `service` and no token six times among them."""
Read = Callable[[LoadedModel, bytes], bytes | None]
"""Reads a body to packed rows; None if it was refused, or is no body of rows."""
LENGTHS = (
    (decode, "SHORT_BODY_BYTES"),
    (decode, "CHUNK_BYTES"),
    (explain, "SLICE_BYTES"),
    (forms, "SHORT_BODY_BYTES"),
    (inference, "SHORT_BODY_BYTES"),
    (json_slices, "SLICE_BYTES"),
    (mlflow, "SHORT_BODY_BYTES"),
    (mlflow, "USUAL_BYTES"),
    (mlflow_columns, "_CHUNK_BYTES"),
)
"""From which length on a body is read in pieces, and how long these are."""


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


def by_predict(model: LoadedModel, body: bytes) -> bytes | None:
    """`/predict`."""
    try:
        rows = model.decoder.decode(body)
    except Problem as problem:
        refused(problem, None)
        return None
    whole(model, rows)
    return rows.payload


def by_wire(make: Callable[[], Wire], head: Head) -> Read:
    """Another protocol: the quick way, then the whole one."""

    def read(model: LoadedModel, body: bytes) -> bytes | None:
        wire = make()
        quick = None
        try:
            quick = wire.quick(model, body, head)
            call = finished(wire.read(model, body, head, lambda _: None))
        except Problem as problem:
            refused(problem, wire)
            if quick is not None:
                raise WrongError("the quick way reads it, the whole one does not") from problem
            return None
        whole(model, call.rows)
        payload: bytes = call.rows.payload
        if quick is not None and quick.rows.payload != payload:
            raise WrongError("the quick way reads other rows")
        return payload

    return read


def as_long(read: Read, *, last_counts: bool = True) -> Read:
    """The same body in one piece, and as if it were long; the first byte is the length of the
    pieces.

    Args:
        read: reads it.
        last_counts: the last of two equal names counts. A typed parse then refuses a wrong first
            one, which the parse in slices does not keep.
    """

    def both(model: LoadedModel, body: bytes) -> None:
        size, body = 1 + body[0] if body else 1, body[1:]
        in_one_piece = read(model, body)
        if len(body) <= size:
            return
        usual = [getattr(module, name) for module, name in LENGTHS]
        try:
            for module, name in LENGTHS:
                setattr(module, name, size)
            in_pieces = read(model, body)
        finally:
            for (module, name), value in zip(LENGTHS, usual, strict=True):
                setattr(module, name, value)
        if in_pieces != in_one_piece:
            if last_counts and in_one_piece is None and named_twice(body):
                return
            raise WrongError(f"in pieces of {size} bytes {in_pieces!r}, else {in_one_piece!r}")

    return both


def named_twice(text: bytes) -> bool:
    """Whether an object in JSON has two equal names."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found |= len({name for name, _ in pairs}) < len(pairs)

    json.loads(text.decode(), object_pairs_hook=look)
    return found


def binary(model: LoadedModel, body: bytes) -> None:
    """The inference protocol with binary tensors: the first byte is the length of the JSON part in
    units of eight bytes."""
    head = JSON._replace(json_length=str(8 * body[0] if body else 0))
    by_wire(Inference, head)(model, body[1:])


def sliced(_: LoadedModel, body: bytes) -> None:
    """JSON in slices; the first byte is their length."""
    usual, json_slices.SLICE_BYTES = json_slices.SLICE_BYTES, 1 + body[0] if body else 1
    text = body[1:]
    try:
        wanted = repr(msgspec.json.decode(text))
    except (ValueError, RecursionError):
        wanted = ""
    try:
        steps = json_slices.json_in_slices(
            text, max_rows=sys.maxsize, reserve=lambda _: None, decode=msgspec.json.decode
        )
        found = repr(finished(steps))
    except BrokenText as error:
        found = wanted if "nested" in error.reason else ""
    finally:
        json_slices.SLICE_BYTES = usual
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


PIECES = (b"\x01", b"\x0f", b"\x4f")
WAYS: tuple[tuple[Read, tuple[bytes, ...]], ...] = (
    (by_predict, (b"",)),
    (by_wire(Scoring, JSON), (b"",)),
    (by_wire(Scoring, CSV), (b"",)),
    (by_wire(Instances, JSON), (b"",)),
    (by_wire(Inference, JSON), (b"",)),
    (binary, (b"\x0a",)),
    (sliced, PIECES),
    (coded("gzip"), (b"",)),
    (coded("deflate"), (b"",)),
    (as_long(by_predict, last_counts=False), PIECES),
    (as_long(by_wire(Scoring, JSON)), PIECES),
    (as_long(by_wire(Inference, JSON)), PIECES),
)
"""Each with what its seeds begin with."""


async def models(folder: Path, executor: ThreadPoolExecutor) -> list[LoadedModel]:
    """Of numbers, of mixed columns, and of a text with columns that may be absent; a batcher, which
    nothing here uses, wants a loop."""
    width = TEXT["text"]["slots"] + 2
    paths = [
        write_bundle(folder, "numbers", inputs=NUMBERS),
        write_bundle(folder, "mixed", inputs=MIXED, changes={"named": True}),
        write_bundle(
            folder,
            "texts",
            inputs=[NUMBERS[0] | {"name": f"x{i}"} for i in range(width)],
            task="regression",
            changes={
                "inputs": [TEXT, MIXED[1], MIXED[0] | {"accepts_unknown": True}],
                "ignored": [{"name": "customer", "type": "string"}],
                "named": True,
                "golden": [{"row": WRITTEN, "prediction": WRITTEN_SUM}],
            },
        ),
    ]
    return [
        refined(
            load(
                bundle.read(path),
                metrics=ModelMetrics(),
                limits=replace(LIMITS, max_rows=MOST_ROWS),
                executor=executor,
            )
        )
        for path in paths
    ]


def refined(model: LoadedModel) -> LoadedModel:
    """With a default for `mass` of the model of texts, as a catalogue of features gives it."""
    if model.manifest.name != "texts":
        return model
    manifest = model.manifest
    schema = Schema(
        manifest.inputs, manifest.dtype, {"mass": Rule(default=4000.0)}, manifest.ignored
    )
    return replace(model, schema=schema, decoder=Decoder(schema, max_rows=MOST_ROWS))


def seeds() -> Iterator[bytes]:
    """The bodies of the other tests, for each way and model."""
    bodies = [
        *(case.body for case in REFUSED),
        dumped(RIGHT),
        dumped([RIGHT, RIGHT]),
        b'{"features":[1,2,3,4]}',
        b'{"features":[[1,2,3,4],[5,6,7,8]]}',
        dumped({"dataframe_records": [RIGHT]}),
        dumped({"dataframe_split": {"columns": list(RIGHT), "data": [list(RIGHT.values())] * 2}}),
        dumped({"inputs": {name: [value, value] for name, value in RIGHT.items()}}),
        b'{"inputs":{"x0":[1,2],"x1":[3,4],"x2":[5,6],"x3":[7,8]},"params":{}}',
        dumped(WRITTEN),
        dumped([WRITTEN, WRITTEN | {"customer": "c"}, {"review": "bad"}]),
        dumped({"instances": [WRITTEN, WRITTEN]}),
        dumped({"inputs": {name: [value, value] for name, value in WRITTEN.items()}}),
        b"x0,x1,x2,x3\n1,2,3,4\n",
        b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}',
        *recorded(),
    ]
    for number, (_, starts) in enumerate(WAYS):
        for start in starts:
            for model in range(MODELS):
                choice = bytes([model, number]) + start
                yield from (choice + body for body in bodies if len(body) < MOST_SEED)


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
    words = {
        *RIGHT,
        *map(str, RIGHT.values()),
        *WRITTEN,
        *map(str, WRITTEN.values()),
        *(str(column["name"]) for column in NUMBERS),
    }
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
                read, _ = WAYS[data[1] % len(WAYS)]
                read(served[data[0] % MODELS], data[2:])

        words = Path(folder) / "words"
        words.write_text(dictionary())
        replayed = any(not word.startswith("-") for word in sys.argv[1:])
        atheris.Setup([*sys.argv, *([] if replayed else [f"-dict={words}", str(corpus)])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
