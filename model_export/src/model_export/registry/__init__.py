"""Finds a version of a model in MLflow, and loads it."""
