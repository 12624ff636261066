"""Makes a converted forest add its leaves as scikit-learn does, so that ties stay ties.

skl2onnx divides every leaf by the number of trees before the runtime adds them in float32. The sums
of a hundred leaves of 0.01 are then 0.49999994 and 0.50000006 where scikit-learn has 0.5 and 0.5,
and the label of a tie is random (measured on two classes: wrong for three of four ties of a forest
of 100). Undivided pure leaves are whole numbers, their sums are exact, and the graph divides at the
end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from model_export.convert.boosters.ensemble import Ensemble, Tree

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from model_export.convert.block import Block

_PER_LEAF = ("class_ids", "class_nodeids", "class_treeids", "class_weights")
_MISSING = "nodes_missing_value_tracks_true"
_DECIMALS = 7
"""Enough for float32; rounding undoes the error of skl2onnx's division, so that 0.99999998 is 1
again."""


def sum_undivided(model: ModelProto, trees: int) -> None:
    """Multiply the leaves by the number of trees, in place; the caller must divide the graph's
    probabilities by it.

    For two classes skl2onnx keeps one, and the runtime computes the other as 1 minus it; here both
    are written out. The runtime's label of two classes is then wrong: the caller must take the
    class with the larger sum.

    Args:
        model: a converted RandomForestClassifier or ExtraTreesClassifier.
        trees: its number of trees.
    """
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleClassifier":
            _rewrite(node, trees)


def send_nulls(model: ModelProto, estimator: Any) -> None:
    """Send a null to the side of each split that scikit-learn sends it to, in place: skl2onnx 1.20
    sends all of them to the right (sklearn-onnx#1253).

    Args:
        model: a converted tree or forest; its nodes have scikit-learn's order.
        estimator: of scikit-learn.
    """
    members = getattr(estimator, "estimators_", [estimator])
    left = np.concatenate([one.tree_.missing_go_to_left for one in members])
    for node in model.graph.node:
        if node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            kept = [a for a in node.attribute if a.name != _MISSING]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(_MISSING, left.tolist())])


def _rewrite(node: NodeProto, trees: int) -> None:
    leaves = {
        a.name: np.asarray(helper.get_attribute_value(a))
        for a in node.attribute
        if a.name in _PER_LEAF
    }
    leaves["class_weights"] = np.round(
        leaves["class_weights"].astype(np.float64) * trees, _DECIMALS
    )
    if np.ptp(leaves["class_ids"]) == 0:
        leaves = _both_classes(leaves)
    elif leaves["class_ids"].max() > 1:
        leaves = _without_zeros(leaves)
    kept = [a for a in node.attribute if a.name not in _PER_LEAF]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, values.tolist()) for name, values in leaves.items())]
    )


def _both_classes(leaves: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Each leaf's weight for the second class, and 1 minus it for the first."""
    weights = leaves["class_weights"]
    both = {name: np.concatenate([values, values]) for name, values in leaves.items()}
    both["class_ids"] = np.repeat(np.asarray([1, 0]), len(weights))
    both["class_weights"] = np.concatenate([weights, 1.0 - weights])
    return both


def _without_zeros(leaves: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The leaves without weights of zero: most leaves of a deep forest have one class of many.

    This halves the file of the heavy example, which then loads in 0.8 s instead of 6. With two
    classes the runtime has special rules for a class that a leaf does not name, so their zeros
    stay.
    """
    nonzero = leaves["class_weights"] != 0.0
    return {name: values[nonzero] for name, values in leaves.items()}


def exact(features: Block, estimator: Any) -> Block:
    """float64[N, K]: the probabilities or values of a tree or forest, exact to about 1e-14.

    The runtime adds leaves in float32. So each leaf is given as three numbers of few digits: the
    sums of the first two are exact, and what the third one loses is nothing. An isotonic
    calibration needs that, because it may rise from 0 to 1 between two neighbouring sums, and so
    does a stack whose final estimator is a tree.

    Args:
        features: of the forest.
        estimator: a tree or forest with at most 2¹⁶ trees.
    """
    members = getattr(estimator, "estimators_", [estimator])
    leaves = [_leaves(member.tree_) for member in members]
    width = leaves[0].shape[1]
    largest = max(float(np.abs(one).max()) for one in leaves)
    digits = 23 - int(np.ceil(np.log2(len(members)))) if len(members) > 1 else 23
    units = 2.0 ** (np.ceil(np.log2(largest or 1.0)) - digits * np.asarray([1, 2]))
    trees = [
        _in_parts(member.tree_, values, *units.tolist())
        for member, values in zip(members, leaves, strict=True)
    ]
    ensemble = Ensemble(trees, np.zeros(3 * width), "identity")
    builder = features.builder
    name = builder.node(
        "TreeEnsembleRegressor",
        features.as_dtype("float32").name,
        domain="ai.onnx.ml",
        **ensemble.attributes(double=False),
    )
    sums = type(features)(builder, name, 3 * width, "float32").as_dtype("float64")
    parts = [sums.columns(tuple(range(i * width, (i + 1) * width))) for i in reversed(range(3))]
    return (parts[0] + parts[1] + parts[2]) / float(len(members))


def _leaves(fitted: Any) -> np.ndarray[Any, Any]:
    """[nodes, K]: the probabilities of one target, or the values of all."""
    values = np.asarray(fitted.value, dtype=np.float64)
    return values[:, 0, :] if fitted.n_outputs == 1 else values[:, :, 0]


def _in_parts(fitted: Any, shares: Any, coarse: float, fine: float) -> Tree:
    """A tree whose leaves hold each number as a multiple of `coarse`, one of `fine`, and the
    rest."""
    left, right = fitted.children_left, fitted.children_right
    leaf = left < 0
    first = np.floor(shares / coarse) * coarse
    second = np.floor((shares - first) / fine) * fine
    weights = np.hstack([first, second, shares - first - second])
    return Tree(
        np.where(leaf, 0, fitted.feature).tolist(),
        np.where(leaf, 0.0, fitted.threshold).tolist(),
        np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        np.where(leaf, 0, left).tolist(),
        np.where(leaf, 0, right).tolist(),
        np.asarray(fitted.missing_go_to_left, dtype=bool).tolist(),
        {
            int(node): {i: float(w) for i, w in enumerate(weights[node]) if w} or {0: 0.0}
            for node in np.flatnonzero(leaf)
        },
    )
