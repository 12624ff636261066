"""What the users of a bundle should know about its proof, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_export.prove.domain import magnitudes, usual_magnitude

if TYPE_CHECKING:
    from model_export.prove.prove import Proof
    from model_export.study.study import StudiedModel


def cautions(studied: StudiedModel, proof: Proof) -> list[str]:
    """Sentences for the table and the manifest's `parity.warnings`."""
    return [*studied.data.warnings, *_of_classes(studied), *_of_neighbours(studied, proof)]


def _of_classes(studied: StudiedModel) -> list[str]:
    classes = studied.answers.classes
    if len(classes) != 1:
        return []
    return [f"the model was trained on a single class and answers {classes[0]!r} for every row"]


def _of_neighbours(studied: StudiedModel, proof: Proof) -> list[str]:
    """How many rows like the data get another answer than the registered model's. Far from the
    data all training rows are equally far, which concerns no client."""
    excused = np.flatnonzero(proof.comparison.excused)
    if not len(excused):
        return []
    sizes = magnitudes(proof.truth.sample.take(excused), studied.schema)
    near = int((sizes <= usual_magnitude(studied)).sum())
    if not near:
        return []
    said = (
        f"{near:,} of {proof.truth.size:,} rows get another answer than the registered model's, "
        "and both are right: training rows are equally far from them, and which of those "
        "scikit-learn chooses depends on how it searches"
    )
    return [said]
