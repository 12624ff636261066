"""The service as uvicorn loads it, in every worker: from the environment to the application."""

import os

from fastapi import FastAPI

from baseline import app
from baseline.switches import VARIANTS

_PREFIX = "BASELINE_SERVICE_"
_NAMES = ("variant", "model", "tracking_uri", "database", "bundle")


def environment(*values: str) -> dict[str, str]:
    """What `create` reads, in the order of `_NAMES`."""
    # MLflow's client would report its use to its makers from its own thread: no part of what
    # is compared.
    return {"MLFLOW_DISABLE_TELEMETRY": "true"} | {
        f"{_PREFIX}{name.upper()}": value for name, value in zip(_NAMES, values, strict=True)
    }


def create() -> FastAPI:
    """The application that the environment asks for."""
    asked = {name: os.environ[f"{_PREFIX}{name.upper()}"] for name in _NAMES}
    return app.create(VARIANTS[asked.pop("variant")], **asked)
