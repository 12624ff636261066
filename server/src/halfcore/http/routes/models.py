"""The routes that list and describe the served models."""

from typing import Any

import msgspec
from litestar import get
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from msgspec import UNSET

from halfcore.bundle import Input
from halfcore.catalog.state import Catalog
from halfcore.challenger.challengers import Challengers
from halfcore.models.served import LoadedModel, Models
from halfcore.pipeline.schema import Schema
from halfcore.problem import Problem
from halfcore.registry.followers import Followers
from halfcore.registry.status import described


def routes(
    models: Models, catalog: Catalog | None, challengers: Challengers, followers: Followers
) -> list[Any]:
    """`/models` and `/models/{name}`; the latter also describes the feature catalogue and the
    challenger, if there are any."""

    @get("/models", sync_to_thread=False, summary="The served models")
    def list_models() -> dict[str, Any]:
        return {
            "default_model": models.default_name or None,
            "models": [_summary(model) for model in models],
        }

    @get(
        "/models/{name:str}",
        sync_to_thread=False,
        raises=[_NotServed],
        summary="A model's inputs, outputs and proof of parity",
    )
    def show_model(name: FromPath[str]) -> dict[str, Any]:
        details = _details(models.get(name), catalog) | _followed(followers, name)
        challenger = challengers.by_name.get(name)
        return details | {"challenger": challenger.describe()} if challenger else details

    return [list_models, show_model]


def example_body(model: LoadedModel) -> dict[str, Any]:
    """A valid request body: the named record of the manifest's examples, or the vector if the
    model's columns have no names."""
    inputs = model.schema.inputs
    if model.manifest.named:
        return {column.name: column.example for column in inputs}
    return {"features": [column.example for column in inputs]}


class _NotServed(HTTPException):
    """For the OpenAPI document: unknown models are 404."""

    status_code = 404


def _summary(model: LoadedModel) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "loaded_at": model.loaded_at,
    }


def _details(model: LoadedModel, catalog: Catalog | None) -> dict[str, Any]:
    manifest = model.manifest
    return _summary(model) | {
        "inputs": [_input(column, model.schema) for column in model.schema.inputs],
        "ignored": msgspec.to_builtins(manifest.ignored),
        "catalogue": catalog and catalog.describe(manifest.name),
        "outputs": {
            "prediction": manifest.classes or "number",
            "probabilities": "probabilities" in manifest.outputs,
        },
        "example": example_body(model),
        "parity": msgspec.to_builtins(manifest.parity),
        "source": {"name": model.bundle_name, "version": model.bundle_version}
        | msgspec.to_builtins(manifest.source),
        "onnx": msgspec.to_builtins(manifest.onnx),
        "tools": manifest.tools,
        "created_at": manifest.created_at,
    }


def _followed(followers: Followers, name: str) -> dict[str, Any]:
    """The state of a model's followers; empty for a model from the directory of bundles."""
    statuses = followers.statuses(name)
    return (
        {"following": {status.role: described(status) for status in statuses}} if statuses else {}
    )


def _input(column: Input, schema: Schema) -> dict[str, Any]:
    """A column as a request must fill it. `allowed` is the range that the catalogue and the
    bundle's domain permit, `default` is the catalogue's, `minimum` and `maximum` are of the
    training data."""
    rule = schema.rule(column.name)
    known = {
        key: value
        for key, value in msgspec.to_builtins(column).items()
        if value is not None or key == "example"
    }
    if column.text is not None:  # its tokens may be many thousands
        known["text"] = {"max_length": column.text.max_length}
    if not column.accepts_unknown:
        known.pop("accepts_unknown")
    known["source"] = "catalogue" if column.name in schema.rules else "bundle"
    if rule.range_text():
        known["allowed"] = {"minimum": rule.minimum, "maximum": rule.maximum}
    if rule.default is not UNSET:
        known["default"] = rule.default
    return known


__all__ = ["Problem", "example_body", "routes"]
