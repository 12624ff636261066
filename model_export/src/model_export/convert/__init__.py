"""Turns a studied model into one ONNX graph."""
