"""Exports a registered scikit-learn model to an ONNX bundle, with a proof that the answers are the
same."""
