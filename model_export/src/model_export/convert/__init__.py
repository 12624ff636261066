"""Converts a studied model to one ONNX graph."""
