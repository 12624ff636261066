"""The causes that make registered model and graph differ, each with the step, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.impute import KNNImputer

from model_export.prove.domain import magnitudes
from model_export.prove.ties import crossed, near_threshold, split_place, tie
from model_export.prove.trace import ROUNDING, attempted
from model_export.study.rows import to_model_input

if TYPE_CHECKING:
    from model_export.convert.graph import Mark
    from model_export.prove.trace import Place, Trace
    from model_export.study.arrays import Matrix, Values
    from model_export.study.study import StudiedModel

Kind = Literal[
    "batch", "tie", "imputed tie", "threshold", "rounding", "converter", "domain", "unknown"
]

_OF_PRECISION = ("threshold", "rounding", "batch", "domain")
"""A graph in float64 helps."""
_DOMAIN = "out of the model's domain: "
_OTHER_WAYS = "use another estimator or other settings there, or log the model as ONNX"
_ADVICE: dict[Kind, str] = {
    "batch": "use an estimator whose scores lie further apart",
    "tie": "train it so that no two are equal (data without repeated values, another number of "
    "neighbours), or use an estimator without ties",
    "imputed tie": "use a SimpleImputer or an IterativeImputer there, which have no ties",
    "threshold": "remove the step before the trees, or round the training data to float32",
    "rounding": "scale the data to smaller numbers before it, or use another estimator",
    "converter": _OTHER_WAYS,
    "domain": "train on data of that size, or limit the numbers before that step with a "
    "FunctionTransformer of numpy.clip",
    "unknown": _OTHER_WAYS,
}


@dataclass(frozen=True)
class Cause:
    """Why one row is answered otherwise."""

    kind: Kind
    text: str
    """Without values of the row."""
    where: str = ""
    """The step at which the values first differ, with the values."""

    def advice(self, dtype: str, *, tried: bool) -> str:
        """What to do.

        Args:
            dtype: of the graph.
            tried: a float64 graph was tried.
        """
        if dtype == "float32" and not tried and self.kind in _OF_PRECISION:
            return "export with --dtype float64, or without --dtype"
        return _ADVICE[self.kind]

    def beyond_domain(self, studied: StudiedModel, row: Matrix) -> Cause:
        """The cause of a row that is far from the data."""
        size = float(magnitudes(row, studied.schema)[0])
        largest = float(magnitudes(studied.data.packed, studied.schema).max(initial=0.0))
        return replace(
            self,
            kind="domain",
            text=f"the rows that differ are out of the model's domain: they hold numbers of "
            f"±{size:.3g}, the largest in the data is {largest:.3g}, and a limit between them must "
            f"leave room for 1,000 times the data; there, {self.text.removeprefix(_DOMAIN)}",
        )


def unsteady() -> Cause:
    """Labels that change with the batch."""
    return Cause(
        "batch",
        "the runtime adds in another order for other batch sizes, and the two best scores are "
        "equal but for that",
    )


def find(studied: StudiedModel, traced: Trace | None, exact: Trace | None, row: Matrix) -> Cause:
    """The cause for one row.

    Args:
        studied: the model.
        traced: the row's way through the graph; None if it could not be followed.
        exact: the same in float64, if there is such a graph and the other one is in float32.
        row: float64[1, F].
    """
    if traced is None:
        return Cause(
            "unknown",
            f"not known: the steps of {studied.anatomy.final[0]!r} could not be followed one by "
            "one",
        )
    fault = traced.fault()
    if fault is not None:
        return _at(studied, fault, traced, exact)
    found = None if exact is None else _between(studied, traced, exact)
    return found or _input(studied, traced, row) or _together(studied, traced)


def _at(studied: StudiedModel, place: Place, traced: Trace, exact: Trace | None) -> Cause:
    """A part that answers otherwise for the same input."""
    where = f"values first differ at step {place.step}: {place.shown()}"
    mark, single = place.mark, traced.dtype == "float32"
    if mark.read and (equal := _tie(mark, place.read)):
        kind: Kind = "imputed tie" if isinstance(mark.part, KNNImputer) else "tie"
        return Cause(kind, f"a tie at step {place.step}: {equal}", where)
    if place.overflows:
        return Cause(
            "domain",
            f"{_DOMAIN}step {place.step} makes of the row a number that is too large for "
            f"{traced.dtype}",
            where,
        )
    split = attempted(near_threshold, mark.part, place.read) if single else None
    if split is not None:
        return Cause("threshold", _held(studied, mark, place.read, split), where)
    if single and exact is None:
        return Cause(
            "unknown",
            f"step {place.step} answers otherwise for the same input, by its conversion or by "
            "float32's rounding: there is no float64 graph to compare with",
            where,
        )
    again = exact.fault() if exact is not None else None
    if exact is not None and (again is None or again.mark.path != mark.path):
        return Cause(
            "rounding",
            f"float32 cannot hold the numbers that step {place.step} computes with; in float64 it "
            "answers alike",
            where,
        )
    return Cause(
        "converter",
        f"step {place.step} is converted wrongly: for the same input it answers otherwise in the "
        "graph",
        where,
    )


def _between(studied: StudiedModel, traced: Trace, exact: Trace) -> Cause | None:
    """Every part answers alike, and a part reads other numbers than in float64."""
    first = traced.apart_from(exact)
    if first is None:
        return None
    where = f"values first differ at step {first.step}: {first.shown()}"
    origin = "at step " + first.step
    if first.mark.part is studied.anatomy.final[1]:
        origin = "of the row itself"
    for mark, exact_read, read in zip(traced.marks, exact.read, traced.read, strict=False):
        found = attempted(crossed, mark.part, exact_read, read)
        if found is not None:
            return Cause(
                "threshold", f"{_held(studied, mark, read, found)} (rounding {origin})", where
            )
        if mark.answers == "label" and (equal := _tie(mark, read)):
            return Cause("tie", f"a tie at step {mark.path!r}: {equal}", where)
    return Cause("rounding", f"rounding to float32 {origin}", where)


def _held(studied: StudiedModel, mark: Mark, read: Values, split: tuple[int, float]) -> str:
    at = attempted(split_place, studied, mark.part, *split) or f"feature {split[0] + 1}"
    return (
        f"a threshold that float32 cannot hold: the trees of step {mark.path!r}, which reads "
        f"{len(read)} features, split {at}, and rounding to float32 moves the row to the other side"
    )


def _tie(mark: Mark, read: Values) -> str | None:
    return attempted(tie, mark.part, read, of_labels=mark.answers == "label")


def _input(studied: StudiedModel, traced: Trace, row: Matrix) -> Cause | None:
    """The registered model itself answers the rounded row otherwise than the row."""
    numbers = np.asarray([column.is_numeric for column in studied.schema.columns])
    rounded = np.where(numbers, row.astype(traced.dtype).astype(np.float64), row)
    changed = np.flatnonzero((rounded != row)[0] & ~np.isnan(row[0]))
    answers = [attempted(_predicted, studied, one) for one in (row, rounded)]
    if not len(changed) or _alike(*answers):
        return None
    names = ", ".join(repr(studied.schema.columns[i].name) for i in changed[:5])
    more = ", …" if len(changed) > 5 else ""
    return Cause(
        "rounding",
        f"float32 cannot hold the row's numbers in the columns {names}{more}: the registered model "
        "itself answers otherwise for the rounded row",
        "values first differ in the row itself, which float32 rounds: "
        f"{row[0, changed[0]]:.17g} in the registered model, {rounded[0, changed[0]]:.17g} in the "
        "graph",
    )


def _predicted(studied: StudiedModel, row: Matrix) -> Any:
    rows = to_model_input(row, studied.schema)
    return np.asarray(studied.fetched.estimator.predict(rows))


def _alike(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return True
    if one.dtype.kind == "f":
        bound = ROUNDING["float32"]
        return bool(np.allclose(one, other, rtol=bound, atol=bound, equal_nan=True))
    return bool(np.array_equal(one, other))


def _together(studied: StudiedModel, traced: Trace) -> Cause:
    """Nothing differs in a single part."""
    for mark, read in zip(traced.marks, traced.read, strict=True):
        if mark.answers == "label" and (equal := _tie(mark, read)):
            return Cause("tie", f"a tie at step {mark.path!r}: {equal}")
    return Cause(
        "unknown",
        f"each step of {studied.anatomy.final[0]!r} answers alike, within "
        f"{ROUNDING[traced.dtype]:.0e}, and the differences add up",
    )
