"""Says why a proof failed: the worst row with both answers, and the likely cause."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from model_export.prove.thresholds import Affine, trace, tree_splits
from model_export.study.rows import to_json

if TYPE_CHECKING:
    from model_export.prove.prove import Proof
    from model_export.study.arrays import Floats, Ints
    from model_export.study.study import StudiedModel


def has_trees(studied: StudiedModel) -> bool:
    """True for trees and ensembles of them."""
    return next(tree_splits(studied.anatomy.final[1]), None) is not None


def worst_row(studied: StudiedModel, proof: Proof) -> str:
    """The worst row as the client would write it, with both answers."""
    i, truth, mine = proof.comparison.worst, proof.truth, proof.comparison
    registered = _answer(studied, truth.label, truth.scores, i)
    graph = _answer(studied, mine.label, mine.scores, i)
    row = to_json(truth.sample.take([i])[0], studied.schema)
    shown = f"worst row ({truth.sample.group_of(i)}): {_cut(json.dumps(row, ensure_ascii=False))}"
    return f"{shown}\n  registered model: {registered}\n  {proof.candidate.dtype} graph: {graph}"


_MOST_CHARACTERS = 5_000
"""Longest row that is shown."""


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"


def _answer(studied: StudiedModel, label: Ints, scores: Floats, i: int) -> str:
    numbers = ", ".join(f"{score:.9g}" for score in scores[i])
    if studied.answers.task == "regression":
        return numbers
    answer = repr(studied.answers.classes[int(label[i])])
    return f"{answer} ({numbers})" if numbers else answer


def cause(studied: StudiedModel, proof: Proof) -> str:
    """The likely cause of a failed proof, in words."""
    if has_trees(studied) and (of_trees := _cause_of_trees(studied, proof)):
        return f"likely cause: {of_trees}"
    return f"likely cause: {_cause_of_any(type(studied.anatomy.final[1]).__name__, proof)}"


def _cause_of_trees(studied: StudiedModel, proof: Proof) -> str | None:
    row = to_json(proof.truth.sample.take([proof.comparison.worst])[0], studied.schema)
    nulls = [name for name, value in row.items() if value is None]
    if nulls:
        return (
            f"null in {', '.join(nulls)}. The trees were trained to send missing values to a side "
            "of their own, which the converted ones do not (sklearn-onnx#1253). Impute first, or "
            "train without nulls and sign the column as required."
        )
    if _is_scaled(studied) and proof.candidate.dtype == "float32":
        return (
            "a scaler before trees. In float32 it moves values across thresholds; export with "
            "--dtype float64."
        )
    return None


def _cause_of_any(kind: str, proof: Proof) -> str:
    comparison = proof.comparison
    if comparison.unsteady_labels:
        return "the runtime sums in another order for other batch sizes."
    if "KNeighbors" in kind or "RadiusNeighbors" in kind:
        return (
            "neighbours at equal distances, of which scikit-learn and ONNX Runtime choose "
            "different ones. Another number of neighbours, data without repeated values, or fewer "
            "than 16 columns may avoid it."
        )
    if comparison.failing.mean() > _PRECISION_SHARE and comparison.max_abs_diff > _PRECISION:
        return (
            f"skl2onnx {version('skl2onnx')} converts {kind} into a graph that computes something "
            "else; it cannot be served."
        )
    return (
        "the precision, or a converter that differs from scikit-learn. If the difference is "
        "acceptable, allow it with --accept-parity."
    )


_PRECISION = 1e-3
_PRECISION_SHARE = 0.01
"""If more of the rows differ, and by more, precision is not the cause: it fails at edges, near a
change of the label, and far from the data."""


def _is_scaled(studied: StudiedModel) -> bool:
    lineage = trace(studied.anatomy) or []
    return any(
        isinstance(source, Affine) and (source.scale, source.offset) != (1.0, 0.0)
        for source in lineage
    )
