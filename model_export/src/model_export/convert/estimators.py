"""Converts any fitted estimator: its steps, then a single estimator (`leaf`) or the members that it
combines (`combine`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from onnx import TensorProto
from sklearn.base import is_regressor

from model_export.convert import combine, leaf, simple
from model_export.convert.graph import Mark
from model_export.convert.leaf import Classified
from model_export.convert.steps.through import along, column_names, joined, through
from model_export.convert.text import terms
from model_export.errors import ExportError
from model_export.study.anatomy import dissect
from model_export.study.categories import tables
from model_export.study.members import members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_export.convert.block import Block
    from model_export.study.anatomy import Anatomy, Branch
    from model_export.study.decision import Threshold
    from model_export.study.schema import Schema

_R = TypeVar("_R")


@dataclass(frozen=True)
class Reader:
    """An estimator and what it reads."""

    anatomy: Anatomy
    block: Block
    """The packed rows of the request, or features."""
    schema: Schema | None
    """Of the packed rows; None for features."""
    exact: bool = False
    """Another estimator goes on with its answers."""

    @property
    def path(self) -> str:
        """The estimator's path."""
        return self.anatomy.final[0]

    @property
    def estimator(self) -> Any:
        """The estimator after all steps."""
        return self.anatomy.final[1]

    @property
    def _nulls(self) -> bool:
        return self.block.builder.nulls

    @property
    def is_regressor(self) -> bool:
        """True for a regressor."""
        return bool(is_regressor(self.estimator))

    def _rule(self, rules: Mapping[type, _R]) -> _R | None:
        return combine.rule_of(self.estimator, rules, self.block.dtype, nulls=self._nulls)

    def classified(self) -> Classified:
        """Label and probabilities."""
        if len(getattr(self.estimator, "classes_", ())) == 1:
            # Whatever it reads: converters, ONNX's operators too, expect two classes or more.
            certain = self.block.repeated(np.ones(1))
            return Classified(certain.best(), certain)
        rule = self._rule(combine.CLASSIFIERS)
        if rule is None:
            features = self.features()
            answer = self._classified(features)
            self._mark("label", features, answer.label)
            if answer.probabilities is not None:
                self._mark("probabilities", features, answer.probabilities.name)
        else:
            answer = rule(self)
        threshold = self.anatomy.threshold
        return answer if threshold is None else self._by_threshold(answer, threshold)

    def decided(self) -> Block:
        """The decision function: [N, 1] for two classes."""
        rule = self._rule(combine.DECISIONS)
        if rule is not None:
            return rule(self)
        if self._rule(combine.CLASSIFIERS) is not None:
            raise ExportError(
                f"step {self.path!r}: the decision function of {type(self.estimator).__name__} "
                "cannot be converted: use an estimator with predict_proba"
            )
        simple_rule = simple.DECISIONS.get(type(self.estimator), leaf.decide)
        return simple_rule(self.features(), self.path, self.estimator)

    def regressed(self) -> Block:
        """Values, [N, K]."""
        rule = self._rule(combine.REGRESSORS)
        if rule is not None:
            return rule(self)
        features = self.features()
        simple_rule = simple.REGRESSORS.get(type(self.estimator))
        value = (
            leaf.regress(features, self.path, self.estimator, exact=self.exact)
            if simple_rule is None
            else simple_rule(features, self.path, self.estimator)
        )
        self._mark("value", features, value.name)
        return value

    def _classified(self, features: Block) -> Classified:
        simple_rule = simple.CLASSIFIERS.get(type(self.estimator))
        if simple_rule is not None:
            return simple_rule(features, self.path, self.estimator)
        return leaf.classify(features, self.path, self.estimator, exact=self.exact)

    def _mark(
        self, answers: Literal["label", "probabilities", "value"], read: Block, given: str
    ) -> None:
        mark = Mark(self.path, self.estimator, answers, read.name, given)
        self.block.builder.marks.append(mark)

    def members(self) -> list[Reader]:
        """The estimators that this one combines."""
        if self.anatomy.members:
            return [replace(self, anatomy=one, exact=True) for one in self.anatomy.members]
        features = self.features()
        inside = [(name, one, features) for name, one in members(self.estimator)]
        inside = inside or [
            (str(i), one, features.columns(tuple(int(c) for c in columns)))
            for i, (one, columns) in enumerate(combine.with_columns(self.estimator))
        ]
        return [self.inner(one, name, block) for name, one, block in inside]

    def inner(self, estimator: Any, name: str, block: Block) -> Reader:
        """An estimator inside this one that reads features."""
        names = column_names(estimator, block)
        anatomy = dissect(estimator, names, f"{self.path}/{name}")
        return Reader(anatomy, block, None, exact=True)

    def features(self) -> Block:
        """What the estimator reads after all steps.

        Raises:
            ExportError: a step cannot be converted.
        """
        schema, block = self.schema, self.block
        if schema is None:
            parts = [along(block.columns(b.columns), b) for b in self.anatomy.branches]
        else:
            parts = [_raw(block, branch, schema) for branch in self.anatomy.branches]
        features = parts[0] if len(parts) == 1 else block.joined(parts)
        for step in self.anatomy.steps:
            features = through(features, step)
        return features

    def numbers(self) -> Block:
        """The columns that the estimator reads, which must be numbers.

        Raises:
            ExportError: there are categories among them.
        """
        # Without members of their own it reads features, encoded by the steps before it.
        columns = self.schema.columns if self.schema and self.anatomy.members else ()
        if any(column.is_index for column in columns):
            raise ExportError(
                f"step {self.path!r} hands on its columns, among them text: encode them before it"
            )
        return self.features()

    def _by_threshold(self, answer: Classified, threshold: Threshold) -> Classified:
        """The label by comparing a score: at or above it is the positive class."""
        if threshold.method == "predict_proba":
            assert answer.probabilities is not None  # noqa: S101  it chooses by them
            score = answer.probabilities.columns((threshold.positive,))
        else:
            decision = self.decided()
            score = decision if threshold.positive == 1 else -decision
        # In the type of the scores, so that a forest's 0.3 reaches a threshold of 0.3: both are
        # rounded in the same way.
        reached = score.test("GreaterOrEqual", threshold.value)
        if threshold.positive == 0:
            reached = score.builder.node("Not", reached)
        label = leaf.flat(score, score.builder.cast(reached, TensorProto.INT64))
        return Classified(label, answer.probabilities)


def _raw(rows: Block, branch: Branch, schema: Schema) -> Block:
    """The features of a branch that reads packed rows."""
    if branch.parts:
        block = joined(rows, branch.parts, lambda part: _raw(rows, part, schema))
    elif branch.vectorizer is not None:
        block = terms(rows, branch, schema)
    elif branch.encode:
        looked_up = [rows.looked_up(table.column, table.values) for table in tables(branch, schema)]
        block = looked_up[0]
        for other in looked_up[1:]:
            block = block + other
    else:
        block = rows.columns(branch.columns)
    for step in branch.steps:
        block = through(block, step)
    return block
