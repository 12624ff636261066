"""`GET /docs`: the API's description, with each served model's own types and example, readable
without a network.

Litestar describes the ordinary routes. The prediction routes are plain ASGI, and what they accept
depends on the models that are loaded at the moment, so their part is made here, per request, from
the manifests.
"""

from pathlib import Path
from typing import Any

import litestar_offline_docs
from litestar import Request, get
from litestar.enums import OpenAPIMediaType
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Server
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.response.file import ASGIFileResponse
from msgspec import UNSET

from halfcore import __version__
from halfcore.bundle import Input
from halfcore.http.routes import docs_protocols
from halfcore.http.routes.models import example_body
from halfcore.models.served import LoadedModel, Models
from halfcore.pipeline.schema import Rule
from halfcore.problem import CONTENT_TYPE

PAGE = "/docs"
ASSETS = f"{PAGE}/assets"
PART_BYTES = 65536
"""Size of a part of a file, under a server that does not send files itself."""
_SHOWN_CATEGORIES = 50
"""Of a column that accepts others as well."""
_JSON_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean"}
_IGNORED = {
    "type": ["string", "number", "boolean", "null"],
    "description": "accepted and not read: no step of the model uses it",
}
_TAGS = [
    {
        "name": "predict",
        "description": "Predictions: one row or many, by the columns' names or by position",
    },
    {"name": "protocols", "description": "Predictions and states for clients of other servers"},
    {"name": "models", "description": "The served models, and what each takes and gives"},
    {"name": "server", "description": "Health, metrics and webhooks"},
]
"""The groups of routes on the page, in this order."""
_SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "examples": ["unknown_category"]},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
            "error_count": {"type": "integer"},
            "more_errors": {"type": "boolean"},
        },
    },
    "FieldError": {
        "type": "object",
        "required": ["code", "path", "message"],
        "properties": {
            "code": {"type": "string"},
            "path": {"type": "string", "examples": ["$[3].island"]},
            "message": {"type": "string"},
            "row": {"type": "integer"},
            "field": {"type": "string"},
            "got": {},
            "expected": {},
        },
    },
}
_REFUSALS = {
    "400": "not JSON, not UTF-8, nested too deeply, or a name twice",
    "404": "unknown model; the known ones are named",
    "408": "the body arrived too slowly",
    "413": "body too large, or too many rows",
    "415": "not application/json",
    "422": (
        "a value is wrong: the field, the value received and the value expected are named; or the "
        "model has no finite answer to it"
    ),
    "500": "the model failed; the log has the reason",
    "503": "overloaded, or the model is not loaded; see Retry-After",
}


def openapi_config(models: Models) -> OpenAPIConfig:
    """Litestar's OpenAPI configuration: Swagger UI from local files at /docs, the document at
    /docs/openapi.json."""

    swagger = _Swagger(
        models,
        path="/",
        js_url=f"{ASSETS}/swagger-ui-bundle.js",
        css_url=f"{ASSETS}/swagger-ui.css",
        standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
        favicon='<link rel="icon" href="data:,">',
    )
    return OpenAPIConfig(
        title="Halfcore",
        version=__version__,
        path=PAGE,
        render_plugins=[swagger, _Json(models, path="/openapi.json")],
        servers=[Server(url="/")],
        use_handler_docstrings=True,
    )


def routes(models: Models) -> list[Any]:
    """`/openapi.json`, where clients look first, and Swagger UI's own files."""
    document = _Json(models)
    folder = Path(litestar_offline_docs.__file__).parent / "static"
    files = {file.name: file for file in folder.iterdir()}

    @get(
        "/openapi.json",
        include_in_schema=False,
        media_type=OpenAPIMediaType.OPENAPI_JSON,
        sync_to_thread=False,
    )
    def describe(request: Request[Any, Any, Any]) -> bytes:
        return document.render(request, request.app.openapi_schema.to_schema())

    @get(ASSETS + "/{name:str}", include_in_schema=False, sync_to_thread=False)
    def asset(name: FromPath[str]) -> FileAnswer:
        if name not in files:
            raise NotFoundException
        return FileAnswer(
            file_path=files[name],
            filename=name,
            content_disposition_type="inline",
            chunk_size=PART_BYTES,
        )

    return [describe, asset]


@get("/", include_in_schema=False, status_code=307, sync_to_thread=False)
def root() -> Redirect:
    """Leads to the page, on a server without a page of its own (`home`)."""
    return Redirect(PAGE, status_code=307)


class FileAnswer(ASGIFileResponse):
    """A file. The server sends it itself if it can; then only the part being sent is in this
    process's memory."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer; see ASGI."""
        if "http.response.pathsend" not in (scope.get("extensions") or {}):
            await super().__call__(scope, receive, send)
            return
        await self.start_response(send)
        await send({"type": "http.response.pathsend", "path": str(self.file_path)})


class _Json(JsonRenderPlugin):
    """The OpenAPI document, with the models that are served at the moment."""

    def __init__(self, models: Models, **options: Any) -> None:
        super().__init__(**options)
        self._models = models

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _document(openapi_schema, self._models))


class _Swagger(SwaggerRenderPlugin):
    """The page; it contains the OpenAPI document in a script."""

    def __init__(self, models: Models, **options: Any) -> None:
        super().__init__(**options)
        self._models = models

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _document(openapi_schema, self._models))

    @staticmethod
    def render_json(request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """As JSON that cannot end the script: a column may be called `</script>`."""
        return SwaggerRenderPlugin.render_json(request, openapi_schema).replace(b"<", rb"\u003c")


def _document(schema: dict[str, Any], models: Models) -> dict[str, Any]:
    """Litestar's description of the ordinary routes, with the prediction routes added."""
    predictions = {}
    schemas = schema.get("components", {}).get("schemas", {}) | _SCHEMAS | docs_protocols.SCHEMAS
    default = models.default_name
    for model in sorted(models, key=lambda model: model.manifest.name):
        name = model.manifest.name
        schemas |= _schemas(model)
        if name == default:
            predictions["/predict"] = {
                "post": _operation(model, f"Predict with the default model, {name}", "predict")
            }
        predictions[f"/models/{name}/predict"] = {
            "post": _operation(model, f"Predict with {name}", f"predict-{name}")
        }
    ordinary = {
        path: {method: _ordinary(path, operation) for method, operation in item.items()}
        for path, item in schema["paths"].items()
    }
    return schema | {
        "tags": _TAGS,
        "paths": predictions | docs_protocols.paths() | ordinary,
        "components": {"schemas": schemas},
    }


def _ordinary(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """An ordinary route's description: its refusals are problem documents, its 204 is empty."""
    answers = {}
    for status, answer in operation["responses"].items():
        if status >= "400":
            answers[status] = {"description": answer["description"], "content": _problem()}
        elif status == "204":
            answers[status] = {"description": answer["description"]}
        else:
            answers[status] = answer
    return operation | {
        "tags": [_tag(path)],
        "responses": answers,
    }


def _tag(path: str) -> str:
    if path.startswith("/models"):
        return "models"
    return "protocols" if path.startswith(("/v1", "/v2", "/ping", "/version")) else "server"


def _problem() -> dict[str, Any]:
    return {CONTENT_TYPE: {"schema": _reference("Problem")}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(model: LoadedModel, summary: str, operation_id: str) -> dict[str, Any]:
    example = example_body(model)
    examples = {
        "one": {"summary": "one row", "value": example},
        "several": {
            "summary": "several rows",
            "value": [example] * 2
            if model.manifest.named
            else {"features": [example["features"]] * 2},
        },
    }
    name = model.manifest.name
    answers = {
        "200": {
            "description": "the prediction",
            "content": {"application/json": {"schema": _reference(f"{name}-answer")}},
        }
    }
    return {
        "tags": ["predict"],
        "summary": summary,
        "operationId": operation_id,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _body_schema(model), "examples": examples}},
        },
        "responses": answers
        | {
            status: {"description": text, "content": _problem()}
            for status, text in _REFUSALS.items()
        },
    }


def _body_schema(model: LoadedModel) -> dict[str, Any]:
    """One row or several, by names or, if no column is called `features`, by position."""
    name = model.manifest.name
    forms = [
        _reference(f"{name}-record"),
        {"type": "array", "title": "records", "items": _reference(f"{name}-record"), "minItems": 1},
    ]
    if _by_position(model):
        forms += [_reference(f"{name}-vector"), _reference(f"{name}-vectors")]
    return {"oneOf": forms}


def _by_position(model: LoadedModel) -> bool:
    return all(column.name != "features" for column in model.schema.inputs)


def _schemas(model: LoadedModel) -> dict[str, Any]:
    """The schemas that a model's operations refer to, by name; without titles, which some client
    generators use as unique names."""
    name, inputs = model.manifest.name, model.schema.inputs
    values = [_value_schema(column, model.schema.rule(column.name)) for column in inputs]
    record = {
        "type": "object",
        "required": [
            column.name for i, column in enumerate(inputs) if i not in model.schema.defaults
        ],
        "properties": {column.name: value for column, value in zip(inputs, values, strict=True)}
        | dict.fromkeys(model.schema.ignored, _IGNORED),
        "additionalProperties": False,
    }
    schemas = {f"{name}-record": record, f"{name}-answer": _answer_schema(model)}
    if _by_position(model):
        # Bounded by its length: several client generators cannot read `items: false`.
        vector = {
            "type": "array",
            "prefixItems": values,
            "minItems": len(inputs),
            "maxItems": len(inputs),
        }
        schemas[f"{name}-vector"] = _features(vector)
        schemas[f"{name}-vectors"] = _features({"type": "array", "items": vector, "minItems": 1})
    return schemas


def _features(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["features"],
        "properties": {"features": schema},
        "additionalProperties": False,
    }


def _value_schema(column: Input, rule: Rule) -> dict[str, Any]:
    schema: dict[str, Any] = {"examples": [column.example]}
    if column.text is not None:
        schema |= {"type": "string", "maxLength": column.text.max_length}
    elif column.accepts_unknown and rule.categories is None:
        kind = "string" if isinstance((column.categories or [0])[0], str) else "integer"
        schema["type"] = [kind, "null"] if column.nullable else kind
        schema["examples"] = (column.categories or [])[:_SHOWN_CATEGORIES]
    elif column.categories:
        schema["enum"] = [*column.categories, None] if column.nullable else column.categories
    else:
        kind = _JSON_TYPES[column.kind]
        schema["type"] = [kind, "null"] if column.nullable else kind
    bounds = {"minimum": rule.minimum, "maximum": rule.maximum}
    schema |= {key: bound for key, bound in bounds.items() if bound is not None}
    return schema if rule.default is UNSET else schema | {"default": rule.default}


def _answer_schema(model: LoadedModel) -> dict[str, Any]:
    manifest = model.manifest
    one: dict[str, Any] = {"enum": manifest.classes} if manifest.classes else {"type": "number"}
    properties: dict[str, Any] = {"prediction": {"oneOf": [one, {"type": "array", "items": one}]}}
    if "probabilities" in manifest.outputs:
        by_class = {
            "type": "object",
            "properties": {str(label): {"type": "number"} for label in manifest.classes},
        }
        properties["probabilities"] = {"oneOf": [by_class, {"type": "array", "items": by_class}]}
    # Examples and not constants: a generated client must also work with later versions of the
    # model.
    properties |= {
        key: {"type": "string", "examples": [value]}
        for key, value in (("model", manifest.name), ("version", manifest.version))
    }
    return {"type": "object", "required": list(properties), "properties": properties}
