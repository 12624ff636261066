"""Serves ONNX model bundles over HTTP: a request's bytes are decoded, batched, inferred, encoded,
and sent."""

__version__ = "0.1.0"
"""As in pyproject.toml: `just version` sets both, a test compares them. Reading it with
importlib.metadata costs 3 MB."""
