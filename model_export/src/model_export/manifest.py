"""Composes the manifest, field by field as docs/bundle-format.md lists them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from model_export import tools
from model_export.bundle import MODEL_FILE
from model_export.parity import BATCH_SIZES
from model_export.rows import to_json, to_json_value

if TYPE_CHECKING:
    from model_export.prove import Proof
    from model_export.rows import Matrix
    from model_export.schema import Column
    from model_export.subject import Subject

FORMAT = 1
_GOLDEN_DATA_ROWS = 16
_GOLDEN_OTHER_ROWS = 16


def compose(subject: Subject, proof: Proof) -> dict[str, Any]:
    """The manifest of a proven model."""
    origin, schema, answers = subject.fetched.origin, subject.schema, subject.answers
    return {
        "format": FORMAT,
        "name": origin.name,
        "version": origin.version,
        "created_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "task": answers.task,
        "source": _source(subject),
        "inputs": [_input(column, subject.data.packed[:, i], proof.limit) for i, column in enumerate(schema.columns)],
        "named": schema.named,
        "dtype": proof.candidate.dtype,
        "classes": list(answers.classes),
        "outputs": list(answers.outputs),
        "onnx": _onnx(proof),
        "tools": tools.versions(),
        "parity": _parity(subject, proof),
        "golden": _golden(subject, proof),
    }


def _source(subject: Subject) -> dict[str, Any]:
    origin = subject.fetched.origin
    return {
        "uri": origin.uri,
        "resolved": origin.resolved,
        "run_id": origin.run_id,
        "model_id": origin.model_id,
        "flavor": subject.fetched.flavor,
        "model_class": _class_name(subject),
    }


def _class_name(subject: Subject) -> str:
    """`Pipeline(RandomForestClassifier)` says more than `Pipeline`."""
    outer, final = type(subject.fetched.estimator).__name__, type(subject.anatomy.final[1]).__name__
    return outer if outer == final else f"{outer}({final})"


def _input(column: Column, seen: np.ndarray[Any, Any], limit: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "kind": column.kind, "nullable": column.nullable}
    if column.is_index:
        entry["categories"] = list(column.categories)
    values = seen[seen < len(column.categories)] if column.is_index else seen[~np.isnan(seen)]
    bounded = column.kind in ("number", "integer") and len(values) > 0
    entry["minimum"] = to_json_value(float(values.min()), column) if bounded else None
    entry["maximum"] = to_json_value(float(values.max()), column) if bounded else None
    if limit is not None and column.kind in ("number", "integer"):
        entry["domain"] = [to_json_value(-limit, column), to_json_value(limit, column)]
    entry["example"] = to_json_value(float(values[0]) if len(values) else 0.0, column)
    return entry


def _onnx(proof: Proof) -> dict[str, Any]:
    model = proof.candidate.model
    return {
        "file": MODEL_FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "size_bytes": len(model),
        "ir_version": proof.candidate.ir_version,
        "opset": proof.candidate.opset,
    }


def _parity(subject: Subject, proof: Proof) -> dict[str, Any]:
    comparison = proof.comparison
    return {
        "passed": comparison.passed,
        "rows": len(proof.truth.rows),
        "threshold_rows": proof.truth.threshold_rows,
        "batch_sizes": list(BATCH_SIZES),
        "label_mismatches": comparison.mismatches,
        "ties": comparison.ties,
        "tie_mismatches": comparison.tie_mismatches,
        "tie_band": comparison.tie_band,
        "max_abs_diff": comparison.max_abs_diff,
        "batch_ulps": comparison.batch_ulps,
        "tolerance": comparison.tolerance,
        "accepted": proof.accepted,
        "seconds": round(proof.seconds, 1),
        "reference": proof.reference,
        "data_origin": subject.data.origin,
        "data_rows": len(subject.data.packed),
        "distinct_rows": subject.data.distinct_rows,
        "warnings": subject.data.warnings,
    }


def _golden(subject: Subject, proof: Proof) -> list[dict[str, Any]]:
    """Rows of the data, then rows of every other group in turn; none within the tie band, where either label is right."""
    settled = proof.truth.margin >= proof.comparison.tie_band
    if subject.answers.task == "classification":
        settled &= proof.comparison.label == proof.truth.label
    _, first = np.unique(proof.truth.rows, axis=0, return_index=True)
    distinct = np.zeros(len(settled), dtype=np.bool_)
    distinct[first] = True
    chosen = _spread(proof, settled & distinct)
    return [_golden_row(subject, proof, int(i)) for i in chosen]


def _spread(proof: Proof, usable: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    ends = np.cumsum([size for _, size in proof.truth.groups])
    of_group = [np.flatnonzero(usable[:end]) for end in ends]
    of_group = [indices[indices >= end - size] for indices, end, (_, size) in zip(of_group, ends, proof.truth.groups, strict=True)]
    data = of_group[0]
    chosen = data[np.linspace(0, len(data) - 1, min(_GOLDEN_DATA_ROWS, len(data)), dtype=int)].tolist() if len(data) else []
    others = [int(indices[-1]) for indices in of_group[1:] if len(indices)]
    step = max(1, -(-len(others) // _GOLDEN_OTHER_ROWS))
    # From the end, where the groups of nulls, shuffles and thresholds are; there is one group per edge value before them.
    return [*chosen, *others[::-1][::step]]


def _golden_row(subject: Subject, proof: Proof, i: int) -> dict[str, Any]:
    rows: Matrix = proof.truth.rows
    entry: dict[str, Any] = {"row": to_json(rows[i], subject.schema)}
    if subject.answers.task == "regression":
        values = proof.truth.scores[i].tolist()
        entry["prediction"] = values[0] if len(values) == 1 else values
        return entry
    entry["prediction"] = subject.answers.classes[int(proof.truth.label[i])]
    if "probabilities" in subject.answers.outputs:
        entry["probabilities"] = proof.truth.scores[i].tolist()
    return entry
