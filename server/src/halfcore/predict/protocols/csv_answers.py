"""Answers in CSV, as SageMaker's containers give them: one line per row, without a header."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from halfcore.bundle import Manifest
from halfcore.pipeline.engine import Result

CSV_ANSWER = "text/csv; charset=utf-8"
_CSV, _JSON = "text/csv", "application/json"


def prefers_csv(accept: str | None) -> bool:
    """Whether an Accept header names CSV, and does not prefer JSON; between equals the first one
    counts."""
    if accept is None or _CSV not in accept.lower():
        return False
    best, chosen = 0.0, ""
    for part in accept.lower().split(","):
        kind, *parameters = [word.strip() for word in part.split(";")]
        quality = _quality(parameters)
        if kind in (_CSV, _JSON) and quality > best:
            best, chosen = quality, kind
    return chosen == _CSV


def _quality(parameters: Sequence[str]) -> float:
    for name, _, value in (each.partition("=") for each in parameters):
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def as_csv(manifest: Manifest, results: Sequence[Result], *, probabilities: bool) -> bytes:
    """Lines of a label, a value or values, or the probabilities in the order of the classes.

    Args:
        manifest: of the model.
        results: per row, see `pipeline.engine.Result`.
        probabilities: those, if the model has some, in place of the label.
    """
    rows: list[Sequence[Any]]
    if not manifest.classes:
        rows = [value if getattr(value, "ndim", 0) else (value,) for (value,) in results]
    elif probabilities and "probabilities" in manifest.outputs:
        rows = [[f"{p:.7g}" for p in result[1]] for result in results]
    else:
        rows = [(manifest.classes[result[0]],) for result in results]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
