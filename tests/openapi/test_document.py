"""The description names every route, every status and every schema, and its examples work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from halfcore.http.routes.docs_answers import ANSWERS
from halfcore.settings.groups import Settings
from halfcore.worker import Worker
from openapi.models import DEFAULT, VERSION

JSON = "application/json"
FORMS = {
    "/invocations": "ScoringError",
    "/endpoints/": "ScoringError",
    "/v1/": "InferenceError",
    "/v2": "InferenceError",
}
"""Beginnings of paths, and the errors of their protocol; all other errors are problems."""


class Operation(NamedTuple):
    """One of the description."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}"


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """All of them."""
    for path, item in document["paths"].items():
        for method, described in item.items():
            yield Operation(method, path, described)


async def test_every_route_has_an_entry(tmp_path: Path) -> None:
    """A route that Litestar would describe by itself has its statuses in the table, and the table
    has no other."""
    settings = Settings(bundles=tmp_path, admin_token="a", webhook_secret="b", log_level="error")
    found = Worker(settings).app.openapi_schema.to_schema()["paths"]
    assert {(method, path) for path, item in found.items() for method in item} == ANSWERS.keys()


def test_every_answer_has_a_named_schema(document: dict[str, Any]) -> None:
    """A generator has a name for every JSON answer that holds more than one value."""
    for operation in operations(document):
        for status, answer in operation.described["responses"].items():
            for kind, content in answer.get("content", {}).items():
                schema = content.get("schema", {})
                assert schema.get("type") != "object" or "properties" not in schema, (
                    f"{operation.name}: {status} {kind}"
                )


def test_errors_have_the_form_of_their_protocol(document: dict[str, Any]) -> None:
    """Each protocol's own for its paths, problem documents for all others."""
    for operation in operations(document):
        form = next(
            (name for start, name in FORMS.items() if operation.path.startswith(start)), "Problem"
        )
        for status, answer in operation.described["responses"].items():
            schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
            named = [schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema]
            if status >= "400" and named and "Read" not in named[0]:
                assert named == [form], f"{operation.name}: {status}"


def test_no_schema_is_left_over(document: dict[str, Any]) -> None:
    """Each is used, and each reference leads somewhere."""
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def test_values_of_an_enumeration_have_different_names(document: dict[str, Any]) -> None:
    """Generators name them after their texts, and lose one where two names are equal."""
    schemas = document["components"]["schemas"]
    odd = schemas["odd-columns-record"]["properties"]["class"]
    assert len(odd["x-enum-varnames"]) == len(set(odd["x-enum-varnames"])) == len(odd["enum"]) - 1
    label = schemas["odd-columns-answer"]["properties"]["prediction"]["oneOf"][0]
    assert len(set(label["x-enum-varnames"])) == 3
    assert "x-enum-varnames" not in schemas["mixed-record"]["properties"]["island"]


def test_every_example_works(document: dict[str, Any], url: str) -> None:
    """Whoever presses "Try it out" gets a 200, in every protocol and with every form."""
    tried = 0
    values = {"name": DEFAULT, "version": VERSION}
    with httpx.Client(base_url=url) as client:
        for operation in operations(document):
            for parameter in operation.described.get("parameters", []):
                if parameter["in"] == "path":
                    assert parameter["example"] == values[parameter["name"]], operation.name
            path = operation.path.format(**values)
            for kind, value in _examples(operation):
                content = json.dumps(value) if kind == JSON else str(value)
                answer = client.post(path, content=content, headers={"content-type": kind})
                assert answer.status_code == 200, (operation.name, kind, value, answer.text)
                tried += 1
            if operation.method == "get":
                assert client.get(path).status_code == 200, operation.name
    assert tried >= 25


def _examples(operation: Operation) -> Iterator[tuple[str, Any]]:
    content = operation.described.get("requestBody", {}).get("content", {})
    for kind, described in content.items():
        for example in described.get("examples", {}).values():
            yield kind, example["value"]


@pytest.mark.parametrize("path", ["/v2/models/a%2Fb", "/v2/nothing", "/v1/models/a%2Fb"])
def test_an_unknown_path_is_refused_in_its_protocol(url: str, path: str) -> None:
    """Clients of the inference protocol read `error` wherever they look."""
    answer = httpx.get(url + path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, JSON)
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize("path", ["/invocations", "/endpoints/numbers/invocations"])
def test_a_wrong_method_is_refused_in_its_protocol(url: str, path: str) -> None:
    """MLflow's clients read `error_code` and `message`."""
    answer = httpx.get(url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert answer.json().keys() == {"error_code", "message"}


@pytest.mark.parametrize(
    ("body", "status"), [('{"ready": true}', 200), ("[]", 400), (" " * 5000, 413)]
)
def test_the_index_of_models_is_described_with_its_body(
    document: dict[str, Any], url: str, body: str, status: int
) -> None:
    """A generated client can ask for the models that answer, and knows each refusal."""
    described = document["paths"]["/v2/repository/index"]["post"]
    schema = described["requestBody"]["content"][JSON]["schema"]
    assert schema == {"$ref": "#/components/schemas/RepositoryRequest"}
    answer = httpx.post(f"{url}/v2/repository/index", content=body)
    assert answer.status_code == status
    assert str(status) in described["responses"]
