"""Reads CatBoost models: CatBoostClassifier, CatBoostRegressor, CatBoost.

CatBoost compares float32 values with float32 borders, and adds in float64. The source is the
model's own JSON form.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from model_export.convert.boosters.ensemble import Ensemble, Link, Tree
from model_export.errors import ExportError, listed

_LINKS: dict[str, Link] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "sigmoid",
    "RMSE": "identity",
    "MAE": "identity",
    "Quantile": "identity",
    "MAPE": "identity",
    "Huber": "identity",
    "Expectile": "identity",
    "LogLinQuantile": "exp",
    "Poisson": "exp",
    "Tweedie": "exp",
    "YetiRank": "identity",
    "PairLogit": "identity",
    "MultiRMSE": "identity",
}


def read(model: Any) -> Ensemble:
    """The trees of a fitted CatBoost model.

    Raises:
        ExportError: its loss is unknown, or it reads categories, texts or embeddings.
    """
    saved = _saved(model)
    loss = saved["model_info"]["params"]["loss_function"]["type"]
    if loss not in _LINKS:
        raise ExportError(
            f"the loss {loss!r} of CatBoost cannot be converted: train with one of "
            f"{', '.join(sorted(_LINKS))}"
        )
    features = saved["features_info"]
    _require_numbers(features, model)
    columns = [each["flat_feature_index"] for each in features["float_features"]]
    nan_true = [each["nan_value_treatment"] == "AsTrue" for each in features["float_features"]]
    scale, bias = saved["scale_and_bias"]
    base = np.asarray(bias, dtype=np.float64).ravel()
    trees = [
        *(
            _oblivious(tree, len(base), columns, nan_true)
            for tree in saved.get("oblivious_trees") or ()
        ),
        *(_free(tree, columns, nan_true) for tree in saved.get("trees") or ()),
    ]
    # Its own class CatBoost answers the sums.
    link = "identity" if type(model).__name__ == "CatBoost" else _LINKS[loss]
    return Ensemble(trees, base, link, compares_in_float32=True, divided_by=1.0 / float(scale))


_ENCODED = (
    "train it without cat_features, behind a step that encodes them, such as "
    "make_pipeline(ColumnTransformer([('categories', TargetEncoder(), {names})], "
    "remainder='passthrough'), {kind}()) or with an OrdinalEncoder or OneHotEncoder there, or use "
    "LightGBM or HistGradientBoosting, whose own categories can be exported"
)
_COUNTED = "train it without text_features, behind a CountVectorizer or TfidfVectorizer"
_SPREAD = "train it without embedding_features, with one column for each of their numbers"
_IN_PLACE = {
    "categorical": ("of whose values it stores hashes only", _ENCODED),
    "text": ("which it cuts into words by rules of its own", _COUNTED),
    "embedding": ("for whose statistics ONNX has no operator", _SPREAD),
}
"""Kind of features → why they cannot be exported, and what to do."""
_MOST_NAMES = 10
"""Of columns in the code that a refusal shows."""


def _require_numbers(features: dict[str, Any], model: Any) -> None:
    """Refuse a model that reads anything but numbers.

    Raises:
        ExportError: names the features.
    """
    for kind, (why, instead) in _IN_PLACE.items():
        found = features.get(f"{kind}_features") or ()
        if found:
            columns = listed(_label(each, list(model.feature_names_)) for each in found)
            names = "[…]" if len(found) > _MOST_NAMES else columns
            way = instead.format(names=names, kind=type(model).__name__)
            raise ExportError(f"CatBoost reads {columns} as {kind} features, {why}: {way}")


def _label(feature: dict[str, Any], names: list[str]) -> str | int:
    """A feature's column: its name, or its position if the columns had no names."""
    position = int(feature["flat_feature_index"])
    return position if names[position] == str(position) else names[position]


def _saved(model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def _oblivious(
    saved: dict[str, Any], outputs: int, columns: list[int], nan_true: list[bool]
) -> Tree:
    """A tree whose nodes of one depth all compare alike; bit i of a leaf's number says whether
    comparison i holds."""
    splits, values = saved.get("splits") or [], saved["leaf_values"]
    tree = Tree()
    level = [
        tree.leaf(dict(enumerate(values[leaf * outputs : (leaf + 1) * outputs])))
        for leaf in range(1 << len(splits))
    ]
    for split in splits:  # bit 0 first: neighbours differ in it
        number = split["float_feature_index"]
        level = [
            tree.split(
                columns[number],
                split["border"],
                "BRANCH_GT",
                level[i + 1],
                level[i],
                missing_true=nan_true[number],
            )
            for i in range(0, len(level), 2)
        ]
    return tree.root_first()


def _free(saved: dict[str, Any], columns: list[int], nan_true: list[bool]) -> Tree:
    """A tree of grow_policy Depthwise or Lossguide: the right child is taken if the comparison
    holds."""
    tree = Tree()
    order, waiting = [], [saved]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if "split" in node:
            waiting += (node["left"], node["right"])
    made = dict[int, int]()
    for node in reversed(order):
        if "split" not in node:
            values = np.asarray(node["value"], dtype=np.float64).ravel().tolist()
            made[id(node)] = tree.leaf(dict(enumerate(values)))
            continue
        number = node["split"]["float_feature_index"]
        made[id(node)] = tree.split(
            columns[number],
            node["split"]["border"],
            "BRANCH_GT",
            made[id(node["right"])],
            made[id(node["left"])],
            missing_true=nan_true[number],
        )
    return tree.root_first()
