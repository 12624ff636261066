"""Follows one row through the graph and the fitted parts, to find where they begin to differ.

The graph is converted once more; its outputs are then what every step and every estimator reads and
answers. Each fitted part is asked for its answer to exactly what it reads in the graph: a part that
answers otherwise is converted wrongly, or the row is a tie for it. If all parts answer alike, only
the numbers between them differ, by rounding: the same outputs of a float64 graph show where.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from model_export.convert.model import traced_model
from model_export.prove.compare import difference
from model_export.prove.runtime import Runtime
from model_export.prove.thresholds import tree_splits
from model_export.registry.onnx_model import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_export.convert.block import Dtype
    from model_export.convert.graph import Mark
    from model_export.study.arrays import Matrix, Values
    from model_export.study.schema import Schema
    from model_export.study.study import StudiedModel

_P = ParamSpec("_P")
_T = TypeVar("_T")

ROUNDING = {"float32": 1e-5, "float64": 1e-9}
"""A part whose answer differs by less, relative to max(1, |value|), only rounds otherwise; a tenth
of it for probabilities."""
_EQUAL = 1e-12
_MOST_S = 20.0
"""The search stops after so long; a part that is being asked is not interrupted."""
_MOST_SPLITS = 300_000
"""A larger forest is not converted again: that takes as long as the export has taken."""


@dataclass(frozen=True)
class Place:
    """A part of the model, with two answers to one row."""

    mark: Mark
    read: Values
    """float64[W]: what it reads in the graph; empty if it reads a text."""
    registered: Values
    graph: Values

    @property
    def step(self) -> str:
        """Its path and its class."""
        return f"{self.mark.path!r} ({type(self.mark.part).__name__})"

    @property
    def overflows(self) -> bool:
        """One of the two answers is not finite."""
        both = np.concatenate([self.registered, self.graph])
        return not np.isfinite(both[~np.isnan(both)]).all() or bool(
            (np.isnan(self.registered) != np.isnan(self.graph)).any()
        )

    def shown(self) -> str:
        """Both answers, of the number that differs most."""
        if self.mark.answers == "label":
            known = np.asarray(self.mark.part.classes_).tolist()
            first, second = (known[int(one[0])] for one in (self.registered, self.graph))
            return f"{first!r} in the registered model, {second!r} in the graph"
        apart = np.nan_to_num(np.abs(self.registered - self.graph), nan=np.inf)
        i = int(np.argmax(apart))
        where = f", number {i + 1} of {len(apart)}" if len(apart) > 1 else ""
        return (
            f"{self.registered[i]:.10g} in the registered model, {self.graph[i]:.10g} in the "
            f"graph{where}"
        )


@dataclass(frozen=True)
class Trace:
    """What the parts of one graph read and answer for one row."""

    marks: list[Mark]
    read: list[Values]
    given: list[Values]
    row: Matrix
    schema: Schema
    dtype: Dtype

    def fault(self) -> Place | None:
        """The first part that answers otherwise than the fitted one, by more than rounding."""
        deadline = time.monotonic() + _MOST_S
        for number, mark in enumerate(self.marks):
            if time.monotonic() > deadline:
                return None
            own = attempted(self._own, mark, number)
            bound = ROUNDING[self.dtype] / (10.0 if mark.answers == "probabilities" else 1.0)
            if own is not None and _apart(mark, self.given[number], own) > bound:
                return Place(mark, self.read[number], own, self.given[number])
        return None

    def apart_from(self, exact: Trace) -> Place | None:
        """The first part whose answer is not that of the other trace, of a graph in float64."""
        for number, place in enumerate(self.places(exact)):
            if _apart(place.mark, self.given[number], exact.given[number]) > _EQUAL:
                return place
        return None

    def places(self, exact: Trace) -> Iterator[Place]:
        """The parts with the answers of both traces, those of the other one as the registered
        model's."""
        if len(self.marks) == len(exact.marks):
            for mark, read, other, own in zip(
                self.marks, self.read, exact.given, self.given, strict=True
            ):
                yield Place(mark, read, other, own)

    def _own(self, mark: Mark, number: int) -> Values | None:
        if getattr(mark.part, "_preprocessor", None) is not None:
            return None  # it would encode again what a step before it has encoded
        read: Any = self.read[number].reshape(1, -1)
        if mark.column >= 0:
            column = self.schema.columns[mark.column]
            read = [column.categories[int(self.row[0, mark.column])]]
        if mark.answers == "features":
            found = mark.part.transform(read)
            found = found.toarray() if hasattr(found, "toarray") else found
        elif mark.answers == "probabilities":
            found = mark.part.predict_proba(read)
        elif mark.answers == "label":
            known = np.asarray(mark.part.classes_).tolist()
            found = [known.index(np.ravel(mark.part.predict(read)).tolist()[0])]
        else:
            found = mark.part.predict(read)
        flat = np.asarray(found, dtype=np.float64).reshape(-1)
        return flat if flat.shape == self.given[number].shape else None


def follow(studied: StudiedModel, dtype: Dtype, row: Matrix) -> Trace | None:
    """Convert the model again and follow one row; None if it cannot be, or the model is too large.

    Args:
        studied: the model.
        dtype: of the graph.
        row: float64[1, F], packed.
    """
    final = studied.anatomy.final[1]
    splits = sum(len(thresholds) for _, thresholds in tree_splits(final))
    if isinstance(final, OnnxModel) or splits > _MOST_SPLITS:
        return None
    return attempted(_followed, studied, dtype, row)


def _followed(studied: StudiedModel, dtype: Dtype, row: Matrix) -> Trace:
    model, marks = traced_model(studied.anatomy, studied.schema, studied.answers, dtype)
    runtime = Runtime(model.SerializeToString(), dtype, studied.schema)
    found = {
        name: np.asarray(output, dtype=np.float64).reshape(-1)
        for name, output in zip(runtime.outputs, runtime.run(row), strict=True)
    }
    read = [found.get(f"read_{i}", np.empty(0)) for i in range(len(marks))]
    given = [found[f"given_{i}"] for i in range(len(marks))]
    return Trace(marks, read, given, row, studied.schema, dtype)


def attempted(action: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T | None:
    """What the action returns; None if it raises. A search for a cause must not hide the refusal
    that it explains."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of column names, and of overflows
            return action(*args, **named)
    except Exception:  # noqa: BLE001  the fitted parts may raise anything
        return None


def _apart(mark: Mark, ours: Values, theirs: Values) -> float:
    if ours.shape != theirs.shape:
        return 0.0
    if mark.answers == "label":
        return float(ours[0] != theirs[0])
    relative = mark.answers != "probabilities"
    return float(difference(ours.reshape(1, -1), theirs.reshape(1, -1), relative=relative)[0])
