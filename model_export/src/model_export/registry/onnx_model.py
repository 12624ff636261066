"""Models of `mlflow.onnx` as estimators: which tensors they take and answer, and how MLflow's own
pyfunc runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, numpy_helper
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from model_export.errors import ExportError, pointing

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.pyfunc import PyFuncModel

_ELEMENTS = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
_LABELS = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING)
_MOST_BYTES = 2_000_000_000
_ADVICE = "export it again with one float tensor of shape [N, columns] as its input"


class OnnxModel(BaseEstimator):
    """A graph that MLflow's pyfunc runs.

    Args:
        model: the graph, without a ZipMap at its end.
        runner: MLflow's wrapper of the runtime, as `mlflow.pyfunc` uses it.
    """

    def __init__(self, model: onnx.ModelProto, runner: Any) -> None:
        self.model, self.runner = model, runner
        self.n_features_in_, self.dtype = _input(model)
        self.label, self.scores = _outputs(model)

    def _answers(self, rows: Any) -> dict[str, Any]:
        matrix = rows.to_numpy() if isinstance(rows, pd.DataFrame) else np.asarray(rows)
        answers: dict[str, Any] = self.runner.predict(matrix.astype(self.dtype))
        return answers


class OnnxRegressor(RegressorMixin, OnnxModel):
    """A graph with one output of numbers."""

    def predict(self, rows: Any) -> Any:
        """The values, [N] or [N, K]."""
        values = np.asarray(self._answers(rows)[self.scores])
        return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


class OnnxClassifier(ClassifierMixin, OnnxModel):
    """A graph with a label, and probabilities."""

    def __init__(self, model: onnx.ModelProto, runner: Any) -> None:
        super().__init__(model, runner)
        self.classes_ = np.asarray(_classes(model, _width(model, self.scores)))

    def predict(self, rows: Any) -> Any:
        """The labels, [N]."""
        return np.asarray(self._answers(rows)[self.label]).reshape(-1)

    def predict_proba(self, rows: Any) -> Any:
        """The probabilities, [N, classes]."""
        found = self._answers(rows)
        scores = found.get(self.scores)
        if scores is None:  # MLflow's graph ends with a ZipMap
            scores = next(value for name, value in found.items() if name != self.label)
        if len(scores) and isinstance(scores[0], dict):
            return np.asarray([[row[label] for label in self.classes_.tolist()] for row in scores])
        return np.asarray(scores)


def load(folder: Path, file: str, pyfunc: PyFuncModel) -> OnnxModel:
    """The graph of a saved model.

    Raises:
        ExportError: it does not take one float matrix, or its answers are not recognized.
    """
    try:
        return _loaded(onnx.load(str(folder / file)), pyfunc)
    except ExportError as error:
        raise pointing(error) from error


def _loaded(model: onnx.ModelProto, pyfunc: PyFuncModel) -> OnnxModel:
    if model.ByteSize() > _MOST_BYTES:
        raise ExportError(
            "the graph is larger than 2 GB, the most that one file can hold: train a smaller model"
        )
    _input(model)
    model = _without_zipmap(model)
    kind = OnnxClassifier if _outputs(model)[0] else OnnxRegressor
    return kind(model, pyfunc._model_impl)  # noqa: SLF001  MLflow's own way to the graph


def _input(model: onnx.ModelProto) -> tuple[int, str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ExportError(f"the graph takes {len(inputs)} tensors: {_ADVICE}")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in _ELEMENTS:
        raise ExportError(f"the graph's input {inputs[0].name!r} is no float tensor: {_ADVICE}")
    sizes = [dimension.dim_value for dimension in tensor.shape.dim]
    if len(sizes) != 2 or sizes[1] < 1 or sizes[0] > 0:
        raise ExportError(
            f"the graph's input {inputs[0].name!r} has the shape {sizes} (0 is any): {_ADVICE}"
        )
    return sizes[1], _ELEMENTS[tensor.elem_type]


def _outputs(model: onnx.ModelProto) -> tuple[str, str]:
    """The names of the label, empty for a regressor, and of the probabilities or values."""
    found = [(o.name, o.type.tensor_type.elem_type) for o in model.graph.output]
    labels = [n for n, kind in found if kind in (TensorProto.INT64, TensorProto.STRING)]
    numbers = [name for name, kind in found if kind in _ELEMENTS]
    if len(labels) + len(numbers) != len(found) or len(labels) > 1 or len(numbers) != 1:
        raise ExportError(
            f"the graph answers {', '.join(name for name, _ in found)}: export it again with one "
            "float tensor of values, or with a label (int64 or string) and its probabilities"
        )
    return (labels[0] if labels else ""), numbers[0]


def _without_zipmap(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the matrix in place of a ZipMap's dictionaries; its classes are kept as a
    constant."""
    for node in list(model.graph.node):
        if node.op_type == "ZipMap":
            for output in model.graph.output:
                if output.name == node.output[0]:
                    element = TensorProto.FLOAT
                    fresh = onnx.helper.make_tensor_value_info(node.input[0], element, None)
                    output.CopyFrom(fresh)
            labels = onnx.helper.get_node_attr_value(node, node.attribute[0].name)
            kept = np.asarray(
                [label.decode() if isinstance(label, bytes) else label for label in labels]
            )
            kept = kept.astype(object) if kept.dtype.kind == "U" else kept
            model.graph.initializer.append(numpy_helper.from_array(kept, "zipmap_classes"))
            model.graph.node.remove(node)
    return onnx.shape_inference.infer_shapes(model)


def _width(model: onnx.ModelProto, name: str) -> int:
    """Columns of an output; 0 if the graph does not say."""
    shape = next(o for o in model.graph.output if o.name == name).type.tensor_type.shape
    return int(shape.dim[1].dim_value) if len(shape.dim) == 2 else 0


def _classes(model: onnx.ModelProto, width: int) -> list[Any]:
    """The labels in the order of the probabilities: from the graph's constants and classifiers,
    otherwise 0, 1, …"""
    found = [
        [value.decode() if isinstance(value, bytes) else value for value in labels]
        for labels in _candidates(model)
    ]
    label_type = model.graph.output[0].type.tensor_type.elem_type
    wanted = str if label_type == TensorProto.STRING else int
    fitting = [
        labels
        for labels in found
        if labels and isinstance(labels[0], wanted) and len(labels) in (width, width or len(labels))
    ]
    if fitting:
        return fitting[0]
    if wanted is int and width:
        return list(range(width))
    raise ExportError(
        "the graph does not say which labels its probabilities belong to: convert it again with "
        "labels of integers, or with a classifier of ai.onnx.ml, which lists them"
    )


def _candidates(model: onnx.ModelProto) -> list[list[Any]]:
    """Lists of labels that the graph holds."""
    constants = [
        numpy_helper.to_array(tensor).reshape(-1).tolist()
        for tensor in model.graph.initializer
        if "class" in tensor.name and tensor.data_type in _LABELS
    ]
    attributes = [
        list(onnx.helper.get_attribute_value(attribute))
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name.startswith("classlabels_")
    ]
    return constants + attributes
