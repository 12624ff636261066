"""Which MLflow the exporter speaks to."""

from __future__ import annotations

import os
from pathlib import Path


def connect(tracking_uri: str | None) -> str:
    """Point MLflow at what was asked for, else at `MLFLOW_TRACKING_URI`, else at the examples' own store; returns which.

    Args:
        tracking_uri: of a server or a store; None or empty where none was given.
    """
    from model_export import registry

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or registry.DEFAULT_TRACKING_URI
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    registry.connect(uri)
    return uri
