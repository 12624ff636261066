"""The service: one model, `GET /health` and `POST /predict`, and before each prediction whatever
the switches say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from baseline.bodies import body_of, record
from baseline.switches import Switches

Predict = Callable[[dict[str, Any]], dict[str, Any]]
"""From a record to the answer: the label under `prediction`, and what else the variant answers."""


def create(
    switches: Switches, *, model: str, tracking_uri: str, database: str, bundle: str
) -> FastAPI:
    """The application for one registered model, under its alias `champion`; it is loaded here,
    once."""
    predict = _predictor(switches, model, tracking_uri, bundle)
    chores = _chores(switches, model, tracking_uri, database)
    app, body_type = FastAPI(), body_of(model)

    def answer(body: body_type) -> dict[str, Any]:  # type: ignore[valid-type]
        asked = record(body)
        for chore in chores:
            chore(asked)
        return predict(asked)

    if switches.async_handler:

        async def answer_on_the_loop(body: body_type) -> dict[str, Any]:  # type: ignore[valid-type]
            return answer(body)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.post("/predict")(answer_on_the_loop if switches.async_handler else answer)
    return app


def _predictor(switches: Switches, model: str, tracking_uri: str, bundle: str) -> Predict:
    # Each variant imports only its own packages: what mlflow weighs is not to be found in the
    # other's memory.
    if switches.predictor == "onnx":
        from baseline import onnx_runtime

        return onnx_runtime.predictor(Path(bundle))
    import mlflow

    from baseline import predictors
    from baseline.remote import ALIAS

    mlflow.set_tracking_uri(tracking_uri)
    return predictors.predictor(switches, f"models:/{model}@{ALIAS}")


def _chores(
    switches: Switches, model: str, tracking_uri: str, database: str
) -> list[Callable[[dict[str, Any]], None]]:
    from baseline import noise

    chores: list[Callable[[dict[str, Any]], None]] = []
    if switches.needs_surroundings:
        from baseline import remote

        chores += [remote.registry(model, tracking_uri)] if switches.asks_registry else []
        chores += [remote.table(database)] if switches.reflects_table else []
    return [*chores, noise.say] if switches.prints else chores
