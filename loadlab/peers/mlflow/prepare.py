"""Saves the bundle's graph as an MLflow model in `PEER_SAVED`, before anything is measured."""

import os

import mlflow.onnx
import numpy as np
import onnx
from graph import BUNDLE, TUNED, Graph
from mlflow.models import infer_signature

if __name__ == "__main__":
    graph = Graph()
    rows = np.zeros((1, graph.columns), dtype=np.float32)
    labels, probabilities = graph.run(rows)
    signature = infer_signature(rows, {"label": labels, "probabilities": probabilities})
    mlflow.onnx.save_model(
        onnx.load(str(BUNDLE / "model.onnx")),
        os.environ["PEER_SAVED"],
        signature=None if TUNED else signature,
        pip_requirements=[],  # else it starts a process that finds them
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
    )
