"""Orders the nodes of a large forest so that a walk through a tree touches few cache lines; the
answers stay the same bit for bit.

ONNX Runtime keeps 24 bytes per node, depth first, with the false child right behind its parent and
the true child where the false child's subtree ends. In a forest of tens of megabytes a step to a
true child, and the read of the leaf's weights, may each miss the cache. Therefore

- the child with more leaves below it becomes the false one. If that is the left child, the
  comparison is inverted: `x > t` is exactly `-x <= the float32 below -t`, so the negated columns
  are appended to the columns;
- a leaf whose sibling is a subtree becomes the true child, and equal leaves that are true children
  are one node, which ONNX Runtime allows.

Fully grown trees lose a third of their nodes and the file half its size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto, NodeProto

_WEIGHTS = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}
"""Prefix of the attributes of an ensemble's leaves."""
_MADE = (
    "treeids",
    "nodeids",
    "featureids",
    "values",
    "modes",
    "truenodeids",
    "falsenodeids",
    "hitrates",
    "missing_value_tracks_true",
)
LARGE = 20_000
"""Nodes. Smaller forests, about half a megabyte in the runtime, fit into the cache anyway, and two
more operators cost time."""

Weights = tuple[tuple[int, float], ...]
"""Class or target, and what a leaf adds to it."""


@dataclass
class _Tree:
    """One tree; a node is its position in the lists, and the root is 0."""

    features: list[int] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    leaves: dict[int, Weights] = field(default_factory=dict)

    def add(self, feature: int = 0, threshold: float = 0.0) -> int:
        """Add a node without children; returns its position."""
        self.features.append(feature)
        self.thresholds.append(threshold)
        self.true.append(0)
        self.false.append(0)
        return len(self.features) - 1


def lay_out(model: ModelProto) -> None:
    """Rewrite the large ensembles of a converted model in place, if they read the model's input
    directly.

    Small ensembles stay as they are, and so do those that handle missing values or compare other
    than by `<=`.

    Args:
        model: with one input, float32[N, F].
    """
    graph = model.graph
    source = graph.input[0]
    ensembles = [
        node
        for node in graph.node
        if node.op_type in _WEIGHTS and node.input[0] == source.name and _fits(node)
    ]
    if not ensembles:
        return
    for node in ensembles:
        _rewrite(node, columns=source.type.tensor_type.shape.dim[1].dim_value)
        node.input[0] = "both_signs"
    graph.node.insert(0, helper.make_node("Neg", [source.name], ["negated"], name="negate"))
    graph.node.insert(
        1,
        helper.make_node(
            "Concat", [source.name, "negated"], ["both_signs"], name="both_signs", axis=1
        ),
    )


def _fits(node: NodeProto) -> bool:
    given = _attributes(node)
    if len(given["nodes_modes"]) < LARGE or any(given.get("nodes_missing_value_tracks_true", ())):
        return False
    if not set(given["nodes_modes"]) <= {b"BRANCH_LEQ", b"LEAF"} or "nodes_values" not in given:
        return False
    children = np.minimum(given["nodes_truenodeids"], given["nodes_falsenodeids"])
    inner = np.asarray(given["nodes_modes"]) != b"LEAF"
    return bool(
        np.all(children[inner] > np.asarray(given["nodes_nodeids"])[inner])
    )  # as scikit-learn numbers them


def _rewrite(node: NodeProto, columns: int) -> None:
    prefix = _WEIGHTS[node.op_type]
    made = _as_attributes(
        [_ordered(tree, columns) for tree in _trees(_attributes(node), prefix)], prefix
    )
    gone = {f"nodes_{name}" for name in _MADE} | made.keys()
    kept = [attribute for attribute in node.attribute if attribute.name not in gone]
    del node.attribute[:]
    node.attribute.extend(
        [*kept, *(helper.make_attribute(name, values) for name, values in made.items())]
    )


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _trees(given: dict[str, Any], prefix: str) -> Iterator[_Tree]:
    """The trees of an ensemble, in its order; the nodes of one tree are adjacent and numbered from
    0, as skl2onnx writes them."""
    numbers = np.asarray(given["nodes_treeids"])
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]]).tolist()
    leaves: dict[int, dict[int, Weights]] = {}
    columns = (given[f"{prefix}_{name}"] for name in ("treeids", "nodeids", "ids", "weights"))
    for tree, node, target, weight in zip(*columns, strict=True):
        of_tree = leaves.setdefault(tree, {})
        of_tree[node] = (*of_tree.get(node, ()), (target, weight))
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        names = ("featureids", "values", "truenodeids", "falsenodeids")
        features, thresholds, true, false = (given[f"nodes_{name}"][start:end] for name in names)
        yield _Tree(features, thresholds, true, false, leaves[int(numbers[start])])


def _ordered(tree: _Tree, columns: int) -> _Tree:
    """The tree, depth first, with the child with more leaves behind its parent, and equal leaves
    merged if they are true children."""
    below, made, shared = _leaves_below(tree), _Tree(), dict[Weights, int]()
    waiting = [(0, -1, False)]
    while waiting:
        old, parent, is_true = waiting.pop()
        weights = tree.leaves.get(old)
        known = shared.get(weights) if weights and is_true else None
        new = made.add() if known is None else known
        if parent >= 0:
            (made.true if is_true else made.false)[parent] = new
        if weights:
            made.leaves[new] = weights
            if is_true:
                shared[weights] = new
            continue
        left, right = tree.true[old], tree.false[old]
        made.features[new], made.thresholds[new] = tree.features[old], tree.thresholds[old]
        if below[left] > below[right]:
            made.features[new] += columns
            made.thresholds[new] = float(
                np.nextafter(np.float32(-tree.thresholds[old]), np.float32(-np.inf))
            )
            left, right = right, left
        waiting += [(left, new, True), (right, new, False)]
    return made


def _leaves_below(tree: _Tree) -> list[int]:
    below = [1] * len(tree.features)
    for node in reversed(range(len(below))):  # children have larger numbers than their parents
        if node not in tree.leaves:
            below[node] = below[tree.true[node]] + below[tree.false[node]]
    return below


def _as_attributes(trees: list[_Tree], prefix: str) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {f"nodes_{name}": [] for name in _MADE[:7]}
    made |= {f"{prefix}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(trees):
        size = len(tree.features)
        modes = ["LEAF" if node in tree.leaves else "BRANCH_LEQ" for node in range(size)]
        columns = [
            [number] * size,
            range(size),
            tree.features,
            tree.thresholds,
            modes,
            tree.true,
            tree.false,
        ]
        for name, values in zip(_MADE[:7], columns, strict=True):
            made[f"nodes_{name}"].extend(values)
        for node, weights in tree.leaves.items():
            for target, weight in weights:
                for name, value in zip(
                    ("treeids", "nodeids", "ids", "weights"),
                    (number, node, target, weight),
                    strict=True,
                ):
                    made[f"{prefix}_{name}"].append(value)
    return made
