"""Reloads and webhooks: only with their secrets, and only as hints."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from halfcore.http.routes.admin import check_signature, check_token
from halfcore.problem import Problem
from halfcore.registry.sources import parse
from support.bundles import write_bundle
from support.client import app_client

NOW = 1_800_000_000
BODY = (
    '{"entity":"model_version_alias","action":"created",'
    '"data":{"name":"iris","alias":"champion","version":"2"}}'
)


def signed(secret: str = "s3cret", at: float = NOW, body: str = BODY) -> dict[str, Any]:
    """The arguments of a webhook that MLflow itself signed."""
    signature = _generate_hmac_signature(secret, "id-1", str(int(at)), body)
    return {"delivery_id": "id-1", "timestamp": str(int(at)), "signature": signature}


def test_a_webhook_as_mlflow_signs_it_is_taken() -> None:
    """Also beside another signature, as while a secret is exchanged."""
    check_signature(BODY.encode(), secret="s3cret", now=NOW, **signed())
    both = signed() | {"signature": "v1,AAAA " + signed()["signature"]}
    check_signature(BODY.encode(), secret="s3cret", now=NOW, **both)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "another secret": ("wrong_signature", signed(secret="other")),
    "another body": ("wrong_signature", signed(body=BODY + " ")),
    "another id": ("wrong_signature", signed() | {"delivery_id": "id-2"}),
    "another time": ("wrong_signature", signed() | {"timestamp": str(NOW + 1)}),
    "no signature": ("wrong_signature", signed() | {"signature": ""}),
    "another scheme": (
        "wrong_signature",
        signed() | {"signature": signed()["signature"].replace("v1", "v0")},
    ),
    "no base64": ("wrong_signature", signed() | {"signature": "v1,ü"}),
    "too old": ("stale_webhook", signed(at=NOW - 301)),
    "of the future": ("stale_webhook", signed(at=NOW + 301)),
}


@pytest.mark.parametrize("name", WRONG)
def test_any_other_webhook_is_refused(name: str) -> None:
    """Forged, changed, replayed."""
    code, arguments = WRONG[name]
    with pytest.raises(Problem) as raised:
        check_signature(BODY.encode(), secret="s3cret", now=NOW, **arguments)
    assert (raised.value.status, raised.value.code) == (401, code)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic s3cret",
        "s3cret",
        "Bearer s3cretx",
        "Bearer ü",
    ],
)
def test_only_the_token_opens(header: str) -> None:
    """401 with the scheme that is wanted."""
    check_token("Bearer s3cret", "s3cret")
    with pytest.raises(Problem) as raised:
        check_token(header, "s3cret")
    assert raised.value.headers == {"www-authenticate": "Bearer"}


async def test_without_secrets_there_are_no_such_routes(tmp_path: Path) -> None:
    """Nothing can be guessed at."""
    write_bundle(tmp_path)
    async with app_client(tmp_path) as client:
        assert await statuses(client) == [404, 404]


async def test_a_model_that_is_not_followed_cannot_be_reloaded(tmp_path: Path) -> None:
    """Wrong token 401, unknown model 404, static model 409; a webhook without a signature 401."""
    write_bundle(tmp_path)
    async with app_client(tmp_path, admin_token="s3cret", webhook_secret="s3cret") as client:
        assert await statuses(client) == [401, 401]
        known = {"authorization": "Bearer s3cret"}
        assert (await client.post("/models/numbers/reload", headers=known)).json()[
            "code"
        ] == "not_followed"
        assert (await client.post("/models/other/reload", headers=known)).status_code == 404
        at = time.time()
        headers = {
            f"x-mlflow-{name.replace('_', '-')}": value for name, value in signed(at=at).items()
        }
        assert (
            await client.post("/webhooks/mlflow", content=BODY, headers=headers)
        ).status_code == 204


async def statuses(client: httpx.AsyncClient) -> list[int]:
    """What somebody without secrets gets."""
    return [
        (await client.post(path)).status_code
        for path in ("/models/numbers/reload", "/webhooks/mlflow")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/iris@champion", [("iris", "iris", "alias", "champion")]),
        (
            " a=models:/My Model/Production , models:/b/3 ",
            [("a", "My Model", "stage", "Production"), ("b", "b", "version", "3")],
        ),
        ("models:/iris/latest", [("iris", "iris", "latest", "latest")]),
        ("models:/iris@Latest", [("iris", "iris", "latest", "Latest")]),
        ("", []),
    ],
)
def test_what_is_followed_is_read(text: str, expected: list[tuple[str, ...]]) -> None:
    """Names, aliases, stages, versions."""
    assert [(one.name, one.registered, one.kind, one.reference) for one in parse(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "iris",
        "models:/iris",
        "models:/iris@",
        "runs:/a/b",
        "models:/m@a,models:/m@b",
        "models:/My Model@a",
        "../x=models:/a@b",
        "=models:/a@b",
    ],
)
def test_what_cannot_be_followed_is_said(text: str) -> None:
    """One line that says what was expected."""
    with pytest.raises(ValueError, match=r"expected|twice"):
        parse(text)
