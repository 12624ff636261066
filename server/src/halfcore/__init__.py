"""Serves ONNX model bundles over HTTP: bytes come in, are decoded, batched, inferred, encoded, and
go out."""

__version__ = "0.1.0"
"""As in pyproject.toml (a test compares them): importlib.metadata would tell, at the price of 3
MB."""
