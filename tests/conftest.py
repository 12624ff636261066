"""What the tests of several packages share: real servers, one of each per session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.mlflow_registry import Registry
from support.mlflow_server import mlflow_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.mlflow_server import MlflowServer


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server on SQLite with artifacts on disk. Shared: tests take model names of their own, and leave it running."""
    with mlflow_server(tmp_path_factory.mktemp("tracking")) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tracking: MlflowServer) -> Registry:
    """Its registry."""
    return Registry(tracking.url)
