"""The routes for operators and for the registry's webhook; each exists only if its secret is
configured."""

import base64
import binascii
import hashlib
import hmac
import time
from typing import Any

from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from halfcore.http.routes.reading import body_of
from halfcore.models.served import Models
from halfcore.predict.body import BodyReader
from halfcore.problem import Problem
from halfcore.registry.followers import Followers
from halfcore.registry.status import described

MOST_AGE_S = 300
"""Seconds by which a webhook's time may differ from ours, as in Standard Webhooks."""
MOST_WEBHOOK_BYTES = 65536


def routes(
    models: Models, followers: Followers, reader: BodyReader, *, secrets: tuple[str, str]
) -> list[Any]:
    """`POST /models/{name}/reload` and `POST /webhooks/mlflow`, each if its secret is not empty."""
    admin_token, webhook_secret = secrets
    return ([_reload(models, followers, admin_token)] if admin_token else []) + (
        [_webhook(followers, reader, webhook_secret)] if webhook_secret else []
    )


def _reload(models: Models, followers: Followers, admin_token: str) -> Any:
    @post(
        "/models/{name:str}/reload",
        status_code=200,
        raises=[_Unauthorized],
        summary="Ask the registry now, and retry what was refused",
    )
    async def reload_model(request: Request[Any, Any, Any], name: FromPath[str]) -> dict[str, Any]:
        check_token(request.headers.get("authorization", ""), admin_token)
        if not followers.of(name):
            models.get(name)
            raise Problem(
                409,
                "not_followed",
                f'model "{name[:100]}" is a bundle of the directory, which is loaded at the start '
                "only; restart the server to load another",
            )
        outcomes = await followers.reload(name)
        return {
            status.role: {"result": outcomes[status.role]} | described(status)
            for status in followers.statuses(name)
        }

    return reload_model


def _webhook(followers: Followers, reader: BodyReader, webhook_secret: str) -> Any:
    @post(
        "/webhooks/mlflow",
        status_code=204,
        raises=[_Unauthorized],
        summary="A hint that the registry changed",
    )
    async def mlflow_webhook(request: Request[Any, Any, Any]) -> Response[None]:
        body = await body_of(request, reader, MOST_WEBHOOK_BYTES)
        header = request.headers.get
        check_signature(
            body,
            secret=webhook_secret,
            delivery_id=header("x-mlflow-delivery-id", ""),
            timestamp=header("x-mlflow-timestamp", ""),
            signature=header("x-mlflow-signature", ""),
            now=time.time(),
        )
        # The body is not read: the followers ask the registry.
        followers.hint()
        return Response(None, status_code=204)

    return mlflow_webhook


def check_token(authorization: str, token: str) -> None:
    """Accept only `Bearer TOKEN`; a wrong token takes as long as a missing one.

    Raises:
        Problem: 401.
    """
    kind, _, given = authorization.partition(" ")
    if not hmac.compare_digest(given.strip().encode(), token.encode()) or kind.lower() != "bearer":
        raise Problem(
            401,
            "unauthorized",
            "expected Authorization: Bearer and the admin token",
            headers={"www-authenticate": "Bearer"},
        )


def check_signature(
    body: bytes, *, secret: str, delivery_id: str, timestamp: str, signature: str, now: float
) -> None:
    """Accept a webhook that MLflow signed within the last minutes: HMAC-SHA256 of
    `ID.TIMESTAMP.BODY`, as `v1,BASE64`.

    Args:
        signature: one or several, separated by spaces.
        now: Unix time.

    Raises:
        Problem: 401.
    """
    wanted = hmac.digest(
        secret.encode(), f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256
    )
    given = [_decoded(part) for part in signature.split()[:10]]
    if not any(hmac.compare_digest(one, wanted) for one in given):
        raise Problem(
            401, "wrong_signature", "the webhook is not signed with the secret that is configured"
        )
    if (
        not timestamp.isascii()
        or not timestamp.isdecimal()
        or abs(now - int(timestamp[:18])) > MOST_AGE_S
    ):
        raise Problem(
            401,
            "stale_webhook",
            f"the webhook's time differs from ours by more than {MOST_AGE_S} s",
        )


def _decoded(part: str) -> bytes:
    version, _, text = part.partition(",")
    try:
        return base64.b64decode(text, validate=True) if version == "v1" else b""
    except (binascii.Error, ValueError):
        return b""


class _Unauthorized(HTTPException):
    """For the OpenAPI document."""

    status_code = 401
