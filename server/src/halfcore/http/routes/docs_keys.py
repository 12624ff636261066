"""API keys in the OpenAPI document, if the server asks for them: the button "Authorize" on the
page, and what a request without a valid key is answered."""

from typing import Any

from halfcore.http.routes.docs_answers import RETRY

_BEARER, _HEADER = "ApiKey", "ApiKeyHeader"
SECURITY_SCHEMES: dict[str, Any] = {
    _BEARER: {"type": "http", "scheme": "bearer", "description": "an API key of this server"},
    _HEADER: {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "an API key of this server",
    },
}
_REFUSALS = {
    "401": "no API key, or an unknown one",
    "403": "the API key may not ask this model",
    "429": "more requests than the API key allows; see Retry-After",
}
_SIMILAR = "404"
"""The status whose content is the protocol's form of an error."""


def with_keys(paths: dict[str, Any]) -> dict[str, Any]:
    """The prediction routes of a server that asks for a key.

    Args:
        paths: path → its operations.
    """
    return {
        path: {method: _operation(operation) for method, operation in operations.items()}
        for path, operations in paths.items()
    }


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    responses = operation["responses"]
    content = responses[_SIMILAR]["content"]
    refusals: dict[str, Any] = {
        status: {"description": text, "content": content} for status, text in _REFUSALS.items()
    }
    refusals["429"] |= RETRY["503"]
    return operation | {
        "security": [{_BEARER: []}, {_HEADER: []}],
        "responses": dict(sorted((responses | refusals).items())),
    }
