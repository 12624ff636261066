"""Composes the manifest, field by field as docs/bundle-format.md lists them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.bundle import tools
from model_export.bundle.write import MODEL_FILE
from model_export.distribution import distribution
from model_export.prove.cautions import cautions
from model_export.prove.compare import BATCH_SIZES
from model_export.prove.function import predict_function
from model_export.study.rows import to_json, to_json_value

if TYPE_CHECKING:
    from model_export.prove.prove import Proof
    from model_export.study.schema import Column
    from model_export.study.study import StudiedModel

FORMAT = 1
_GOLDEN_ROWS = 32
_GOLDEN_VALUES = 60_000
"""In all golden rows together: about 2 MB of JSON. Servers that follow a registry accept manifests
of up to 8 MiB."""
_FEWEST_GOLDEN_ROWS = 4
_EXACT = 2.0**53
"""The largest integer up to which a double holds each."""


def compose(studied: StudiedModel, proof: Proof) -> dict[str, Any]:
    """The manifest of a proven model."""
    origin, schema, answers = studied.fetched.origin, studied.schema, studied.answers
    distributed = distribution(
        studied.data.packed, schema, proof.truth, len(answers.classes), proof.candidate.dtype
    )
    return {
        "format": FORMAT,
        "name": origin.name,
        "version": origin.version,
        "created_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "task": answers.task,
        "source": _source(studied),
        "inputs": [
            _input(column, studied.data.packed[:, i], proof.limit)
            for i, column in enumerate(schema.columns)
        ],
        "named": schema.named,
        "dtype": proof.candidate.dtype,
        "classes": list(answers.classes),
        "outputs": list(answers.outputs),
        "onnx": _onnx(proof),
        "tools": tools.versions(),
        "parity": _parity(studied, proof),
        "golden": _golden(studied, proof),
        **(
            {"ignored": [{"name": column.name, "type": column.type} for column in schema.ignored]}
            if schema.ignored
            else {}
        ),
        **({"distribution": distributed} if distributed else {}),
    }


def _source(studied: StudiedModel) -> dict[str, Any]:
    origin, function = studied.fetched.origin, predict_function(studied.fetched)
    return {
        "uri": origin.uri,
        "resolved": origin.resolved,
        "run_id": origin.run_id,
        "model_id": origin.model_id,
        "flavor": studied.fetched.flavor,
        "model_class": _class_name(studied),
        **({"predict_function": function} if function != "predict" else {}),
    }


def _class_name(studied: StudiedModel) -> str:
    """The estimator's class with that of its last step: `Pipeline(RandomForestClassifier)`."""
    outer, final = type(studied.fetched.estimator).__name__, type(studied.anatomy.final[1]).__name__
    return outer if outer == final else f"{outer}({final})"


def _input(column: Column, seen: np.ndarray[Any, Any], limit: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "kind": column.kind, "nullable": column.nullable}
    if column.text is not None:
        entry["text"] = column.text.manifest()
    elif column.is_index:
        entry["categories"] = list(column.categories)
        if column.unknown:
            entry["accepts_unknown"] = True
    values = seen[seen < len(column.categories)] if column.is_index else seen[~np.isnan(seen)]
    bounded = column.is_numeric and len(values) > 0
    entry["minimum"] = to_json_value(float(values.min()), column) if bounded else None
    entry["maximum"] = to_json_value(float(values.max()), column) if bounded else None
    if domain := _domain(column, limit):
        entry["domain"] = [to_json_value(bound, column) for bound in domain]
    entry["example"] = to_json_value(float(values[0]) if len(values) else 0.0, column)
    return entry


def _domain(column: Column, limit: float | None) -> tuple[float, float] | None:
    """The least and the largest number that the proof covers; None for all of float32.

    MLflow refuses an integer that the column's type cannot hold, or NumPy makes another one of it.
    """
    found = None if limit is None or not column.is_numeric else (-limit, limit)
    bounds = np.iinfo(column.dtype) if column.kind == "integer" else None
    if bounds is None or bounds.min < -_EXACT:
        return found
    least, most = found or (-np.inf, np.inf)
    return max(least, float(bounds.min)), min(most, float(bounds.max), _EXACT)


def _onnx(proof: Proof) -> dict[str, Any]:
    model = proof.candidate.model
    return {
        "file": MODEL_FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "size_bytes": len(model),
        "ir_version": proof.candidate.ir_version,
        "opset": proof.candidate.opset,
    }


def _parity(studied: StudiedModel, proof: Proof) -> dict[str, Any]:
    comparison = proof.comparison
    return {
        "passed": comparison.passed,
        "rows": proof.truth.size,
        "repeated_rows": proof.truth.repeated,
        **({"rows_reason": proof.size_reason} if proof.size_reason else {}),
        "threshold_rows": proof.truth.rows_of("thresholds"),
        "boundary_rows": proof.truth.rows_of("around the decision boundary"),
        "batch_sizes": list(BATCH_SIZES),
        "label_mismatches": comparison.mismatches,
        "ties": comparison.ties,
        "tie_mismatches": comparison.tie_mismatches,
        **_equidistant(proof),
        "tie_band": comparison.tie_band,
        "max_abs_diff": comparison.max_abs_diff,
        "batch_ulps": comparison.batch_ulps,
        "tolerance": comparison.tolerance,
        "accepted": proof.accepted,
        "seconds": round(proof.seconds, 1),
        "reference": proof.reference,
        "data_origin": studied.data.origin,
        "data_rows": len(studied.data.packed),
        "distinct_rows": studied.data.distinct_rows,
        "warnings": cautions(studied, proof),
    }


def _equidistant(proof: Proof) -> dict[str, int]:
    """Rows with several right choices of neighbours; nothing for a model without neighbours."""
    if proof.truth.tied is None:
        return {}
    comparison = proof.comparison
    return {
        "equidistant_rows": comparison.tied_rows,
        "equidistant_mismatches": comparison.tied_differ,
    }


def _golden(studied: StudiedModel, proof: Proof) -> list[dict[str, Any]]:
    """Rows of the data, then rows of every other group; no ties, for which either label is right,
    and no rows to which the model has no finite answer: the server refuses them."""
    settled = proof.truth.clear(proof.comparison.tie_band)
    # JSON has no infinity, and the server answers none.
    for scores in (proof.truth.scores, proof.comparison.scores):
        settled &= np.isfinite(scores).all(axis=1)
    if studied.answers.task == "classification":
        settled &= proof.comparison.label == proof.truth.label
    most = max(
        _FEWEST_GOLDEN_ROWS, min(_GOLDEN_ROWS, _GOLDEN_VALUES // len(studied.schema.columns))
    )
    chosen = _spread(proof, settled, most)
    rows = proof.truth.sample.take(chosen)
    _, first = np.unique(rows, axis=0, return_index=True)
    return [_golden_row(studied, proof, rows[i], chosen[i]) for i in sorted(first.tolist())]


def _spread(proof: Proof, usable: np.ndarray[Any, np.dtype[np.bool_]], most: int) -> list[int]:
    """Indices of usable rows: half of them from the data, the others evenly from all other
    groups."""
    counts = [group.count for group in proof.truth.sample.groups]
    ends = np.cumsum(counts)
    data, *others = [
        end - size + np.flatnonzero(usable[end - size : end])
        for end, size in zip(ends, counts, strict=True)
    ]
    others = [indices for indices in others if len(indices)]
    chosen = _evenly(data, most // 2)
    places = [
        index for indices in others for index in _evenly(indices, -(-(most // 2) // len(others)))
    ]
    return chosen + _evenly(np.asarray(places, dtype=np.int64), most // 2)


def _evenly(indices: np.ndarray[Any, Any], count: int) -> list[int]:
    """At most `count` of the indices, evenly spread, the last one included."""
    places = np.unique(np.linspace(len(indices) - 1, 0, min(count, len(indices)), dtype=int))
    return [int(index) for index in indices[places]]


def _golden_row(
    studied: StudiedModel, proof: Proof, row: np.ndarray[Any, Any], i: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {"row": to_json(row, studied.schema)}
    if studied.answers.task == "regression":
        values = proof.truth.scores[i].tolist()
        entry["prediction"] = values[0] if len(values) == 1 else values
        return entry
    entry["prediction"] = studied.answers.classes[int(proof.truth.label[i])]
    if "probabilities" in studied.answers.outputs:
        entry["probabilities"] = proof.truth.scores[i].tolist()
    return entry
