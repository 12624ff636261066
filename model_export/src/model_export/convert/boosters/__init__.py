"""Converts boosted trees: XGBoost, LightGBM, CatBoost, and scikit-learn's HistGradientBoosting.

`ensemble` is their common form, one module per library reads a fitted model into it, `register`
gives skl2onnx a converter that writes it as ONNX. The libraries are not imported: a model that was
loaded brings its own.
"""
