"""Exports a registered scikit-learn model to an ONNX bundle, and proves that the bundle gives the
same answers."""
