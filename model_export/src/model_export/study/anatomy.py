"""Takes a fitted estimator apart into pieces that can be converted one by one, and traces features
back to raw columns.

    columns ─┬─ branch: encode (text → numbers) → steps ─┐
             ├─ branch: steps ───────────────────────────┼─ features → steps → final estimator
             └─ …                                        ┘

`encode` is not converted operator by operator: it is a function of single categories, so `tables`
in `categories` tabulates it with the fitted encoder. The other steps turn numbers into numbers and
are converted one by one, so an error can name the step that failed.

A branch may have parts, which are joined before its steps: a Pipeline that begins with a
ColumnTransformer, inside another one. An estimator that combines others (voting, calibration) and
reads the raw columns has one anatomy per member, because each may encode the columns differently.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import RFE
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder

from model_export.errors import ExportError, listed
from model_export.study.decision import Threshold, find_threshold
from model_export.study.members import members, unwrapped
from model_export.study.own_categories import HistCategories, encoder_of, encoders_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)

Step = tuple[str, Any]
"""A path such as "prepare/numbers/impute", and the fitted transformer or estimator there."""


class Weight(TransformerMixin, BaseEstimator):
    """Multiplies all features by a factor: a weight of a ColumnTransformer or FeatureUnion.

    Args:
        factor: the weight.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def transform(self, rows: Any) -> Any:
        """The features, multiplied."""
        return np.asarray(rows) * self.factor


class WholeNumbers(OrdinalEncoder):
    """Says which values a CategoricalNB has learned for its columns: 0, 1, … up to the last one.

    Args:
        counts: how many, for each column.
    """

    def __init__(self, counts: Any) -> None:
        values = [np.arange(count) for count in counts]
        super().__init__(categories=values)  # type: ignore[no-untyped-call]  # sklearn has no types
        self.counts = counts
        self.fit(np.zeros((1, len(counts))))


@dataclass(frozen=True)
class Branch:
    """One path from raw columns to features."""

    name: str
    columns: tuple[int, ...]
    encode: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    parts: tuple[Branch, ...] = ()
    """Branches whose features, joined, are what `steps` read; then `encode` is empty."""

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

    def leaves(self) -> Iterator[Branch]:
        """The branches that read columns: this one, or those that it is made of."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def moved(self, positions: Mapping[int, int]) -> Branch:
        """The branch for columns at other positions, given as old → new."""
        return replace(
            self,
            columns=tuple(positions[i] for i in self.columns),
            parts=tuple(part.moved(positions) for part in self.parts),
        )


@dataclass(frozen=True)
class Anatomy:
    """The whole model: parallel branches, then the joint steps, then the estimator that answers."""

    branches: tuple[Branch, ...]
    steps: tuple[Step, ...]
    final: Step
    unused: tuple[int, ...] = field(default=())
    """Columns that no branch reads."""
    whole: bool = False
    """Each branch reads the whole input, not columns that a ColumnTransformer selects."""
    threshold: Threshold | None = None
    """How the label is chosen, if not by the final estimator itself."""
    members: tuple[Anatomy, ...] = ()
    """Of the estimators that `final` combines, if they read the raw columns; then there are no
    steps, and one branch of all columns."""

    def leaves(self) -> Iterator[Branch]:
        """The branches that read columns, those of the members included."""
        for branch in () if self.members else self.branches:
            yield from branch.leaves()
        for member in self.members:
            yield from member.leaves()

    @property
    def takes_texts(self) -> bool:
        """Whether the model takes a list of texts in place of a table."""
        if self.members:
            return all(member.takes_texts for member in self.members)
        return self.whole and all(branch.vectorizer is not None for branch in self.branches)

    def with_positions(self, positions: Mapping[int, int]) -> Anatomy:
        """The same anatomy for a schema with fewer columns.

        Args:
            positions: old → new, for every column that stays; all columns that are read stay.
        """
        if self.members:
            branches = tuple(
                replace(b, columns=tuple(positions[i] for i in b.columns if i in positions))
                for b in self.branches
            )
        else:
            branches = tuple(branch.moved(positions) for branch in self.branches)
        return replace(
            self,
            branches=branches,
            unused=tuple(positions[i] for i in self.unused if i in positions),
            members=tuple(member.with_positions(positions) for member in self.members),
        )


def dissect(estimator: Any, names: list[str], path: str = "") -> Anatomy:
    """Take `estimator` apart.

    Args:
        estimator: a fitted scikit-learn estimator or Pipeline.
        names: of the columns, in the signature's order.
        path: of the estimator, if it is inside another one.

    Raises:
        ExportError: a ColumnTransformer selects a column that is not in the signature, or a search
            kept no estimator.
    """
    *steps, final = _flatten(estimator, path)
    if not steps and isinstance(final[1], CategoricalNB):
        steps = [(f"{final[0]}/categories", WholeNumbers(final[1].n_categories_))]
    everything = tuple(range(len(names)))
    inside = members(final[1])
    if inside and not steps:
        return _with_members(estimator, final, inside, names)
    first = [step for _, step in steps[:1]]
    joined = _branch(final[0], steps, everything, names)
    if joined.parts:
        branches, steps = _with_own_categories(steps[0], joined.parts, joined.steps)
    else:
        branches, steps = (replace(joined, steps=()),), list(joined.steps)
    read = {column for branch in branches for leaf in branch.leaves() for column in leaf.columns}
    unused = tuple(i for i in everything if i not in read)
    # A ColumnTransformer selects columns of a table; a FeatureUnion passes a list of texts on.
    is_union = bool(first) and isinstance(first[0], FeatureUnion)
    whole = not joined.parts or (is_union and not any(part.parts for part in branches))
    threshold = find_threshold(estimator)
    return Anatomy(branches, tuple(steps), final, unused, whole, threshold)


def _with_own_categories(
    first: Step, branches: tuple[Branch, ...], steps: tuple[Step, ...]
) -> tuple[tuple[Branch, ...], list[Step]]:
    """Move the encoder of a booster's own categories, if it is the next step, into those branches
    of a ColumnTransformer that only pass columns on: there they are still columns of the row."""
    own = encoders_in(steps[0][1]) if steps else {}
    everything = set(own)
    if not own or not isinstance(first[1], ColumnTransformer):
        return branches, list(steps)
    found: list[Branch] = []
    for branch in branches:
        if branch.encode or branch.steps or branch.parts:
            found.append(branch)
            continue
        start = first[1].output_indices_[branch.name.removeprefix(f"{first[0]}/")].start
        features = enumerate(branch.columns, start)
        for feature, run in itertools.groupby(features, lambda i: i[0] if i[0] in own else -1):
            columns = tuple(column for _, column in run)
            encode = ((steps[0][0], own.pop(feature)),) if feature in own else ()
            found.append(replace(branch, columns=columns, encode=encode))
    path, step = steps[0]
    if isinstance(step, HistCategories):
        return tuple(found), [(path, step.without(everything - set(own))), *steps[1:]]
    # Those that are left are made by a step: no encoder can stand in front of it.
    return (branches, list(steps)) if own else (tuple(found), list(steps[1:]))


def _with_members(estimator: Any, final: Step, inside: Sequence[Step], names: list[str]) -> Anatomy:
    parts = tuple(dissect(one, names, f"{final[0]}/{name}") for name, one in inside)
    unused = set.intersection(*(set(part.unused) for part in parts))
    everything = Branch(final[0], tuple(range(len(names))))
    threshold = find_threshold(estimator)
    return Anatomy(
        (everything,), (), final, tuple(sorted(unused)), threshold=threshold, members=parts
    )


def _flatten(estimator: Any, path: str = "") -> list[Step]:
    """The steps of nested Pipelines as one list, without steps that do nothing and without wrappers
    that only pass on another estimator's answers."""
    inner = unwrapped(estimator)
    if inner is not estimator:
        return _flatten(inner, path)
    own = path or type(estimator).__name__
    if (own_step := getattr(estimator, "_preprocessor", None)) is not None:
        categories = HistCategories(own_step.transformers_)
        return [(f"{own}/categories", categories), (own, estimator)]
    if (encoder := encoder_of(estimator)) is not None:
        return [(f"{own}/categories", encoder), (own, estimator)]
    if isinstance(estimator, RFE) and hasattr(estimator, "predict"):
        return [(f"{own}/selection", estimator), *_flatten(estimator.estimator_, path)]
    if not isinstance(estimator, Pipeline):
        return [] if does_nothing(estimator) else [(own, estimator)]
    prefix = f"{path}/" if path else ""
    *before, (name, last) = estimator.steps
    steps = [step for name, child in before for step in _as_step(child, prefix + name)]
    return [*steps, *_flatten(last, prefix + name)]


def _as_step(transformer: Any, path: str) -> list[Step]:
    """As `_flatten`, for a step before the last one: a selector only selects there."""
    return [(path, transformer)] if isinstance(transformer, RFE) else _flatten(transformer, path)


def does_nothing(transformer: Any) -> bool:
    """True for a step whose output is its input: a sampler of imbalanced-learn, too, which changes
    the rows only while the model is trained."""
    if transformer is None or isinstance(transformer, str):
        return transformer in (None, "passthrough")
    if hasattr(transformer, "fit_resample") and not hasattr(transformer, "transform"):
        return True
    return isinstance(transformer, FunctionTransformer) and transformer.func is None


def _branch(name: str, steps: list[Step], columns: tuple[int, ...], names: list[str]) -> Branch:
    """The branch of these steps.

    Args:
        name: of the branch.
        steps: from `_flatten`.
        columns: that the first step reads.
        names: of all columns.
    """
    if steps and isinstance(steps[0][1], ColumnTransformer | FeatureUnion):
        parts = fan_out(*steps[0], columns, names)
        return Branch(name, columns, (), tuple(steps[1:]), tuple(parts))
    encode, steps = _split_at_encoder(steps)
    own = "/".join(n for n, _ in encode) or name
    return Branch(own, columns, encode, tuple(steps))


def fan_out(
    path: str, transformer: Any, columns: tuple[int, ...], names: list[str]
) -> list[Branch]:
    """The branches of a ColumnTransformer or FeatureUnion, in the order of their features.

    Args:
        path: of the transformer.
        transformer: fitted.
        columns: that it reads.
        names: of all columns.
    """
    weights = transformer.transformer_weights or {}
    found = []
    for name, child, chosen in _children(path, transformer, columns, names):
        if not chosen or (isinstance(child, str) and child == "drop"):
            continue
        own = f"{path}/{name}"
        branch = replace(_branch(own, _as_step(child, own), chosen, names), name=own)
        if name in weights:
            weight: Step = (f"{own}/weight", Weight(float(weights[name])))
            branch = replace(branch, steps=(*branch.steps, weight))
        found.append(branch)
    return found


def _children(
    path: str, transformer: Any, columns: tuple[int, ...], names: list[str]
) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    if isinstance(transformer, FeatureUnion):
        for name, child in transformer.transformer_list:
            yield name, child, columns
        return
    own = [names[i] for i in columns]
    for name, child, selection in transformer.transformers_:
        positions = _positions(f"{path}/{name}", selection, own)
        yield name, child, tuple(columns[i] for i in positions)


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
            f"step {path!r} selects {listed(chosen)}, which the signature's columns "
            f"{listed(names)} do not hold: log the model with the signature of the table that it "
            "was trained on"
        ) from error


def _split_at_encoder(steps: list[Step]) -> tuple[tuple[Step, ...], list[Step]]:
    if steps and isinstance(steps[0][1], CountVectorizer):
        return (steps[0],), steps[1:]
    ends = [i + 1 for i, (_, step) in enumerate(steps) if isinstance(step, _ENCODERS)]
    if not ends or any(_computes(step) for _, step in steps[: ends[0] - 1]):
        return (), steps
    return tuple(steps[: ends[-1]]), steps[ends[-1] :]


def _computes(step: Any) -> bool:
    """True for a step that makes other numbers of its numbers, such as a KBinsDiscretizer: what an
    encoder after it has learned are no values of the column."""
    if isinstance(step, FunctionTransformer):
        return isinstance(step.func, np.ufunc)
    return not isinstance(step, SimpleImputer)
