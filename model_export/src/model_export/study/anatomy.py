"""Takes a fitted estimator apart into pieces that can be converted one by one, and traces features
back to raw columns.

    columns ─┬─ branch: encode (text → numbers) → steps ─┐
             ├─ branch: steps ───────────────────────────┼─ features → steps → final estimator
             └─ …                                        ┘

`encode` is not converted operator by operator: it is a function of single categories, so `tables`
in `categories` tabulates it with the fitted encoder. The other steps turn numbers into numbers and
are converted one by one, so an error can name the step that failed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder

from model_export.errors import ExportError
from model_export.study.decision import Threshold, find_threshold, unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)

Step = tuple[str, Any]
"""A path such as "prepare/numbers/impute", and the fitted transformer or estimator there."""


@dataclass(frozen=True)
class Branch:
    """One path from raw columns to features."""

    name: str
    columns: tuple[int, ...]
    encode: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def encoder(self) -> Any | None:
        """The fitted encoder that knows the categories of `columns`, in their order; None for a
        branch of numbers."""
        return next((step for _, step in self.encode if isinstance(step, _ENCODERS)), None)

    @property
    def vectorizer(self) -> Step | None:
        """The step that counts the tokens of a text; None for a branch of any other column."""
        is_text = bool(self.encode) and isinstance(self.encode[0][1], CountVectorizer)
        return self.encode[0] if is_text else None


@dataclass(frozen=True)
class Anatomy:
    """The whole model: parallel branches, then the joint steps, then the estimator that answers."""

    branches: tuple[Branch, ...]
    steps: tuple[Step, ...]
    final: Step
    unused: tuple[int, ...] = field(default=())
    """Columns that no branch reads."""
    whole: bool = False
    """The only branch reads the whole input, not columns that a ColumnTransformer selects."""
    threshold: Threshold | None = None
    """How the label is chosen, if not by the final estimator itself."""

    @property
    def takes_texts(self) -> bool:
        """Whether the model takes a list of texts in place of a table."""
        return self.whole and self.branches[0].vectorizer is not None

    def with_positions(self, positions: Mapping[int, int]) -> Anatomy:
        """The same anatomy for a schema with fewer columns.

        Args:
            positions: old → new, for every column that stays; all columns that are read stay.
        """
        branches = tuple(
            replace(branch, columns=tuple(positions[i] for i in branch.columns))
            for branch in self.branches
        )
        return replace(
            self,
            branches=branches,
            unused=tuple(positions[i] for i in self.unused if i in positions),
        )


def dissect(estimator: Any, names: list[str]) -> Anatomy:
    """Take `estimator` apart.

    Args:
        estimator: a fitted scikit-learn estimator or Pipeline.
        names: of the columns, in the signature's order.

    Raises:
        ExportError: a ColumnTransformer has weights or selects a column that is not in the
            signature, or a search kept no estimator.
    """
    *steps, final = _flatten(estimator)
    whole = not (steps and isinstance(steps[0][1], ColumnTransformer))
    if steps and isinstance(steps[0][1], ColumnTransformer):
        branches = _branches(*steps[0], names)
        steps = steps[1:]
    else:
        encode, steps = _split_at_encoder(steps)
        branches = [
            Branch("/".join(n for n, _ in encode) or final[0], tuple(range(len(names))), encode)
        ]
    read = {column for branch in branches for column in branch.columns}
    unused = tuple(i for i in range(len(names)) if i not in read)
    return Anatomy(tuple(branches), tuple(steps), final, unused, whole, find_threshold(estimator))


def _flatten(estimator: Any, path: str = "") -> list[Step]:
    """The steps of nested Pipelines as one list, without steps that do nothing and without wrappers
    that only pass on another estimator's answers."""
    inner = unwrapped(estimator)
    if inner is not estimator:
        return _flatten(inner, path)
    if getattr(estimator, "_preprocessor", None) is not None:
        own = path or type(estimator).__name__
        return [(f"{own}/categories", _category_encoder(estimator)), (own, estimator)]
    if not isinstance(estimator, Pipeline):
        return [] if _does_nothing(estimator) else [(path or type(estimator).__name__, estimator)]
    prefix = f"{path}/" if path else ""
    return [step for name, child in estimator.steps for step in _flatten(child, prefix + name)]


def _category_encoder(estimator: Any) -> ColumnTransformer:
    """The ColumnTransformer in which HistGradientBoosting encodes its categories; the numbers it
    only checks."""
    encoder: ColumnTransformer = copy.copy(estimator._preprocessor)  # noqa: SLF001  no public name
    encoder.transformers_ = [
        (name, "passthrough" if name == "numerical" else child, columns)
        for name, child, columns in encoder.transformers_
    ]
    return encoder


def _does_nothing(transformer: Any) -> bool:
    if transformer is None or isinstance(transformer, str):
        return transformer in (None, "passthrough")
    return isinstance(transformer, FunctionTransformer) and transformer.func is None


def _branches(path: str, transformer: ColumnTransformer, names: list[str]) -> list[Branch]:
    if transformer.transformer_weights:
        raise ExportError(f"step {path!r}: transformer_weights cannot be converted")
    branches = []
    for name, child, selection in transformer.transformers_:
        columns = _positions(f"{path}/{name}", selection, names)
        if columns and not (isinstance(child, str) and child == "drop"):
            encode, steps = _split_at_encoder(_flatten(child, f"{path}/{name}"))
            branches.append(Branch(f"{path}/{name}", columns, encode, tuple(steps)))
    return branches


def _positions(path: str, selection: Any, names: list[str]) -> tuple[int, ...]:
    """Resolve a fitted ColumnTransformer's selection: names, positions, a slice or a mask."""
    if isinstance(selection, slice):
        start, stop = (
            names.index(s) if isinstance(s, str) else s for s in (selection.start, selection.stop)
        )
        stop = stop + 1 if isinstance(selection.stop, str) else stop
        return tuple(range(len(names))[start : stop : selection.step])
    chosen = np.atleast_1d(np.asarray(selection, dtype=object)).tolist()
    if chosen and all(isinstance(item, bool | np.bool_) for item in chosen):
        return tuple(i for i, item in enumerate(chosen) if item)
    try:
        return tuple(
            names.index(item) if isinstance(item, str) else range(len(names))[item]
            for item in chosen
        )
    except (ValueError, IndexError) as error:
        raise ExportError(
            f"step {path!r} selects {chosen}, which the signature's columns {names} do not hold"
        ) from error


def _split_at_encoder(steps: list[Step]) -> tuple[tuple[Step, ...], list[Step]]:
    if steps and isinstance(steps[0][1], CountVectorizer):
        return (steps[0],), steps[1:]
    ends = [i + 1 for i, (_, step) in enumerate(steps) if isinstance(step, _ENCODERS)]
    end = ends[-1] if ends else 0
    return tuple(steps[:end]), steps[end:]
