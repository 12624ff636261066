"""Imports what every model of the matrix needs, once for all of their processes."""

import mlflow.onnx
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import onnxruntime
import skl2onnx

from model_export.export import import_steps

import_steps()
__all__ = ["mlflow", "onnxruntime", "skl2onnx"]
