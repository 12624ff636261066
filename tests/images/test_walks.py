"""README.md, docs/deploy.md and compose/README.md, as their readers live them: each command is
typed as it stands there."""

import json
import os
import resource
from collections.abc import Iterator

import httpx
import pytest

from support.containers import ANSWER, BODY, SERVER, ask, docker, until
from support.serving import free_port
from support.walks.walker import Walker, walks

_PATIENCE_S = 380.0
PLAIN = "docker compose up --wait"
"""Without a profile: those that `.env` names."""


@pytest.fixture
def alone(walker: Walker) -> Iterator[Walker]:
    """With a Compose project and ports of its own; whatever the walk leaves is taken down."""
    walker.values |= {
        "image": SERVER,
        "project": f"halfcore-walk-{os.getpid()}",
        "door": str(walker.port),
        "locust_port": str(free_port()),
        "mlflow_port": str(free_port()),
        "nofile": str(min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
    }
    yield walker
    docker(
        "compose",
        "-p",
        walker.values["project"],
        "--profile",
        "*",
        "down",
        "--volumes",
        "--timeout",
        "10",
        "--remove-orphans",
    )


def running(walker: Walker) -> list[str]:
    """The services of the walk's project that have a container."""
    project = f"label=com.docker.compose.project={walker.values['project']}"
    return docker(
        "ps", "--filter", project, "--format", '{{.Label "com.docker.compose.service"}}'
    ).split()


def locust_page(walker: Walker) -> str:
    """Where Locust's page is published."""
    return f"http://127.0.0.1:{walker.values['locust_port']}/"


def workers(walker: Walker) -> int | None:
    """How many workers Locust's master knows; nothing while it starts."""
    try:
        answer = httpx.get(locust_page(walker) + "stats/requests")
    except httpx.TransportError:
        return None
    return len(answer.json()["workers"])


@walks(
    "just image server",
    "docker run --rm -p * --read-only *",
    "docker run --rm -p 127.0.0.1:8000:8000 --cpus *",
)
def test_an_image_is_built_and_run(alone: Walker) -> None:
    """It answers as the README shows, and its container is gone when the command ends."""
    alone.run(alone.find("just image server"), timeout_s=_PATIENCE_S)
    for command in (each for each in alone.commands if each.text.startswith("docker run")):
        with alone.start(command) as server:
            assert (
                server.ready()
                .post("/predict", content=BODY, headers={"content-type": "application/json"})
                .content
                == ANSWER
            )
            server.end()


@walks(
    "docker compose --profile half-core up --wait",
    PLAIN,
    "just up half-core",
    "docker compose down",
    "just down",
    "just down --volumes",
)
def test_a_tier_comes_up_and_goes(alone: Walker) -> None:
    """By each of its commands; the door answers, and afterwards nothing of it runs.

    The plain command starts Locust, too, whose page has users and rate filled in.
    """
    downs = {PLAIN: "docker compose down", "just up half-core": "just down"}
    for up in (command for command in alone.commands if " up " in command.text):
        alone.run(up, timeout_s=_PATIENCE_S)
        assert ask(alone.port) == (200, ANSWER)
        locust = ["locust-master", "locust-worker"] if up.text == PLAIN else []
        assert sorted(running(alone)) == ["half-core", *locust]
        if locust:
            until(lambda: workers(alone) == 1, "Locust has no worker", _PATIENCE_S)
            page = httpx.get(locust_page(alone)).text
            assert '"num_users": 10000' in page, page
            assert '"spawn_rate": 500' in page, page
        down = alone.find(downs.get(up.text, "just down --volumes"))
        alone.run(down, timeout_s=_PATIENCE_S)
        assert running(alone) == []


@walks("just up registry")
def test_the_registry_comes_up_and_its_model_is_served(alone: Walker) -> None:
    """MLflow answers, the exporter exports, and what the alias names is served."""
    alone.run(alone.commands[0], timeout_s=_PATIENCE_S)
    assert httpx.get(f"http://127.0.0.1:{alone.values['mlflow_port']}/health").status_code == 200

    def followed() -> object:
        status, body = ask(alone.port, "/models/iris", None)
        return status == 200 and json.loads(body)["following"]["champion"]["served"]

    until(followed, "iris is not served from the registry", _PATIENCE_S)
    assert ask(alone.port)[0] == 200
