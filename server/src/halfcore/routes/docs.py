"""`GET /docs`: the API's description, with each served model's own types and example, readable without a network.

Litestar describes the ordinary routes. The prediction routes are plain ASGI, and what they take depends on the models that are loaded
at this moment, so their part is written here, per request, from the manifests.
"""

from pathlib import Path
from typing import Any

import litestar_offline_docs
from litestar import Request
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Server
from litestar.static_files import create_static_files_router
from msgspec import UNSET

from halfcore import __version__
from halfcore.bundle import Input
from halfcore.models import LoadedModel, Models
from halfcore.routes.models import example_body
from halfcore.schema import Rule

ASSETS = "/docs/assets"
_JSON_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean"}
_IGNORED = {"type": ["string", "number", "boolean", "null"], "description": "accepted and not read: no step of the model uses it"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "examples": ["unknown_category"]},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
        "error_count": {"type": "integer"},
    },
}
_REFUSALS = {
    "400": "not JSON, not UTF-8, nested too deeply, or a name twice",
    "404": "unknown model; the known ones are named",
    "408": "the body came too slowly",
    "413": "body too large, or too many rows",
    "415": "not application/json",
    "422": "a value is wrong: the field, what came and what was expected are named; or the model has no finite answer to it",
    "500": "the model failed; the log has the reason",
    "503": "overloaded, or the model is not loaded; see Retry-After",
}


def openapi_config(models: Models) -> OpenAPIConfig:
    """Litestar's OpenAPI configuration: Swagger UI from local files at /docs, the document at /docs/openapi.json."""

    class Swagger(SwaggerRenderPlugin):
        def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
            return super().render(request, _with_predictions(openapi_schema, models))

    class Json(JsonRenderPlugin):
        def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
            return super().render(request, _with_predictions(openapi_schema, models))

    swagger = Swagger(
        path="/",
        js_url=f"{ASSETS}/swagger-ui-bundle.js",
        css_url=f"{ASSETS}/swagger-ui.css",
        standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
        favicon='<link rel="icon" href="data:,">',
    )
    return OpenAPIConfig(
        title="Halfcore",
        version=__version__,
        path="/docs",
        render_plugins=[swagger, Json(path="/openapi.json")],
        servers=[Server(url="/")],
        use_handler_docstrings=True,
    )


def assets() -> Any:
    """Swagger UI's own files."""
    return create_static_files_router(
        path=ASSETS, directories=[Path(litestar_offline_docs.__file__).parent / "static"], include_in_schema=False
    )


def _with_predictions(schema: dict[str, Any], models: Models) -> dict[str, Any]:
    paths = dict(schema["paths"])
    served = sorted(models, key=lambda model: model.manifest.name)
    default = models.default_name
    for model in served:
        name = model.manifest.name
        if name == default:
            paths["/predict"] = {"post": _operation(model, f"Predict with the default model, {name}", "predict")}
        paths[f"/models/{name}/predict"] = {"post": _operation(model, f"Predict with {name}", f"predict-{name}")}
    return schema | {"paths": paths}


def _operation(model: LoadedModel, summary: str, operation_id: str) -> dict[str, Any]:
    example = example_body(model)
    examples = {
        "one": {"summary": "one row", "value": example},
        "several": {
            "summary": "several rows",
            "value": [example] * 2 if model.manifest.named else {"features": [example["features"]] * 2},
        },
    }
    answers = {"200": {"description": "the prediction", "content": {"application/json": {"schema": _answer_schema(model)}}}}
    problem = {"application/problem+json": {"schema": _PROBLEM}}
    return {
        "tags": ["predict"],
        "summary": summary,
        "operationId": operation_id,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body_schema(model), "examples": examples}}},
        "responses": answers | {status: {"description": text, "content": problem} for status, text in _REFUSALS.items()},
    }


def _body_schema(model: LoadedModel) -> dict[str, Any]:
    inputs = model.schema.inputs
    record = {
        "type": "object",
        "title": "record",
        "required": [column.name for i, column in enumerate(inputs) if i not in model.schema.defaults],
        "properties": {column.name: _value_schema(column, model.schema.rule(column.name)) for column in inputs}
        | dict.fromkeys(model.schema.ignored, _IGNORED),
        "additionalProperties": False,
    }
    vector = {
        "type": "array",
        "prefixItems": [_value_schema(column, model.schema.rule(column.name)) for column in inputs],
        "items": False,
        "minItems": len(inputs),
    }
    records = {"type": "array", "title": "records", "items": record, "minItems": 1}
    forms = [record, records]
    if not any(column.name == "features" for column in inputs):
        forms += [_features(vector, "vector"), _features({"type": "array", "items": vector, "minItems": 1}, "vectors")]
    return {"oneOf": forms}


def _features(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "required": ["features"],
        "properties": {"features": schema},
        "additionalProperties": False,
    }


def _value_schema(column: Input, rule: Rule) -> dict[str, Any]:
    schema: dict[str, Any] = {"examples": [column.example]}
    if column.categories:
        schema["enum"] = [*column.categories, None] if column.nullable else column.categories
    else:
        kind = _JSON_TYPES[column.kind]
        schema["type"] = [kind, "null"] if column.nullable else kind
    said = {"minimum": rule.minimum, "maximum": rule.maximum}
    schema |= {key: bound for key, bound in said.items() if bound is not None}
    return schema if rule.default is UNSET else schema | {"default": rule.default}


def _answer_schema(model: LoadedModel) -> dict[str, Any]:
    manifest = model.manifest
    one: dict[str, Any] = {"enum": manifest.classes} if manifest.classes else {"type": "number"}
    properties: dict[str, Any] = {"prediction": {"oneOf": [one, {"type": "array", "items": one}]}}
    if "probabilities" in manifest.outputs:
        by_class = {"type": "object", "properties": {str(label): {"type": "number"} for label in manifest.classes}}
        properties["probabilities"] = {"oneOf": [by_class, {"type": "array", "items": by_class}]}
    properties |= {"model": {"const": manifest.name}, "version": {"const": manifest.version}}
    return {"type": "object", "required": list(properties), "properties": properties}
