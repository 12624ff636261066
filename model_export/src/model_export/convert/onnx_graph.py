"""Makes the graph of docs/bundle-format.md from one that was registered as ONNX: its operators stay
as they are, its input and its outputs are renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_export.convert.graph import IR_VERSION, OPSET
from model_export.errors import ExportError, plain

if TYPE_CHECKING:
    from model_export.convert.block import Dtype
    from model_export.registry.onnx_model import OnnxModel
    from model_export.study.answers import Answers

_NEWEST = {"": 22, "ai.onnx.ml": 5}
"""Operator sets that the server reads."""
_ELEMENT = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def served_graph(estimator: OnnxModel, answers: Answers, dtype: Dtype) -> onnx.ModelProto:
    """The graph with the input `rows` and the outputs of the format.

    Args:
        estimator: the registered graph.
        answers: from `describe_answers`.
        dtype: of `rows`.

    Raises:
        ExportError: its operators are not ONNX's own, or newer than the server's runtime reads.
    """
    _check_domains(estimator.model)
    model = onnx.compose.add_prefix(estimator.model, "model_")
    graph = model.graph
    _take_rows(graph, estimator, dtype)
    outputs = (
        [_value(graph, estimator)]
        if answers.task == "regression"
        else [_label(graph, estimator, answers), _probabilities(graph, estimator, answers)]
    )
    del graph.output[:]
    graph.output.extend(outputs)
    _raise_ml_opset(model, estimator.model)
    model.ir_version = min(model.ir_version, IR_VERSION)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"the graph is not valid ONNX{plain(error, 300)}: export it again with another opset"
        ) from error
    return model


def _check_domains(model: onnx.ModelProto) -> None:
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        newest = _NEWEST.get(domain)
        used = any(node.domain == entry.domain for node in model.graph.node)
        if newest is None and used:
            raise ExportError(
                f"the graph uses operators of {domain}, which are no operators of ONNX itself: "
                "export it again without them"
            )
        if newest is not None and entry.version > newest:
            raise ExportError(
                f"the graph uses the operator set {domain or 'ai.onnx'} {entry.version}, and the "
                f"server reads at most {newest}: export it again with opset_version={newest}"
            )
    kept = [entry for entry in model.opset_import if entry.domain in (*_NEWEST, "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _raise_ml_opset(model: onnx.ModelProto, given: onnx.ModelProto) -> None:
    """Declare a set with the LabelEncoder that is added. Of version 1 only the LabelEncoder has
    other attributes; every other operator is the same."""
    declared = next((e for e in model.opset_import if e.domain == "ai.onnx.ml"), None)
    if declared is None:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", OPSET["ai.onnx.ml"]))
    elif declared.version == 1:
        if any(node.op_type == "LabelEncoder" for node in given.graph.node):
            raise ExportError(
                "the graph uses the operator set ai.onnx.ml 1: export it again with "
                "target_opset={'': 21, 'ai.onnx.ml': 3}"
            )
        declared.version = OPSET["ai.onnx.ml"]


def _take_rows(graph: Any, estimator: OnnxModel, dtype: Dtype) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    (taken,) = (value for value in graph.input if value.name not in constants)
    cast = helper.make_node("Cast", ["rows"], [taken.name], to=_ELEMENT[estimator.dtype])
    graph.node.insert(0, cast)
    graph.input.remove(taken)
    rows = helper.make_tensor_value_info("rows", _ELEMENT[dtype], ["N", estimator.n_features_in_])
    graph.input.insert(0, rows)


def _label(graph: Any, estimator: OnnxModel, answers: Answers) -> Any:
    name = f"model_{estimator.label}"
    element = next(o for o in graph.output if o.name == name).type.tensor_type.elem_type
    keys = "keys_strings" if element == TensorProto.STRING else "keys_int64s"
    encoder = helper.make_node(
        "LabelEncoder",
        [name],
        ["label_index"],
        domain="ai.onnx.ml",
        default_int64=-1,
        values_int64s=list(range(len(answers.classes))),
        **{keys: list(answers.classes)},  # type: ignore[arg-type]  # onnx's stub is too narrow
    )
    graph.node.append(encoder)
    _reshape(graph, "label_index", "label", [-1])
    return helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])


def _probabilities(graph: Any, estimator: OnnxModel, answers: Answers) -> Any:
    name, classes = f"model_{estimator.scores}", len(answers.classes)
    element = next(o for o in graph.output if o.name == name).type.tensor_type.elem_type
    _reshape(graph, name, "probabilities", [-1, classes])
    return helper.make_tensor_value_info("probabilities", element, ["N", classes])


def _value(graph: Any, estimator: OnnxModel) -> Any:
    name = f"model_{estimator.scores}"
    tensor = next(o for o in graph.output if o.name == name).type.tensor_type
    targets = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else 1
    _reshape(graph, name, "value", [-1, targets] if targets > 1 else [-1])
    shape: list[Any] = ["N", targets] if targets > 1 else ["N"]
    return helper.make_tensor_value_info("value", tensor.elem_type, shape)


def _reshape(graph: Any, source: str, output: str, shape: list[int]) -> None:
    constant = f"shape_of_{output}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(shape), constant))
    graph.node.append(helper.make_node("Reshape", [source, constant], [output]))
