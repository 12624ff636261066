"""Models that are no estimators of scikit-learn: ONNX and models of a user's own code."""

import warnings
from typing import Any

import mlflow
import numpy as np
from mlflow.models import infer_signature
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from support.matrix.case import Case, Group, Trained
from support.matrix.data import numbers


def cases() -> list[Case]:
    """ONNX models and models of a user's own code."""
    group = Group("ONNX models and own code")
    group.add("onnx-linear", _onnx)
    group.add("python-model", _python)
    return group.cases


def _onnx() -> Trained:
    x, _ = numbers()
    weights = helper.make_tensor("w", TensorProto.FLOAT, [6, 1], np.linspace(-1, 1, 6).tolist())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [weights],
    )
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return Trained(model, x.to_numpy().astype(np.float32), _log_onnx)


def _log_onnx(name: str, model: Any, rows: Any) -> None:
    mlflow.onnx.log_model(
        model,
        name="model",
        registered_model_name=name,
        signature=infer_signature(rows),
        input_example=rows,
        pip_requirements=["onnx"],
    )


def _python() -> Trained:
    x, y = numbers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow would like other type hints

        class Own(mlflow.pyfunc.PythonModel):
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def predict(self, _context: Any, model_input: Any) -> Any:
                """The inner model's labels."""
                return self.inner.predict(model_input)

    return Trained(Own(LogisticRegression().fit(x, y)), x, _log_python)


def _log_python(name: str, model: Any, rows: Any) -> None:
    mlflow.pyfunc.log_model(
        name="model",
        python_model=model,
        registered_model_name=name,
        signature=infer_signature(rows),
        input_example=rows,
        pip_requirements=["scikit-learn"],
    )
