"""Converts fitted transformers that skl2onnx converts wrongly, only in float32, or not at all.

Each is a function (block, path, step) → block. They compute in float64, because a step may amplify
what float32 loses; `through` finds the function for a step.
"""
