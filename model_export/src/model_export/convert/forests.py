"""Makes a converted forest add as scikit-learn does, so that ties stay ties.

skl2onnx divides every leaf by the number of trees before the runtime adds them in float32: a
hundred leaves of 0.01 then come to 0.49999994 against 0.50000006 where scikit-learn sees 0.5 and
0.5, and the label of a tie is an accident (measured on two classes: wrong for three of four ties of
a forest of 100). Undivided leaves are whole numbers where they are pure, their sums are exact, and
the division comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_PER_LEAF = ("class_ids", "class_nodeids", "class_treeids", "class_weights")
_DECIMALS = 7
"""Enough for float32; rounding undoes the error of skl2onnx's division, so that 0.99999998 is 1
again."""


def sum_undivided(model: ModelProto, trees: int) -> None:
    """Multiply the leaves by the number of trees, in place; the graph's probabilities then are to
    be divided by it.

    Where there are two classes skl2onnx keeps one and has the runtime take the other as the rest to
    1; both are written out here. The runtime's label of two classes is then void: the larger sum is
    to be taken.

    Args:
        model: a converted RandomForestClassifier or ExtraTreesClassifier.
        trees: its number of trees.
    """
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleClassifier":
            _rewrite(node, trees)


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
    """Every leaf of the second class, and what is left to 1 of each for the first."""
    weights = leaves["class_weights"]
    both = {name: np.concatenate([values, values]) for name, values in leaves.items()}
    both["class_ids"] = np.repeat(np.asarray([1, 0]), len(weights))
    both["class_weights"] = np.concatenate([weights, 1.0 - weights])
    return both


def _without_zeros(leaves: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Leaves without the classes that they never saw: most leaves of a deep forest know one class
    of many.

    The file of the heavy example is half as large for it, and loads in 0.8 s instead of 6. With two
    classes the runtime has rules of its own for a class that a leaf does not name, so their zeros
    stay.
    """
    said = leaves["class_weights"] != 0.0
    return {name: values[said] for name, values in leaves.items()}
