"""Loads a bundle, compares its golden rows and warms it up. `halfcore predict` and the sandbox need
no more, and start sooner without the parts of a server."""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from halfcore.bundle import Bundle, BundleError, Golden, Manifest
from halfcore.pipeline.cost import Cost
from halfcore.pipeline.engine import Engine, EngineError, Result
from halfcore.pipeline.schema import Schema

WARM_UP_RUNS = 5


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is loaded, checked and warm, and has no queue yet."""

    manifest: Manifest
    schema: Schema
    engine: Engine
    cost: Cost


def prepare(source: Bundle, *, max_batch_size: int) -> Prepared:
    """Load a bundle, compare its answers with the golden ones, and warm it up: the long part, in
    any thread.

    Raises:
        BundleError: the runtime cannot load the graph, the graph differs from the manifest, or a
            golden row gets another answer.
    """
    manifest = source.manifest
    schema = Schema.of(manifest)
    try:
        engine = Engine(
            source.model_file,
            dtype=manifest.dtype,
            columns=schema.width,
            outputs=manifest.outputs,
        )
    except EngineError as error:
        raise BundleError("graph", source.path, source.model_file.name, str(error)) from error
    golden = _check_golden(engine, schema, source)
    return Prepared(manifest, schema, engine, _warm_up(engine, golden, max_batch_size))


def _check_golden(engine: Engine, schema: Schema, source: Bundle) -> bytes:
    """Run the golden rows one by one and together; return the first of them, packed."""
    manifest = source.manifest
    packed = _packed_golden(schema, source)
    try:
        together = engine.infer(b"".join(packed), len(packed))
        alone = [engine.infer(payload, 1)[0] for payload in packed]
    # The runtime has one exception class per status code, and its messages quote the graph.
    except Exception as error:
        reason = (
            str(error)
            if isinstance(error, EngineError)
            else f"the model failed: {type(error).__name__}"
        )
        raise BundleError("golden", source.path, "golden", reason) from error
    for number, (golden, *answers) in enumerate(zip(manifest.golden, together, alone, strict=True)):
        for answer in answers:
            if problem := _difference(manifest, golden, answer):
                raise BundleError("golden", source.path, f"golden[{number}]", problem)
    return packed[0]


def _packed_golden(schema: Schema, source: Bundle) -> list[bytes]:
    packed = []
    for number, golden in enumerate(source.manifest.golden):
        try:
            packed.append(schema.pack([golden.row[name] for name in schema.names]))
        except (KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
            raise BundleError("golden", source.path, f"golden[{number}].row", repr(error)) from None
    return packed


def _difference(manifest: Manifest, golden: Golden, result: Result) -> str | None:
    """How an answer differs from the golden one by more than the parity tolerance, or None."""
    tolerance = max(manifest.parity.tolerance, manifest.parity.accepted or 0.0)
    if manifest.task == "regression":
        return _value_difference(golden, result, tolerance)
    count = len(manifest.classes)
    if not 0 <= result[0] < count or (len(result) > 1 and len(result[1]) != count):
        return (
            f"label {result[0]} and {len(result[-1]) if len(result) > 1 else 'no'} probabilities, "
            f"expected {count} classes"
        )
    if golden.probabilities is not None and len(result) > 1:
        if problem := _probability_difference(golden.probabilities, result[1], tolerance):
            return problem
        best = sorted(golden.probabilities)[-2:]
        if best[-1] - best[0] < manifest.parity.tie_band:
            return None
    label = manifest.classes[result[0]]
    if label == golden.prediction:
        return None
    return f"prediction {label!r}, expected {golden.prediction!r}"


def _probability_difference(
    expected: Sequence[float], found: Sequence[float], tolerance: float
) -> str | None:
    if (
        len(expected) != len(found)
        or max(abs(a - b) for a, b in zip(found, expected, strict=True)) > tolerance
    ):
        return f"probabilities {found}, expected {expected} within {tolerance:g}"
    return None


def _value_difference(golden: Golden, result: Result, tolerance: float) -> str | None:
    values, expected = _flat(result[0]), _flat(golden.prediction)
    same = len(values) == len(expected) and all(
        abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(values, expected, strict=True)
    )
    return None if same else f"answer {values}, expected {expected}"


def _flat(value: Any) -> list[float]:
    return [float(item) for item in value] if hasattr(value, "__len__") else [float(value)]


def _warm_up(engine: Engine, row: bytes, max_batch_size: int) -> Cost:
    """Run the smallest and the largest batch a few times: first runs are slow, and the batcher
    needs the cost of a batch."""
    cost = Cost()
    for rows in (1, max_batch_size):
        payload = row * rows
        for run in range(WARM_UP_RUNS):
            # This thread's CPU time: while the event loop is busy, wall time would mostly be
            # waiting.
            start = time.thread_time()
            engine.infer(payload, rows)
            if run:
                cost.learn(rows, time.thread_time() - start)
    return cost
