"""Models that are registered with `mlflow.onnx` are served as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import orjson
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression, Ridge

from halfcore import bundle
from halfcore.models.preparing import prepare
from halfcore.pipeline.decode import Decoder
from model_export.errors import ExportError
from model_export.export import ExportRequest
from model_export.export import export as run_export
from model_export.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

_RNG = np.random.default_rng(8)
_X = _RNG.normal(size=(200, 3))
_Y = (_X[:, 0] > 0).astype(int) + (_X[:, 1] > 0.5)


def _exported(folder: Path, graph: Any, x: Any, signature: Any) -> bundle.Bundle:
    mlflow.onnx.save_model(
        graph, folder / "model", signature=signature, input_example=x, pip_requirements=["onnx"]
    )
    path = run_export(
        ExportRequest(str(folder / "model"), folder / "out", gate_rows=2000), Reporter()
    )
    return bundle.read(path)


def _answers(source: bundle.Bundle) -> list[Any]:
    prepared = prepare(source, max_batch_size=16)
    names = [column.name for column in source.manifest.inputs]
    records = [dict(zip(names, row, strict=True)) for row in _X.tolist()]
    rows = Decoder(prepared.schema, max_rows=500).decode(orjson.dumps(records))
    return list(prepared.engine.infer(rows.payload, rows.size))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("text_labels", [True, False])
def test_a_classifier_is_served_as_it_is(
    tmp_path: Path, named: bool, zipmap: bool, text_labels: bool
) -> None:
    """With a table's signature or a tensor's, with dictionaries or a matrix of probabilities, with
    labels of text or of integers that do not begin at 0."""
    labels = np.asarray(["auk", "gull", "tern"])[_Y] if text_labels else _Y + 5
    model = LogisticRegression().fit(_X, labels)
    graph = to_onnx(model, _X[:1].astype(np.float32), options={"zipmap": zipmap})
    x = pd.DataFrame(_X, columns=["a", "b", "c"]) if named else _X.astype(np.float32)
    source = _exported(tmp_path, graph, x, mlflow.models.infer_signature(x))
    classes = source.manifest.classes
    assert classes == model.classes_.tolist()
    found = _answers(source)
    expected = model.predict_proba(_X)
    clear = np.sort(expected)[:, -1] - np.sort(expected)[:, -2] > 1e-4
    given = np.asarray([classes[label] for label, _ in found])
    assert (given == model.predict(_X))[clear].all()
    np.testing.assert_allclose([p for _, p in found], expected, atol=1e-5)


@pytest.mark.parametrize("targets", [1, 2])
def test_a_regressor_is_served_as_it_is(tmp_path: Path, targets: int) -> None:
    """One value or several."""
    y = _X[:, :targets] @ np.ones((targets, targets)) * 3
    model = Ridge().fit(_X, y if targets > 1 else y.ravel())
    graph = to_onnx(model, _X[:1].astype(np.float32))
    x = _X.astype(np.float32)
    found = _answers(_exported(tmp_path, graph, x, mlflow.models.infer_signature(x)))
    expected = model.predict(_X).reshape(len(_X), -1)
    values = np.asarray([value for (value,) in found]).reshape(len(_X), -1)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("inputs", "takes 2 tensors: export it again with one float tensor"),
        ("integers", "is no float tensor"),
        ("domain", "operators of com.example"),
        ("outputs", "answers y, z: export it again"),
        ("opset", "export it again with opset_version=22"),
    ],
)
def test_other_graphs_are_refused_with_the_way_to_export_them(
    tmp_path: Path, change: str, said: str
) -> None:
    """By what they take, answer or use."""
    with pytest.raises(ExportError, match=said):
        run_export(ExportRequest(str(_saved(tmp_path, change)), tmp_path / "out"), Reporter())


def _saved(folder: Path, change: str) -> Path:
    """A graph that adds, with one thing wrong."""
    kind = TensorProto.INT64 if change == "integers" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", kind, ["N", 3])]
    one = numpy_helper.from_array(np.ones(3, dtype=helper.tensor_dtype_to_np_dtype(kind)), "one")
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", kind, ["N", 3])]
    opsets = [helper.make_opsetid("", 23 if change == "opset" else 17)]
    if change == "inputs":
        inputs.append(helper.make_tensor_value_info("w", kind, ["N", 3]))
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if change == "outputs":
        nodes.append(helper.make_node("Neg", ["y"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", kind, ["N", 3]))
    if change == "domain":
        nodes = [helper.make_node("Add", ["x", "one"], ["y"], domain="com.example")]
        opsets.append(helper.make_opsetid("com.example", 1))
    graph = helper.make_graph(nodes, "adds", inputs, outputs, [one])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if change == "domain":
        model.functions.append(_added("com.example"))
    x = np.arange(15, dtype=np.int64 if change == "integers" else np.float32).reshape(5, 3)
    signature = mlflow.models.infer_signature(x)
    mlflow.onnx.save_model(
        model, folder / "model", signature=signature, input_example=x, pip_requirements=["onnx"]
    )
    return folder / "model"


def _added(domain: str) -> Any:
    """A function of the model's own, so that the runtime can load it."""
    return helper.make_function(
        domain,
        "Add",
        ["a", "b"],
        ["c"],
        [helper.make_node("Sub", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
