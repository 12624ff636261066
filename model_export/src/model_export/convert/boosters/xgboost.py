"""Reads XGBoost models: XGBClassifier, XGBRegressor, XGBRFClassifier and the like, and Booster.

XGBoost compares and adds in float32. The source is the model's own JSON form.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from model_export.convert.boosters.ensemble import Ensemble, Link, Tree
from model_export.errors import ExportError

_LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "reg:logistic": "sigmoid",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "count:poisson": "exp",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}


def read(model: Any) -> Ensemble:
    """The trees of a fitted estimator of XGBoost's scikit-learn API, or of a Booster.

    Raises:
        ExportError: it is not made of trees with one value in each leaf, or its objective is
            unknown.
    """
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    saved = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = saved["objective"]["name"]
    answers_labels = model is booster and objective == "multi:softmax"
    if objective not in _LINKS or answers_labels:
        raise ExportError(
            f"the objective {objective!r} of XGBoost cannot be converted: train with one of "
            f"{', '.join(sorted(_LINKS))}"
        )
    gradient = saved["gradient_booster"]
    if gradient["name"] not in ("gbtree", "dart"):
        raise ExportError(
            f"the booster {gradient['name']!r} of XGBoost is not made of trees: train with "
            "booster='gbtree'"
        )
    weights = gradient.get("weight_drop")
    trees = gradient["model" if weights is None else "gbtree"]
    trees = trees.get("model", trees)  # dart holds the trees of a gbtree
    outputs = max(_number(saved["learner_model_param"]["num_class"]), 1)
    outputs = max(outputs, _number(saved["learner_model_param"].get("num_target", "1")))
    kept = trees["trees"][: _kept(model, booster, trees, outputs)]
    missing = getattr(model, "missing", math.nan)
    return Ensemble(
        [
            _tree(tree, target, 1.0 if weights is None else weights[number])
            for number, (tree, target) in enumerate(zip(kept, trees["tree_info"], strict=False))
        ],
        _base(saved["learner_model_param"]["base_score"], _LINKS[objective], outputs),
        _LINKS[objective],
        compares_in_float32=True,
        adds_in_float64=False,
        missing=None if missing is None or math.isnan(missing) else float(missing),
        whole=tuple(sorted({tree["split_indices"][node] for tree in kept for node in _sets(tree)})),
    )


def _kept(model: Any, booster: Any, trees: dict[str, Any], outputs: int) -> int:
    """How many trees predict: those up to the best iteration of early stopping, which only the
    scikit-learn API heeds."""
    best = booster.attributes().get("best_iteration") if model is not booster else None
    if best is None:
        return len(trees["trees"])
    parallel = _number(trees["gbtree_model_param"].get("num_parallel_tree", "1"))
    return (int(best) + 1) * outputs * max(parallel, 1)


def _base(score: str, link: Link, outputs: int) -> Any:
    """float64[K]: the base score before the link; XGBoost 3 stores a list of them as text."""
    given = np.asarray(json.loads(score) if score.startswith("[") else [float(score)], np.float64)
    if link == "sigmoid":
        given = -np.log(1.0 / given - 1.0)
    elif link == "exp":
        given = np.log(given)
    return np.full(outputs, given[0]) if len(given) == 1 else given


def _tree(saved: dict[str, Any], target: int, weight: float) -> Tree:
    if _number(saved["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise ExportError(
            "its trees have several values in each leaf: train with "
            "multi_strategy='one_output_per_tree'"
        )
    tree, made, sets = Tree(), dict[int, int](), _sets(saved)
    for node in _children_first(saved["left_children"], saved["right_children"]):
        left, right = saved["left_children"][node], saved["right_children"][node]
        value = float(np.float32(saved["split_conditions"][node]))
        if left < 0:
            made[node] = tree.leaf({target: value * weight})
            continue
        feature, to_left = saved["split_indices"][node], bool(saved["default_left"][node])
        sides = made[left], made[right]
        made[node] = (
            tree.member(feature, sets[node], *sides[::-1], missing_true=not to_left)
            if node in sets
            else tree.split(feature, value, "BRANCH_LT", *sides, missing_true=to_left)
        )
    return tree.root_first()


def _sets(saved: dict[str, Any]) -> dict[int, list[int]]:
    """Node → the categories that go to its right child; all others go to the left one."""
    nodes = saved.get("categories_nodes", [])
    if not nodes:
        return {}
    starts, sizes = saved["categories_segments"], saved["categories_sizes"]
    return {
        node: [int(value) for value in saved["categories"][start : start + size]]
        for node, start, size in zip(nodes, starts, sizes, strict=True)
    }


def _children_first(left: list[int], right: list[int]) -> list[int]:
    order, waiting = [], [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if left[node] >= 0:
            waiting += (left[node], right[node])
    return order[::-1]


def _number(text: Any) -> int:
    return int(float(text))
