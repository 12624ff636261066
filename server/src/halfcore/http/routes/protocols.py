"""What clients of other protocols ask before they predict: whether the server is alive and ready,
and what its models take.

MLflow's `/ping` and `/version`, the inference protocol's `/v2/…`, and KServe's `/v1/models`. Their
predictions are answered by `predict.protocols`.
"""

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import MethodNotAllowedException
from litestar.params import FromPath

from halfcore import __version__
from halfcore.http.routes.reading import body_of
from halfcore.models.served import LoadedModel, Models
from halfcore.predict.body import BodyReader
from halfcore.predict.protocols import about, inference
from halfcore.predict.protocols.paths import PREDICT
from halfcore.problem import Problem

_JSON = "application/json"
_MOST_INDEX_BYTES = 4096
_Answer = Response[Any]


def routes(models: Models, reader: BodyReader) -> list[Any]:
    """The routes of the three protocols, without predictions."""
    return [*_mlflow(models), *_inference(models, reader), *_of_models(models), *_kserve(models)]


def _mlflow(models: Models) -> list[Any]:
    @get("/ping", sync_to_thread=False, summary="MLflow's protocol: 200 if a model is served")
    def ping() -> Response[bytes]:
        return Response(b"\n", status_code=200 if models.ready else 404, media_type=_JSON)

    @get("/version", sync_to_thread=False, summary="MLflow's protocol: the server's version")
    def version() -> Response[bytes]:
        return Response(__version__.encode(), media_type=_JSON)

    return [ping, version]


def _inference(models: Models, reader: BodyReader) -> list[Any]:
    @get("/v2", sync_to_thread=False, summary="The inference protocol: the server")
    def server() -> dict[str, Any]:
        return about.server("binary_tensor_data", "classification")

    @get("/v2/health/live", sync_to_thread=False, summary="Whether the server is alive")
    def live() -> dict[str, bool]:
        return {"live": True}

    @get("/v2/health/ready", sync_to_thread=False, summary="Whether to send requests; 503 if not")
    def ready() -> _Answer:
        return Response({"ready": models.ready}, status_code=200 if models.ready else 503)

    @get("/v2/models", sync_to_thread=False, summary="The names of the models")
    def names() -> dict[str, list[str]]:
        return {"models": sorted(models.served)}

    @post(
        "/v2/repository/index",
        status_code=200,
        summary='The models and their state; with {"ready": true} only those that answer',
    )
    async def index(request: Request[Any, Any, Any]) -> list[dict[str, str]]:
        return about.index(
            models, only_ready=_only_ready(await body_of(request, reader, _MOST_INDEX_BYTES))
        )

    return [server, live, ready, names, index]


def _of_models(models: Models) -> list[Any]:
    @get("/v2/models/{name:str}", sync_to_thread=False, summary="A model's tensors")
    def metadata(name: FromPath[str]) -> _Answer:
        return described(name, None)

    @get(
        "/v2/models/{name:str}/versions/{version:str}",
        sync_to_thread=False,
        summary="A version's tensors",
    )
    def metadata_of_version(name: FromPath[str], version: FromPath[str]) -> _Answer:
        return described(name, version)

    @get(
        "/v2/models/{name:str}/ready",
        sync_to_thread=False,
        summary="Whether a model answers; 503 if not",
    )
    def model_ready(name: FromPath[str]) -> _Answer:
        return readiness(name, None)

    @get(
        "/v2/models/{name:str}/versions/{version:str}/ready",
        sync_to_thread=False,
        summary="Whether a version answers; 503 if not",
    )
    def version_ready(name: FromPath[str], version: FromPath[str]) -> _Answer:
        return readiness(name, version)

    def described(name: str, version: str | None) -> _Answer:
        return Response(inference.describe(_served(models, name, version)))

    def readiness(name: str, version: str | None) -> _Answer:
        _served(models, name, version)
        return Response({"name": name, "ready": True})

    return [metadata, metadata_of_version, model_ready, version_ready]


def _kserve(models: Models) -> list[Any]:
    @get("/v1/models", sync_to_thread=False, summary="KServe's older protocol: the models' names")
    def names() -> dict[str, list[str]]:
        return {"models": sorted(models.served)}

    @get("/v1/models/{name:str}", sync_to_thread=False, summary="Whether a model answers")
    def state(name: FromPath[str]) -> _Answer:
        if name.endswith(PREDICT):
            raise MethodNotAllowedException(headers={"allow": "OPTIONS, POST"})
        _served(models, name, None)
        return Response({"name": name, "ready": True})

    return [names, state]


class _Index(msgspec.Struct):
    """What the index is asked for."""

    ready: bool | None = None


def _only_ready(body: bytes) -> bool:
    """Whether the index is asked for the models that answer; all of them if nothing is said.

    Raises:
        Problem: 400.
    """
    try:
        return bool(msgspec.json.decode(body or b"{}", type=_Index).ready)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else "it is not UTF-8"
        raise Problem(
            400, "bad_request", f"failed to parse the request JSON buffer: {reason}"
        ) from None


def _served(models: Models, name: str, version: str | None) -> LoadedModel:
    """The model; raises `Problem`, which the app answers in the path's protocol."""
    model = models.get(name)
    inference.check_version(model, version)
    return model
