"""Imputers: SimpleImputer, MissingIndicator, KNNImputer and IterativeImputer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.convert.block import Block
    from model_export.study.arrays import Flags, Values

_MOST_TURNS = 2_000
"""Predictions in an IterativeImputer: iterations times columns. Each is a few operators."""
_MOST_DONORS = 20_000
"""Rows in a KNNImputer: every row of a request is compared with all of them."""


def _mask(block: Block, missing: Any) -> str:
    """bool[N, width]: true for a missing value."""
    if missing is None or missing != missing:
        return block.missing()
    return block.test("Equal", float(missing))


def _with_indicator(block: Block, before: Block, step: Any) -> Block:
    """The imputed block, with the indicators of `add_indicator` after it."""
    indicator = getattr(step, "indicator_", None)
    if indicator is None:
        return block
    return block.joined([block, write_indicator(before, "", indicator)])


def write_indicator(block: Block, path: str, step: Any) -> Block:
    """A MissingIndicator."""
    del path
    flags = block.flags(_mask(block, step.missing_values))
    return flags.columns(tuple(int(i) for i in step.features_))


def write_simple(block: Block, path: str, step: Any) -> Block:
    """A SimpleImputer; columns that were empty while it was trained are left out.

    Raises:
        ExportError: it fills in text.
    """
    statistics = np.asarray(step.statistics_)
    if statistics.dtype.kind not in "fiub":
        try:
            statistics = statistics.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ExportError(
                f"step {path!r}: a SimpleImputer fills numbers with {statistics.tolist()[0]!r}, "
                "which is no number: train it with a number as fill_value"
            ) from error
    statistics = statistics.astype(np.float64)
    kept = np.ones(len(statistics), bool) if step.keep_empty_features else ~np.isnan(statistics)
    filled = block.where(_mask(block, step.missing_values), np.nan_to_num(statistics))
    return _with_indicator(filled.columns(_places(kept)), block, step)


def _places(kept: Flags) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(kept))


def write_iterative(block: Block, path: str, step: Any) -> Block:
    """An IterativeImputer of linear models: its predictions, one after the other.

    Raises:
        ExportError: it draws at random, its models are not linear, or there are too many of them.
    """
    if step.sample_posterior:
        raise ExportError(
            f"step {path!r}: an IterativeImputer with sample_posterior=True answers differently "
            "each time: train it with sample_posterior=False"
        )
    turns = step.imputation_sequence_
    if len(turns) > _MOST_TURNS:
        raise ExportError(
            f"step {path!r}: the IterativeImputer predicts {len(turns):,} times for each row, at "
            f"most {_MOST_TURNS:,} can be exported: train it with a smaller max_iter"
        )
    filled = write_simple(block, path, step.initial_imputer_)
    width, empty = filled.width, step._is_empty_feature  # noqa: SLF001  no public name
    kept = np.ones(block.width, bool) if step.keep_empty_features else ~empty
    missing = _mask(block.columns(_places(kept)), step.missing_values)
    for turn in turns:
        column = int(turn.feat_idx)
        weights, offset = _linear(path, turn.estimator)
        full = np.zeros((width, 1))
        full[np.asarray(turn.neighbor_feat_idx, dtype=int), 0] = weights
        value = filled.times(full) + offset
        value = value.apply("Max", float(step._min_value[column]))  # noqa: SLF001
        value = value.apply("Min", float(step._max_value[column]))  # noqa: SLF001
        own = block.builder.constant(np.arange(width) == column)
        filled = filled.where(block.builder.node("And", missing, own), value)
    return _with_indicator(filled, block, step)


def _linear(path: str, estimator: Any) -> tuple[Values, float]:
    """Weights and offset of a linear model."""
    weights = getattr(estimator, "coef_", None)
    if weights is None or not hasattr(estimator, "intercept_") or hasattr(estimator, "link"):
        raise ExportError(
            f"step {path!r}: an IterativeImputer of {type(estimator).__name__} cannot be "
            "converted: use a linear estimator such as BayesianRidge, which is the default"
        )
    intercept = float(np.ravel(estimator.intercept_)[0])
    return np.ravel(np.asarray(weights, dtype=np.float64)), intercept


def write_neighbours(block: Block, path: str, step: Any) -> Block:
    """A KNNImputer: the mean of the nearest rows that hold the value.

    Raises:
        ExportError: it measures in another way, or keeps too many rows.
    """
    rows, absent = step._fit_X, step._mask_fit_X  # noqa: SLF001  no public name
    if step.metric != "nan_euclidean" or step.weights not in ("uniform", "distance"):
        raise ExportError(
            f"step {path!r}: a KNNImputer with a metric or weights of your own cannot be "
            "converted: use nan_euclidean, and uniform or distance"
        )
    if len(rows) > _MOST_DONORS:
        raise ExportError(
            f"step {path!r}: the KNNImputer keeps {len(rows):,} rows, at most {_MOST_DONORS:,} can "
            "be served: train it on fewer rows, or use a SimpleImputer or IterativeImputer"
        )
    mask = _mask(block, step.missing_values)
    distances = _distances(block, mask, np.where(absent, 0.0, rows), ~absent)
    filled = block
    for column in np.flatnonzero(~absent.all(axis=0)):
        donors = np.flatnonzero(~absent[:, column])
        value = _nearest(distances, donors, rows[donors, column], step)
        own = block.builder.constant(np.arange(block.width) == column)
        filled = filled.where(block.builder.node("And", mask, own), value)
    empty = absent.all(axis=0)
    if step.keep_empty_features:
        filled = filled.where(block.builder.constant(empty), 0.0)
    else:
        filled = filled.columns(_places(~empty))
    return _with_indicator(filled, block, step)


def _distances(block: Block, mask: str, rows: Values, present: Flags) -> Block:
    """[N, M]: squared distances in the columns that both rows have, scaled to all columns;
    infinite where they share none. In scikit-learn's order of operations."""
    known = block.where(mask, 0.0)
    has: Block = 1.0 - block.flags(mask)
    squares = (known * known).reduced("ReduceSum") + (rows * rows).sum(axis=1).reshape(1, -1)
    apart = (known.times(rows.T) * -2.0 + squares).apply("Max", 0.0)
    apart = apart - (known * known).times((~present).T.astype(np.float64))
    apart = apart - (1.0 - has).times((rows * rows).T)
    apart = apart.apply("Max", 0.0)
    shared = has.times(present.T.astype(np.float64))
    scaled: Block = apart / shared.apply("Max", 1.0) * float(block.width)
    return scaled.where(shared.test("Equal", 0.0), np.inf)


def _nearest(distances: Block, donors: Any, values: Values, step: Any) -> Block:
    """[N, 1]: the mean of the nearest donors' values; of all values where none is near."""
    near, at = distances.columns(_places_of(donors)).smallest(min(step.n_neighbors, len(donors)))
    counted = near.flags(near.test("Less", np.inf))
    given = near.picked(values, at)
    weights = counted
    if step.weights == "distance":
        # A row at distance 0 counts alone.
        same = near.flags(near.test("Equal", 0.0))
        inverse = counted / near.apply("Sqrt").where(near.test("Equal", 0.0), 1.0)
        any_same = same.reduced("ReduceMax").test("Greater", 0.0)
        weights = inverse.where(any_same, same)
    total = weights.reduced("ReduceSum")
    mean = (given * weights).reduced("ReduceSum") / total
    return mean.where(total.test("Equal", 0.0), float(np.mean(values)))


def _places_of(donors: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in donors)
