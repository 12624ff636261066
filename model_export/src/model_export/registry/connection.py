"""Which MLflow the exporter speaks to."""

from __future__ import annotations

import os
from pathlib import Path

from model_export.errors import InfrastructureError

_HTTP_RETRY_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""MLflow's client by default waits 120 s and tries seven times: a wrong address would be told after
four minutes."""


def connect(tracking_uri: str | None) -> str:
    """Point MLflow at what was asked for, else at `MLFLOW_TRACKING_URI`, else at the examples' own
    store; returns which.

    Args:
        tracking_uri: of a server or a store; None or empty where none was given.
    """
    for name, value in _HTTP_RETRY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from model_export.registry import client

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or client.DEFAULT_TRACKING_URI
    if uri.startswith("sqlite:///"):
        _make_folder(Path(uri.removeprefix("sqlite:///")).parent)
    client.connect(uri)
    return uri


def _make_folder(folder: Path) -> None:
    """Make the folder of a local store.

    Raises:
        InfrastructureError: it is not there and cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"MLflow's local store {folder.absolute()} cannot be made: {error.strerror}; "
            "set MLFLOW_TRACKING_URI to the address of your MLflow server"
        ) from error
