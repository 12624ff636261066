"""Serves ONNX model bundles over HTTP: bytes come in, are decoded, batched, inferred, encoded, and go out."""

from importlib.metadata import version

__version__ = version("halfcore")
