"""Downloads the files of a model that is found."""

from __future__ import annotations

from pathlib import Path

import mlflow

from model_export.errors import InfrastructureError, sentence
from model_export.registry.names import REGISTERED

_MISREAD = "@?#"
"""Characters of a registered name at which MLflow's client ends it, in a URI of a version."""

_S3_UNSET = ("EndpointConnectionError", "NoCredentialsError", "PartialCredentialsError")
_S3_ADVICE = (
    "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a store that is not Amazon's, "
    "MLFLOW_S3_ENDPOINT_URL, as where the model was logged"
)


def files_of(uri: str) -> Path:
    """Download a model's files; returns their folder.

    Args:
        uri: models:/NAME/VERSION, models:/m-ID, runs:/ID/path, or a local folder.

    Raises:
        InfrastructureError: the files are at s3://, and the environment does not say how to get
            there.
        Exception: any other failure; each kind of artifact store has its own exceptions.
    """
    version = REGISTERED.fullmatch(uri)
    if version and any(mark in version["name"] for mark in _MISREAD):
        client = mlflow.MlflowClient()
        uri = client.get_model_version_download_uri(version["name"], version["rest"])
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except Exception as error:
        if type(error).__name__ not in _S3_UNSET:  # botocore may not be installed
            raise
        raise InfrastructureError(f"{sentence(error).rstrip('.')}; {_S3_ADVICE}") from error
