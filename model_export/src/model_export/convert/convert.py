"""Converts a studied model to a candidate for the proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export.convert.model import convert_model

if TYPE_CHECKING:
    from model_export.convert.block import Dtype
    from model_export.study.study import StudiedModel


@dataclass(frozen=True)
class Candidate:
    """A converted model, not yet proven."""

    dtype: Dtype
    model: bytes
    ir_version: int
    opset: dict[str, int]


def convert(studied: StudiedModel, dtype: Dtype) -> Candidate:
    """Convert the model in one precision.

    Raises:
        ExportError: names the step that cannot be converted to ONNX.
    """
    model = convert_model(studied.anatomy, studied.schema, studied.answers, dtype)
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return Candidate(dtype, model.SerializeToString(), model.ir_version, opset)
