"""`GET /`: the server's own page, on which a person tries the models and sees the live figures.

The page is a few small files in `http/home`. All its addresses are relative, so that it works
behind a path prefix, and its Content-Security-Policy lets it load and ask nothing from elsewhere.
It uses the public routes, and one that is only for it: the figures.
"""

import hashlib
from importlib.resources import files
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from halfcore import host
from halfcore.http.routes.conditional import is_held
from halfcore.metrics.exposition import Exposition
from halfcore.metrics.figures import Figures

FOLDER = "/home"
PAGE_FILE = "index.html"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Always asked again, and answered with 304: a new server's page never runs old scripts.
    "cache-control": "no-cache",
}
_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file of the page."""

    content: bytes
    media_type: str
    etag: str


def assets() -> dict[str, Asset]:
    """The page's files by name."""
    found = {}
    for file in files("halfcore.http").joinpath("home").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            found[file.name] = Asset(content, kind, etag)
    return found


def routes(exposition: Exposition) -> list[Any]:
    """`/`, the files that the page names, and `/home/figures`."""
    known = assets()
    page = known.pop(PAGE_FILE)
    quota = host.cpu_quota()

    @get("/", include_in_schema=False, sync_to_thread=False)
    def index(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _answer(page, request)

    @get(FOLDER + "/{name:str}", include_in_schema=False, sync_to_thread=False)
    def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        if name not in known:
            raise NotFoundException
        return _answer(known[name], request)

    @get(FOLDER + "/figures", include_in_schema=False, sync_to_thread=False)
    def figures() -> Response[Figures]:
        made = Figures.of(exposition.snapshot(), cpu_quota=quota)
        return Response(made, headers=HEADERS | {"cache-control": "no-store"})

    return [index, asset, figures]


def _answer(file: Asset, request: Request[Any, Any, Any]) -> Response[bytes]:
    """The file, or 304 if the client has it."""
    headers = HEADERS | {"etag": file.etag}
    if is_held(request, file.etag):
        return Response(b"", status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
