"""Chooses the MLflow server or store that the exporter uses."""

from __future__ import annotations

import os
from pathlib import Path

from model_export.errors import InfrastructureError

_HTTP_RETRY_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""MLflow's client by default waits 120 s and tries seven times: it would report a wrong address
after four minutes."""


def connect(tracking_uri: str | None) -> str:
    """Point MLflow at the given server or store, otherwise at `MLFLOW_TRACKING_URI`, otherwise at
    the examples' local store; returns its URI.

    Args:
        tracking_uri: of a server or a store; None or empty if none was given.
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
        InfrastructureError: it does not exist and cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot make MLflow's local store {folder.absolute()}: {error.strerror}; "
            "set MLFLOW_TRACKING_URI to the address of your MLflow server"
        ) from error
