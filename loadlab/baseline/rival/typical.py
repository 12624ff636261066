"""Variant `typical`: the median of the services that halfcore replaces.

The model is loaded once from the MLflow registry as a pyfunc; a sync handler (FastAPI runs it in its thread pool) makes a DataFrame of one
row per request; uvicorn as `pip install uvicorn` gives it: h11, asyncio, one line of access log per request.
"""

from typing import Any

import mlflow
import pandas as pd
from fastapi import FastAPI

from rival.bodies import BODIES, columns

UVICORN = {"http": "h11", "loop": "asyncio", "access_log": True}


def create(model: str, tracking_uri: str) -> FastAPI:
    """The app for one registered model, under its alias `champion`."""
    mlflow.set_tracking_uri(tracking_uri)
    pyfunc = mlflow.pyfunc.load_model(f"models:/{model}@champion")
    app = FastAPI()
    body_type = BODIES[model]

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(body: body_type) -> dict[str, Any]:  # type: ignore[valid-type]
        frame = pd.DataFrame([columns(body)])
        return {"prediction": pyfunc.predict(frame).tolist()[0]}

    return app
