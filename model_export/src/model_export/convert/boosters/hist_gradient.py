"""Reads scikit-learn's HistGradientBoosting models.

Their trees are arrays of nodes that compare float64 values; categories are tested by bit sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model_export.convert.boosters.ensemble import Ensemble, Link, Tree
from model_export.errors import ExportError

_LINKS: dict[str, Link] = {"IdentityLink": "identity", "LogLink": "exp"}


def read(model: Any) -> Ensemble:
    """The trees of a fitted HistGradientBoostingClassifier or -Regressor.

    Raises:
        ExportError: its loss has a link function that is not known here.
    """
    trees = [
        _tree(predictor, target)
        for iteration in model._predictors  # noqa: SLF001  fitted trees are stored nowhere else
        for target, predictor in enumerate(iteration)
    ]
    base = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()  # noqa: SLF001
    return Ensemble(trees, base, _link(model))


def _link(model: Any) -> Link:
    if hasattr(model, "classes_"):
        return "sigmoid" if len(model.classes_) == 2 else "softmax"
    name = type(model._loss.link).__name__  # noqa: SLF001
    if name not in _LINKS:
        loss = model.loss if isinstance(model.loss, str) else type(model.loss).__name__
        raise ExportError(
            f"the loss {loss!r} has a link function that cannot be converted: train with "
            "loss='squared_error', 'absolute_error', 'quantile', 'poisson' or 'gamma'"
        )
    return _LINKS[name]


def _tree(predictor: Any, target: int) -> Tree:
    tree, nodes, sets = Tree(), predictor.nodes, predictor.raw_left_cat_bitsets
    made = [-1] * len(nodes)
    for i in reversed(range(len(nodes))):
        node = nodes[i]
        if node["is_leaf"]:
            made[i] = tree.leaf({target: float(node["value"])})
            continue
        left, right = made[node["left"]], made[node["right"]]
        feature, missing_left = int(node["feature_idx"]), bool(node["missing_go_to_left"])
        if node["is_categorical"]:
            members = _members(sets[node["bitset_idx"]])
            made[i] = tree.member(feature, members, left, right, missing_true=missing_left)
        else:
            threshold = float(node["num_threshold"])
            made[i] = tree.split(
                feature, threshold, "BRANCH_LEQ", left, right, missing_true=missing_left
            )
    return tree.root_first()


def _members(bits: Any) -> list[int]:
    """The categories of a bit set, which is uint32[8]."""
    return [32 * i + bit for i in range(len(bits)) for bit in range(32) if int(bits[i]) >> bit & 1]
