"""`GET /docs`: the API's description, with each served model's own types and example, readable
without a network.

Litestar finds the ordinary routes, and `docs_answers` says what they answer. The prediction routes
are plain ASGI, and what they accept depends on the models that are loaded at the moment: their part
is made per request, from the manifests, by `docs_models` and `docs_protocols`.
"""

from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path
from typing import Any

import litestar_offline_docs
from litestar import Request, Router, get
from litestar.enums import OpenAPIMediaType
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Server
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.response.base import ASGIResponse
from litestar.response.file import ASGIFileResponse

from halfcore import __version__
from halfcore.http.routes import docs_answers, docs_keys, docs_models, docs_protocols
from halfcore.http.routes.conditional import is_held
from halfcore.models.served import Models

PAGE = "/docs"
ASSETS = f"{PAGE}/assets"
PART_BYTES = 65536
"""Size of a part of a file, under a server that does not send files itself."""
_ASKED_AGAIN = {"cache-control": "no-cache"}
"""As the server's own page (`home`): a browser asks before it uses what it has, and gets 304."""
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


def openapi_config(models: Models, *, keyed: bool) -> OpenAPIConfig:
    """Litestar's OpenAPI configuration: Swagger UI from local files at /docs, the document at
    /docs/openapi.json; `keyed`: whether predictions need an API key."""

    swagger = _Swagger(
        models,
        keyed,
        path="/",
        js_url=f"{ASSETS}/swagger-ui-bundle.js",
        css_url=f"{ASSETS}/swagger-ui.css",
        standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
        favicon='<link rel="icon" href="data:,">',
        style=f"<style>{files(__package__).joinpath('docs.css').read_text()}</style>",
    )
    return OpenAPIConfig(
        title="Halfcore",
        version=__version__,
        path=PAGE,
        openapi_router=Router(
            PAGE, route_handlers=[], include_in_schema=False, before_request=_refuse_unknown
        ),
        render_plugins=[swagger, _Json(models, keyed, path="/openapi.json")],
        servers=[Server(url="/")],
        use_handler_docstrings=True,
    )


def routes(models: Models, *, keyed: bool) -> list[Any]:
    """`/openapi.json`, where clients look first, and Swagger UI's own files; `keyed`: whether
    predictions need an API key."""
    document = _Json(models, keyed)
    folder = Path(litestar_offline_docs.__file__).parent / "static"
    known = {file.name: (file, file.stat().st_size) for file in folder.iterdir()}
    release = version_of("litestar-offline-docs")

    @get(
        "/openapi.json",
        include_in_schema=False,
        media_type=OpenAPIMediaType.OPENAPI_JSON,
        sync_to_thread=False,
    )
    def describe(request: Request[Any, Any, Any]) -> bytes:
        return document.render(request, request.app.openapi_schema.to_schema())

    @get(ASSETS + "/{name:str}", include_in_schema=False, sync_to_thread=False)
    def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> ASGIResponse:
        if name not in known:
            raise NotFoundException
        # Not of the file's time, which differs between the replicas behind one address
        etag = f'"{release}-{name}"'
        headers = _ASKED_AGAIN | {"etag": etag}
        if is_held(request, etag):
            return ASGIResponse(status_code=304, headers=headers)
        return FileAnswer(*known[name], headers)

    return [describe, asset]


@get("/", include_in_schema=False, status_code=307, sync_to_thread=False)
def root() -> Redirect:
    """Leads to the page, on a server without a page of its own (`home`)."""
    return Redirect(PAGE, status_code=307)


def _refuse_unknown(request: Request[Any, Any, Any]) -> None:
    """Refuse what is not below /docs as any other route: Litestar's own page says nothing of where
    the description is. Its handler alone has a part of the path as parameter."""
    if request.path_params:
        raise NotFoundException


class FileAnswer(ASGIFileResponse):
    """A file. The server sends it itself if it can; then only the part being sent is in this
    process's memory.

    Args:
        file: which it is; its name says its type.
        size: bytes.
        headers: more of the answer's; among them the ETag.
    """

    def __init__(self, file: Path, size: int, headers: dict[str, str]) -> None:
        # Without a time, which would become Last-Modified: the ETag alone says what has changed
        info: Any = {"type": "file", "size": size}
        super().__init__(
            file_path=file,
            file_info=info,
            filename=file.name,
            content_disposition_type="inline",
            chunk_size=PART_BYTES,
            headers=headers,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer; see ASGI."""
        if "http.response.pathsend" not in (scope.get("extensions") or {}):
            await super().__call__(scope, receive, send)
            return
        await self.start_response(send)
        await send({"type": "http.response.pathsend", "path": str(self.file_path)})


class _Json(JsonRenderPlugin):
    """The OpenAPI document, with the models that are served at the moment."""

    def __init__(self, models: Models, keyed: bool, **options: Any) -> None:
        super().__init__(**options)
        self._models, self._keyed = models, keyed

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _document(openapi_schema, self._models, self._keyed))


class _Swagger(SwaggerRenderPlugin):
    """The page; it contains the OpenAPI document in a script."""

    def __init__(self, models: Models, keyed: bool, **options: Any) -> None:
        super().__init__(**options)
        self._models, self._keyed = models, keyed

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        page = super().render(request, _document(openapi_schema, self._models, self._keyed))
        return page.replace(b"<html>", b'<html lang="en">', 1)  # for screen readers

    @staticmethod
    def render_json(request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """As JSON that cannot end the script: a column may be called `</script>`."""
        return SwaggerRenderPlugin.render_json(request, openapi_schema).replace(b"<", rb"\u003c")


def _document(schema: dict[str, Any], models: Models, keyed: bool) -> dict[str, Any]:
    """Litestar's description of the ordinary routes, with the prediction routes added."""
    served = sorted(models, key=lambda model: str(model.manifest.name))
    default = models.default_name
    first = next((model for model in served if model.manifest.name == default), None)
    shown = first or (served[0] if served else None)
    manifest = shown.manifest if shown else None
    examples = {"name": manifest.name, "version": manifest.version} if manifest else {}
    predictions = docs_models.paths(served, default) | docs_protocols.paths(first, shown, examples)
    if keyed:
        predictions = docs_keys.with_keys(predictions)
    schemes = docs_answers.SECURITY_SCHEMES | (docs_keys.SECURITY_SCHEMES if keyed else {})
    return schema | {
        "tags": _TAGS,
        "paths": predictions | docs_answers.paths(schema["paths"], examples),
        "components": {
            "schemas": docs_answers.SCHEMAS | docs_protocols.SCHEMAS | docs_models.schemas(served),
            "securitySchemes": schemes,
        },
    }
