"""What the ordinary routes answer, for the OpenAPI document: every status, each with its content.

Litestar finds the routes, but not what a handler raises and what its dicts hold. A route without an
entry here is described as Litestar sees it; a test asks for an entry.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from halfcore.http.routes.docs_schemas import SCHEMAS, by_name, listed, reference
from halfcore.predict.deadline import HEADER as TIMEOUT_HEADER
from halfcore.predict.deadline import MOST_DIGITS
from halfcore.problem import CONTENT_TYPE

Content = dict[str, Any]
_JSON = "application/json"
_ADMIN = "AdminToken"
SECURITY_SCHEMES = {
    _ADMIN: {
        "type": "http",
        "scheme": "bearer",
        "description": "the value of HALFCORE_ADMIN_TOKEN",
    }
}
RETRY = {
    "503": {
        "headers": {
            "Retry-After": {
                "description": "seconds after which a retry makes sense",
                "schema": {"type": "integer"},
            }
        }
    }
}
"""Status → what is added to its description."""

TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "how long the client waits, milliseconds; then the answer is 504",
    "schema": {"type": "integer", "minimum": 1, "maximum": 10**MOST_DIGITS - 1},
}
"""The parameter of every prediction."""


def json(schema: dict[str, Any]) -> Content:
    """The content of a JSON answer."""
    return {_JSON: {"schema": schema}}


def named(name: str) -> Content:
    """The content of a JSON answer with a named schema."""
    return json(reference(name))


def problem() -> Content:
    """The content of a problem document."""
    return {CONTENT_TYPE: {"schema": reference("Problem")}}


class Answer(NamedTuple):
    """One status."""

    description: str
    content: Content | None = None


_UNKNOWN, _NOT_LOADED = "unknown model", "the model is not loaded; see Retry-After"
_MODEL_PROBLEMS = {
    "404": Answer(_UNKNOWN, problem()),
    "503": Answer(_NOT_LOADED, problem()),
}
_TENSOR_ERRORS = {
    "404": Answer("unknown model or version", named("InferenceError")),
    "503": Answer(_NOT_LOADED, named("InferenceError")),
}
_RAW: Content = {_JSON: {}}
"""MLflow's clients expect this type, and a body that is not JSON."""
_TEXT: Content = {"text/plain": {"schema": {"type": "string"}}}


def _ok(name: str, description: str = "as asked") -> dict[str, Answer]:
    return {"200": Answer(description, named(name))}


_METADATA = _ok("ModelMetadata", "the model's tensors") | _TENSOR_ERRORS
_READY = _ok("ModelReady", "the model answers") | _TENSOR_ERRORS
ANSWERS: dict[tuple[str, str], dict[str, Answer]] = {
    ("get", "/health"): _ok("Health", "the state"),
    ("get", "/health/live"): _ok("Alive", "the event loop turns"),
    ("get", "/health/ready"): {
        "200": Answer("send requests here", named("Readiness")),
        "503": Answer("send none", named("Readiness")),
    },
    ("get", "/metrics"): {"200": Answer("the metrics", _TEXT)},
    ("get", "/models"): _ok("Models", "the served models"),
    ("get", "/models/{name}"): _ok("ModelDetails", "the model") | _MODEL_PROBLEMS,
    ("post", "/models/{name}/reload"): {
        "200": Answer(
            "by the role of each follower, what it found",
            json(by_name(reference("Reloaded"))),
        ),
        "401": Answer("the admin token is missing or wrong", problem()),
        "409": Answer("the model is not followed", problem()),
        **_MODEL_PROBLEMS,
    },
    ("post", "/webhooks/mlflow"): {
        "204": Answer("the registry will be asked"),
        "400": Answer("the body is not complete", problem()),
        "401": Answer("not signed with the secret, or too old", problem()),
        "408": Answer("the body arrived too slowly", problem()),
        "413": Answer("the body is too large", problem()),
        "503": Answer("no memory for more large requests now; see Retry-After", problem()),
    },
    ("get", "/ping"): {
        "200": Answer("a model is served", _RAW),
        "404": Answer("none is", _RAW),
    },
    ("get", "/version"): {"200": Answer("the version", _RAW)},
    ("get", "/v2"): _ok("ServerMetadata", "the server"),
    ("get", "/v2/health/live"): _ok("ServerLive", "the server is alive"),
    ("get", "/v2/health/ready"): {
        "200": Answer("send requests here", named("ServerReady")),
        "503": Answer("send none", named("ServerReady")),
    },
    ("get", "/v2/models"): _ok("ModelNames", "the models' names"),
    ("post", "/v2/repository/index"): {
        "200": Answer("the models", json(listed(reference("RepositoryModel")))),
        "400": Answer("the body is not in the protocol", named("InferenceError")),
        "408": Answer("the body arrived too slowly", named("InferenceError")),
        "413": Answer("the body is too large", named("InferenceError")),
    },
    ("get", "/v2/models/{name}"): _METADATA,
    ("get", "/v2/models/{name}/versions/{version}"): _METADATA,
    ("get", "/v2/models/{name}/ready"): _READY,
    ("get", "/v2/models/{name}/versions/{version}/ready"): _READY,
    ("get", "/v1/models"): _ok("ModelNames", "the models' names"),
    ("get", "/v1/models/{name}"): _READY,
}
_WEBHOOK_HEADERS = {
    "X-MLflow-Delivery-Id": "as MLflow sends it",
    "X-MLflow-Timestamp": "Unix time, seconds",
    "X-MLflow-Signature": "`v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in Base64",
}
_MORE: dict[str, dict[str, Any]] = {
    "/models/{name}/reload": {"security": [{_ADMIN: []}]},
    "/v2/repository/index": {
        "requestBody": {"required": False, "content": named("RepositoryRequest")}
    },
    "/webhooks/mlflow": {
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in _WEBHOOK_HEADERS.items()
        ],
    },
}
"""Path → what Litestar does not see of its requests."""


def paths(found: dict[str, Any], examples: Mapping[str, str]) -> dict[str, Any]:
    """The ordinary routes.

    Args:
        found: path → its operations as Litestar describes them.
        examples: path parameter → a value that works.
    """
    return {
        path: {method: _operation(path, method, known, examples) for method, known in item.items()}
        for path, item in found.items()
    }


def _operation(
    path: str, method: str, known: dict[str, Any], examples: Mapping[str, str]
) -> dict[str, Any]:
    answers = {
        status: _described(status, answer)
        for status, answer in sorted(ANSWERS.get((method, path), {}).items())
    }
    operation = known | {"tags": [_tag(path)], "responses": answers or known["responses"]}
    if "parameters" in operation:
        operation["parameters"] = [
            with_example(parameter, examples) for parameter in operation["parameters"]
        ]
    return operation | _MORE.get(path, {})


def with_example(parameter: dict[str, Any], examples: Mapping[str, str]) -> dict[str, Any]:
    """A path's parameter with a value that works, if there is one."""
    value = examples.get(parameter["name"])
    return parameter if value is None else parameter | {"example": value}


def _described(status: str, answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.content is not None:
        described["content"] = answer.content
    return described | (RETRY.get(status, {}) if "Retry-After" in answer.description else {})


def _tag(path: str) -> str:
    if path.startswith("/models"):
        return "models"
    return "protocols" if path.startswith(("/v1", "/v2", "/ping", "/version")) else "server"


__all__ = [
    "ANSWERS",
    "RETRY",
    "SCHEMAS",
    "SECURITY_SCHEMES",
    "TIMEOUT",
    "json",
    "named",
    "paths",
    "problem",
    "reference",
    "with_example",
]
