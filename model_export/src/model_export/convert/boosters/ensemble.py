"""The common form of boosted trees, and the node that computes their sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_export.study.arrays import Values

Mode = Literal["BRANCH_LT", "BRANCH_LEQ", "BRANCH_GT", "BRANCH_EQ"]
Link = Literal["identity", "exp", "sigmoid", "softmax", "square"]
"""What turns the sums into the answer. `square`: the sum times its size (LightGBM's reg_sqrt)."""


_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Tree:
    """One tree; a node is its position in the lists, and the root is 0."""

    features: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    """Thresholds."""
    modes: list[str] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    """The child if the comparison of feature and threshold holds."""
    false: list[int] = field(default_factory=list)
    missing_true: list[bool] = field(default_factory=list)
    """Whether NaN goes to the child `true`."""
    leaves: dict[int, dict[int, float]] = field(default_factory=dict)
    """Node → target → what is added to it."""

    def leaf(self, weights: dict[int, float]) -> int:
        """Add a leaf; returns its position."""
        self.leaves[len(self.features)] = weights
        return self._add(0, 0.0, "LEAF", 0, 0, missing_true=False)

    def split(
        self, feature: int, value: float, mode: Mode, true: int, false: int, *, missing_true: bool
    ) -> int:
        """Add a comparison of nodes that are there already; returns its position."""
        return self._add(feature, value, mode, true, false, missing_true=missing_true)

    def member(
        self, feature: int, values: Sequence[int], true: int, false: int, *, missing_true: bool
    ) -> int:
        """Add "is one of these values" as comparisons one after the other; returns the first. An
        empty set, which only missing values may be in, is the set of −1: no category."""
        node = false
        for value in values or (-1,):
            node = self.split(
                feature, float(value), "BRANCH_EQ", true, node, missing_true=missing_true
            )
        return node

    def root_first(self) -> Tree:
        """The tree with its nodes in the opposite order: parents are added after their children,
        but the root must be node 0."""
        last = len(self.features) - 1
        leaves = {last - node: weights for node, weights in self.leaves.items()}

        def turned(children: list[int]) -> list[int]:
            return [
                0 if node in leaves else last - child for node, child in enumerate(children[::-1])
            ]

        return Tree(
            self.features[::-1],
            self.values[::-1],
            self.modes[::-1],
            turned(self.true),
            turned(self.false),
            self.missing_true[::-1],
            leaves,
        )

    def _add(
        self, feature: int, value: float, mode: str, true: int, false: int, *, missing_true: bool
    ) -> int:
        self.features.append(feature)
        self.values.append(value)
        self.modes.append(mode)
        self.true.append(true)
        self.false.append(false)
        self.missing_true.append(missing_true)
        return len(self.features) - 1


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves add up, and what is made of the sums."""

    trees: Sequence[Tree]
    base: Values
    """float64[K]: what each sum begins with; K is 1 for two classes."""
    link: Link
    compares_in_float32: bool = False
    """The library rounds the features to float32; otherwise it compares in float64."""
    adds_in_float64: bool = True
    """The library adds the leaves in float64; otherwise in float32."""
    missing: float | None = None
    """A value that means NaN."""
    zero_is_missing: tuple[int, ...] = ()
    """Features whose zeros mean NaN."""
    whole: tuple[int, ...] = ()
    """Features that are cut to whole numbers; negative ones are in no set of categories."""
    divided_by: float = 1.0
    """Of the leaves' sums; `base` is added afterwards."""

    def splits(self) -> tuple[Values, Values]:
        """int64[S] feature and float64[S] threshold of every comparison of numbers. CatBoost finds
        missing values by comparing with the smallest float32, which is no threshold."""
        found = [
            (feature, value)
            for tree in self.trees
            for feature, value, mode in zip(tree.features, tree.values, tree.modes, strict=True)
            if mode not in ("LEAF", "BRANCH_EQ") and abs(value) < _LARGEST
        ]
        if not found:
            return np.empty(0, dtype=np.int64), np.empty(0)
        features, values = zip(*found, strict=True)
        return np.asarray(features), np.asarray(values, dtype=np.float64)

    def _first_trees(self) -> list[Tree]:
        """What the sums begin with, as trees of one leaf: the runtime adds trees one after the
        other, as the libraries do, but a base value last."""
        begins = [(target, value) for target, value in enumerate(self.base.tolist()) if value]
        made = []
        for target, value in begins if self.divided_by == 1.0 else ():
            tree = Tree()
            tree.leaf({target: value})
            made.append(tree)
        return made

    def attributes(self, *, double: bool) -> dict[str, Any]:
        """Attributes of a TreeEnsembleRegressor of ai.onnx.ml 3 whose input is float64 if `double`,
        otherwise float32.

        Thresholds of float32 inputs are rounded so that each float32 value compares with them as
        with the exact ones.
        """
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for number, tree in enumerate([*self._first_trees(), *self.trees]):
            for name, values in zip(_COLUMNS, _columns(number, tree), strict=True):
                columns[name].extend(values)
        if not double:
            columns["nodes_values"] = _rounded(columns["nodes_values"], columns["nodes_modes"])
        weights = [name for name in ("nodes_values", "target_weights") if double]
        given = {name: values for name, values in columns.items() if name not in weights}
        for name in weights:
            given[f"{name}_as_tensor"] = helper.make_tensor(
                name, 11, [len(columns[name])], columns[name]
            )
        return {**given, "n_targets": len(self.base), "post_transform": "NONE"}


_COLUMNS = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_values",
    "nodes_modes",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
    "target_treeids",
    "target_nodeids",
    "target_ids",
    "target_weights",
)


def _columns(number: int, tree: Tree) -> Iterable[Sequence[Any]]:
    size = len(tree.features)
    leaves = [
        (node, target, weight)
        for node, weights in tree.leaves.items()
        for target, weight in weights.items()
    ]
    nodes, targets, weights = zip(*leaves, strict=True)
    yield [number] * size
    yield range(size)
    yield tree.features
    yield tree.values
    yield tree.modes
    yield tree.true
    yield tree.false
    yield [int(each) for each in tree.missing_true]
    yield [number] * len(leaves)
    yield nodes
    yield targets
    yield weights


def _rounded(values: list[float], modes: list[str]) -> list[float]:
    """Thresholds as float32. `x <= t` and `x > t` hold for the same float32 values if t is rounded
    down, `x < t` if it is rounded up."""
    exact = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        nearest = exact.astype(np.float32)
    down = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    up = np.where(nearest < exact, np.nextafter(nearest, np.float32(np.inf)), nearest)
    kinds = np.asarray(modes)
    found = np.where(kinds == "BRANCH_LT", up, down)
    return list(np.where(kinds == "BRANCH_EQ", nearest, found).tolist())
