"""A real server with models that are hard to describe, for all tests of its description."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openapi.models import DEFAULT, write_models
from support.serving import serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the server, which also has the routes that are off by default."""
    root = tmp_path_factory.mktemp("bundles")
    write_models(root)
    secrets = {"admin_token": "of-the-tests", "webhook_secret": "of-the-tests"}
    with serving(root, default_model=DEFAULT, **secrets) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    """The server's description."""
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json").raise_for_status().json()
    return found


@pytest.fixture(scope="module")
def file(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The description as a file, for generators."""
    path: Path = tmp_path_factory.mktemp("description") / "openapi.json"
    path.write_text(json.dumps(document))
    return path
