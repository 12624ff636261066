"""Reads LightGBM models: LGBMClassifier, LGBMRegressor, LGBMRanker and Booster.

LightGBM compares and adds in float64. The source is `Booster.dump_model()`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from model_export.convert.boosters.ensemble import Ensemble, Link, Tree
from model_export.errors import ExportError

ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold."""
_LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
}


def read(model: Any) -> Ensemble:
    """The trees of a fitted estimator of LightGBM's scikit-learn API, or of a Booster.

    Raises:
        ExportError: its objective is unknown, or its leaves are linear models.
    """
    booster = getattr(model, "booster_", model)
    best = getattr(model, "best_iteration_", None) or booster.best_iteration
    saved = booster.dump_model(num_iteration=best if best and best > 0 else -1)
    # For example "binary sigmoid:1", "multiclass num_class:3", "regression sqrt"
    name, *options = (saved.get("objective") or "none").split()
    given = dict(option.partition(":")[::2] for option in options)
    if name not in _LINKS:
        raise ExportError(
            f"the objective {name!r} of LightGBM cannot be converted: train with one of "
            f"{', '.join(sorted(_LINKS))}"
        )
    outputs = int(saved["num_tree_per_iteration"])
    reader = _Reader()
    trees = [
        reader.tree(each["tree_structure"], number % outputs)
        for number, each in enumerate(saved["tree_info"])
    ]
    scale = float(given.get("sigmoid", 1.0)) if name in ("binary", "multiclassova") else 1.0
    iterations = len(trees) / outputs if saved.get("average_output") else 1.0
    return Ensemble(
        trees,
        np.zeros(outputs),
        "square" if "sqrt" in options else _LINKS[name],
        zero_is_missing=tuple(sorted(reader.zero_is_missing)),
        whole=tuple(sorted(reader.whole)),
        divided_by=iterations / scale,
    )


class _Reader:
    """Reads trees, and what LightGBM does to a feature before it compares."""

    def __init__(self) -> None:
        self.zero_is_missing = set[int]()
        self.whole = set[int]()

    def tree(self, structure: dict[str, Any], target: int) -> Tree:
        tree, made = Tree(), dict[int, int]()
        for node in _children_first(structure):
            if "left_child" not in node:
                made[id(node)] = tree.leaf({target: float(node["leaf_value"])})
                continue
            left, right = made[id(node["left_child"])], made[id(node["right_child"])]
            made[id(node)] = self._split(tree, node, left, right)
        return tree.root_first()

    def _split(self, tree: Tree, node: dict[str, Any], left: int, right: int) -> int:
        feature = int(node["split_feature"])
        if node["decision_type"] == "==":
            self.whole.add(feature)
            members = [int(value) for value in str(node["threshold"]).split("||")]
            return tree.member(feature, members, left, right, missing_true=False)
        threshold = float(node["threshold"])
        is_zero = node["missing_type"] == "None"  # then NaN counts as 0
        to_left = threshold >= 0.0 if is_zero else bool(node["default_left"])
        if node["missing_type"] == "Zero":
            self.zero_is_missing.add(feature)
        threshold = _without_tiny_values(threshold)
        return tree.split(feature, threshold, "BRANCH_LEQ", left, right, missing_true=to_left)


def _without_tiny_values(threshold: float) -> float:
    """A threshold that compares as LightGBM does, which reads a value of at most `ZERO` as 0."""
    if -ZERO <= threshold < 0.0:
        return math.nextafter(-ZERO, -math.inf)
    return ZERO if 0.0 <= threshold < ZERO else threshold


def _children_first(structure: dict[str, Any]) -> list[dict[str, Any]]:
    order, waiting = [], [structure]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if "leaf_coeff" in node:
            raise ExportError(
                "the leaves of LightGBM's trees are linear models: train without linear_tree"
            )
        if "left_child" in node:
            waiting += (node["left_child"], node["right_child"])
    return order[::-1]
