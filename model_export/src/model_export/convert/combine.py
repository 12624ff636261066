"""Converts estimators that combine the answers of others: voting, stacking, calibration, one
classifier per class or pair of classes, bagging, several targets, transformed targets.

skl2onnx adds these answers in float32, refuses Pipelines as members, or answers otherwise than
scikit-learn. Here each member is converted as if it were a model, and its answers are combined in
float64, in scikit-learn's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from onnx import TensorProto
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.isotonic import IsotonicRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputRegressor, RegressorChain

from model_export.convert.leaf import Classified, above, both
from model_export.convert.steps.functions import expit
from model_export.convert.steps.scale import inverted
from model_export.convert.steps.search import Lines
from model_export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model_export.convert.block import Block
    from model_export.convert.estimators import Reader


_R = TypeVar("_R")


def rule_of(estimator: Any, rules: Mapping[type, _R], dtype: str, *, nulls: bool) -> _R | None:
    """The rule for an estimator's class; None if it combines no others.

    Args:
        estimator: fitted.
        rules: by class.
        dtype: of its features.
        nulls: a null may be one of its features.
    """
    for kind, rule in rules.items():
        if isinstance(estimator, kind) and not _is_of_trees(estimator, dtype, nulls=nulls):
            return rule
    return None


def _is_of_trees(estimator: Any, dtype: str, *, nulls: bool) -> bool:
    """Hundreds of trees are faster as one operator each, which skl2onnx makes of them; except where
    nulls have a side, of an AdaBoost in float64, whose graph does not load, and of infinite
    thresholds (of training on nulls), which skl2onnx 1.20 makes float64 in a loop without end."""
    if not isinstance(estimator, AdaBoostClassifier | BaggingClassifier | BaggingRegressor):
        return False
    if nulls or (dtype == "float64" and isinstance(estimator, AdaBoostClassifier)):
        return False
    trees = [getattr(one, "tree_", None) for one in estimator.estimators_]
    return all(tree is not None and bool(np.isfinite(tree.threshold).all()) for tree in trees)


def with_columns(estimator: Any) -> list[tuple[Any, Any]]:
    """The members that read some of the features each, with the features' positions."""
    if isinstance(estimator, BaggingClassifier | BaggingRegressor):
        return list(zip(estimator.estimators_, estimator.estimators_features_, strict=True))
    if isinstance(estimator, AdaBoostClassifier):
        width = estimator.n_features_in_  # type: ignore[attr-defined]  # its stub lacks it
        return [(one, range(width)) for one in estimator.estimators_]
    return []


def _sum(blocks: Sequence[Block]) -> Block:
    total = blocks[0]
    for block in blocks[1:]:
        total = total + block
    return total


def _average(blocks: Sequence[Block], weights: Sequence[float] | None = None) -> Block:
    """In float64, as `numpy.average`."""
    wide = [block.as_dtype("float64") for block in blocks]
    if weights is None:
        return _sum(wide) / float(len(wide))
    scaled = [block * float(weight) for block, weight in zip(wide, weights, strict=True)]
    return _sum(scaled) / float(np.sum(weights))


def _probabilities(member: Reader) -> Block:
    found = member.classified().probabilities
    if found is None:
        raise ExportError(
            f"step {member.path!r} ({type(member.estimator).__name__}) gives no probabilities that "
            "can be converted: use another estimator there"
        )
    return found.as_dtype("float64")


def _weights(estimator: Any) -> Sequence[float] | None:
    return estimator._weights_not_none  # type: ignore[no-any-return]  # noqa: SLF001


def _voting(reader: Reader) -> Classified:
    voting = reader.estimator
    weights = _weights(voting)
    if voting.voting == "soft":
        mean = _average([_probabilities(member) for member in reader.members()], weights)
        return Classified(mean.best(), mean)
    labels = [member.classified().label for member in reader.members()]
    votes = [_one_hot(reader.block, label, len(voting.classes_)) for label in labels]
    scaled = [
        vote * float(weight)
        for vote, weight in zip(votes, weights or [1.0] * len(votes), strict=True)
    ]
    return Classified(_sum(scaled).best(), None)


def _one_hot(like: Block, label: str, classes: int) -> Block:
    """float64[N, C]: 1 in the column of the label."""
    column = _label_column(like, label)
    return column.flags(column.test("Equal", np.arange(float(classes))), classes)


def _label_column(like: Block, label: str) -> Block:
    """float64[N, 1]: the label's index."""
    builder = like.builder
    shape = builder.constant(np.asarray([-1, 1], dtype=np.int64))
    name = builder.node("Reshape", label, shape)
    return type(like)(builder, builder.cast(name, TensorProto.DOUBLE), 1, "float64")


def _stacked(reader: Reader) -> Reader:
    """The final estimator, which reads the members' answers."""
    stacking = reader.estimator
    binary = len(getattr(stacking, "classes_", ())) == 2
    parts = []
    for member, method in zip(reader.members(), stacking.stack_method_, strict=True):
        if method == "predict_proba":
            found = _probabilities(member)
            found = found.columns(tuple(range(1, found.width))) if binary else found
        elif method == "decision_function":
            found = member.decided()
        elif member.is_regressor:
            found = member.regressed()
        else:
            found = _label_values(member)
        parts.append(found.as_dtype("float64"))
    if stacking.passthrough:
        parts.append(reader.numbers().as_dtype("float64"))
    return reader.inner(stacking.final_estimator_, "final_estimator", parts[0].joined(parts))


def _label_values(member: Reader) -> Block:
    """The labels themselves: scikit-learn stacks on numbers only."""
    classes = np.asarray(member.estimator.classes_)
    column = _label_column(member.block, member.classified().label)
    return column.picked(classes.astype(np.float64), column.indices())


def _scores(member: Reader) -> Block:
    """What scikit-learn calls the response: decisions, otherwise probabilities; [N, 1] for two
    classes."""
    if hasattr(member.estimator, "decision_function"):
        return member.decided().as_dtype("float64")
    found = _probabilities(member)
    return found.columns((1,)) if found.width == 2 else found


def _calibrated(reader: Reader) -> Classified:
    model = reader.estimator
    parts = [
        _calibration(reader, member, fold)
        for member, fold in zip(reader.members(), model.calibrated_classifiers_, strict=True)
    ]
    mean = _average(parts)
    return Classified(mean.best(), mean)


def _calibration(reader: Reader, member: Reader, fold: Any) -> Block:
    scores, classes = _scores(member), len(fold.classes)
    if fold.method == "temperature":
        return _tempered(scores, member, fold)
    known = np.asarray(reader.estimator.classes_).tolist()
    places = [known.index(one) for one in np.asarray(member.estimator.classes_).tolist()]
    columns = [
        _calibrator(scores.columns((i,)), calibrator)
        for i, calibrator in enumerate(fold.calibrators)
    ]
    if classes == 2:
        return both(columns[0])
    nothing = columns[0] * 0.0
    at = dict(zip(places, columns, strict=False))
    joined = columns[0].joined([at.get(i, nothing) for i in range(classes)])
    total = joined.reduced("ReduceSum")
    shares = joined / total
    equal = shares.repeated(np.full(classes, 1.0 / classes))
    return shares.where(total.test("Equal", 0.0), equal)


def _calibrator(score: Block, calibrator: Any) -> Block:
    if isinstance(calibrator, IsotonicRegression):
        x, y = calibrator.X_thresholds_, calibrator.y_thresholds_
        if x.dtype == np.float32:
            score = score.as_dtype("float32").as_dtype("float64")
        return Lines([x.astype(np.float64)], [y.astype(np.float64)]).at(score)
    return expit(-(score * float(calibrator.a_) + float(calibrator.b_)))


def _tempered(scores: Block, member: Reader, fold: Any) -> Block:
    by_probability = not hasattr(member.estimator, "decision_function")
    if by_probability:
        scores = both(scores) if scores.width == 1 else scores
        logits = (scores + 1e-12).apply("Log")
    else:
        logits = scores.joined([-scores, scores]) if scores.width == 1 else scores
    return (logits * float(fold.calibrators[0].beta_)).apply("Softmax", axis=1)


def _binary_score(member: Reader) -> Block:
    """float64[N, 1] of a classifier of two classes: its decision, otherwise its probability."""
    if member.is_regressor:
        return member.regressed().as_dtype("float64")
    if type(member.estimator).__name__ == "_ConstantPredictor":
        return member.block.as_dtype("float64").repeated(np.asarray(member.estimator.y_))
    return _scores(member)


def _binary_limit(member: Reader) -> float:
    decides = hasattr(member.estimator, "decision_function") and not member.is_regressor
    return 0.0 if decides else 0.5


def _one_vs_rest(reader: Reader) -> Classified:
    inside = reader.members()
    scores = _one_vs_rest_decision(reader)
    label = above(scores, _binary_limit(inside[0])) if len(inside) == 1 else scores.best()
    if not hasattr(reader.estimator, "predict_proba"):
        return Classified(label, None)
    positive = [_positive(member) for member in inside]
    if len(positive) == 1:
        return Classified(label, both(positive[0]))
    joined = positive[0].joined(positive)
    total = joined.reduced("ReduceSum")
    shares = joined / total
    return Classified(label, shares.where(total.test("Equal", 0.0), joined))


def _positive(member: Reader) -> Block:
    if type(member.estimator).__name__ == "_ConstantPredictor":
        return _binary_score(member)
    return _probabilities(member).columns((1,))


def _one_vs_rest_decision(reader: Reader) -> Block:
    scores = [_binary_score(member) for member in reader.members()]
    return scores[0] if len(scores) == 1 else scores[0].joined(scores)


def _one_vs_one(reader: Reader) -> Classified:
    decision = _one_vs_one_decision(reader)
    if decision.width > 1:
        return Classified(decision.best(), None)
    return Classified(above(decision, _binary_limit(reader.members()[0])), None)


def _one_vs_one_decision(reader: Reader) -> Block:
    """Votes, and less than a vote for the sum of confidences."""
    classes, inside = len(reader.estimator.classes_), reader.members()
    if any(member.is_regressor for member in inside):
        raise ExportError(
            f"step {reader.path!r}: a OneVsOneClassifier of regressors cannot be converted: use "
            "classifiers"
        )
    scores = [_binary_score(member) for member in inside]
    confidence = scores[0].joined(scores)
    votes = [_label_column(reader.block, member.classified().label) for member in inside]
    second = votes[0].joined(votes)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    lower = np.asarray([[float(c == i) for c in range(classes)] for i, _ in pairs])
    upper = np.asarray([[float(c == j) for c in range(classes)] for _, j in pairs])
    total = confidence.times(upper - lower)
    counted = second.times(upper) + (1.0 - second).times(lower)
    decision = counted + total / ((total.apply("Abs") + 1.0) * 3.0)
    return decision.columns((1,)) if classes == 2 else decision


def _output_code(reader: Reader) -> Classified:
    scores = [_binary_score(member) for member in reader.members()]
    codes = np.asarray(reader.estimator.code_book_, dtype=np.float64)
    joined = scores[0].joined(scores)
    apart = joined.times(codes.T) * -2.0 + (codes * codes).sum(axis=1).reshape(1, -1)
    return Classified((-apart).best(), None)


def _bagged(reader: Reader) -> Classified:
    classes = len(reader.estimator.classes_)
    parts = []
    for member in reader.members():
        answer = member.classified()
        if answer.probabilities is None:
            found = _one_hot(reader.block, answer.label, len(member.estimator.classes_))
        else:
            found = answer.probabilities.as_dtype("float64")
        own = np.asarray(member.estimator.classes_)
        if len(own) < classes:
            found = found.times((own.reshape(-1, 1) == np.arange(classes)).astype(np.float64))
        parts.append(found)
    mean = _average(parts)
    return Classified(mean.best(), mean)


def _adaptive_decision(reader: Reader) -> Block:
    """AdaBoost's SAMME: each member's weight for its label, and a share of it against the others;
    [N, 1] for two classes."""
    model, classes = reader.estimator, len(reader.estimator.classes_)
    weights = np.asarray(model.estimator_weights_, dtype=np.float64)
    parts = []
    for member, weight in zip(reader.members(), weights.tolist(), strict=False):
        own = np.asarray(member.estimator.classes_)
        vote = _one_hot(reader.block, member.classified().label, len(own))
        if len(own) < classes:
            vote = vote.times((own.reshape(-1, 1) == model.classes_).astype(np.float64))
        against = -weight / (classes - 1)
        parts.append(vote * (weight - against) + against)
    decision = _sum(parts) / float(weights.sum())
    if classes > 2:
        return decision
    return decision.columns((1,)) - decision.columns((0,))


def _adaptive(reader: Reader) -> Classified:
    decision = _adaptive_decision(reader)
    if decision.width == 1:
        pair = decision.joined([-decision, decision]) / 2.0
        return Classified(above(decision, 0.0), pair.apply("Softmax", axis=1))
    logits = decision / float(decision.width - 1)
    return Classified(decision.best(), logits.apply("Softmax", axis=1))


def _mean_value(reader: Reader) -> Block:
    weights = _weights(reader.estimator) if hasattr(reader.estimator, "weights") else None
    return _average([member.regressed() for member in reader.members()], weights)


def _side_by_side(reader: Reader) -> Block:
    values = [member.regressed().as_dtype("float64") for member in reader.members()]
    return values[0].joined(values)


def _chained(reader: Reader) -> Block:
    chain, features = reader.estimator, reader.numbers().as_dtype("float64")
    values: list[Block] = []
    for number, estimator in enumerate(chain.estimators_):
        read = features.joined([features, *values])
        values.append(reader.inner(estimator, str(number), read).regressed().as_dtype("float64"))
    order = list(chain.order_)
    return values[0].joined([values[order.index(target)] for target in range(len(order))])


def _transformed_target(reader: Reader) -> Block:
    (member,) = reader.members()
    value = member.regressed().as_dtype("float64")
    return inverted(value, f"{reader.path}/transformer", reader.estimator.transformer_)


CLASSIFIERS: Mapping[type, Callable[[Reader], Classified]] = {
    AdaBoostClassifier: _adaptive,
    BaggingClassifier: _bagged,
    CalibratedClassifierCV: _calibrated,
    OneVsOneClassifier: _one_vs_one,
    OneVsRestClassifier: _one_vs_rest,
    OutputCodeClassifier: _output_code,
    StackingClassifier: lambda reader: _stacked(reader).classified(),
    VotingClassifier: _voting,
}
DECISIONS: Mapping[type, Callable[[Reader], Block]] = {
    AdaBoostClassifier: _adaptive_decision,
    OneVsOneClassifier: _one_vs_one_decision,
    OneVsRestClassifier: _one_vs_rest_decision,
    StackingClassifier: lambda reader: _stacked(reader).decided(),
}
REGRESSORS: Mapping[type, Callable[[Reader], Block]] = {
    BaggingRegressor: _mean_value,
    MultiOutputRegressor: _side_by_side,
    RegressorChain: _chained,
    StackingRegressor: lambda reader: _stacked(reader).regressed(),
    TransformedTargetRegressor: _transformed_target,
    VotingRegressor: _mean_value,
}
