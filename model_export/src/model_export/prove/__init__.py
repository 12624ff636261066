"""Proves that the ONNX graph answers as the registered model does."""
