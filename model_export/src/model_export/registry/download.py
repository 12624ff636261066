"""Downloads the files of a model that is found."""

from __future__ import annotations

from pathlib import Path

import mlflow

from model_export.registry.names import REGISTERED

_MISREAD = "@?#"
"""Characters of a registered name at which MLflow's client ends it, in a URI of a version."""


def files_of(uri: str) -> Path:
    """Download a model's files; returns their folder.

    Args:
        uri: models:/NAME/VERSION, models:/m-ID, runs:/ID/path, or a local folder.
    """
    version = REGISTERED.fullmatch(uri)
    if version and any(mark in version["name"] for mark in _MISREAD):
        client = mlflow.MlflowClient()
        uri = client.get_model_version_download_uri(version["name"], version["rest"])
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
