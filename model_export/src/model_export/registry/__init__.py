"""Finds a model version in MLflow, and loads it."""
