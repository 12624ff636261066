"""A Swarm of one node: the stack deploys, and an update of all replicas under load costs no
request."""

import json
import os
from collections.abc import Iterator

import pytest

from support.containers import ANSWER, SERVER, Users, ask, await_ready, docker, until
from support.serving import free_port

STACK = f"halfcore-test-{os.getpid()}"
SERVICE = f"{STACK}_server"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The door of a deployed stack. An engine that is a Swarm's node already stays one."""
    port = free_port()
    state = docker("info", "--format", "{{.Swarm.LocalNodeState}}")
    if state == "inactive":
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    docker("tag", SERVER, f"{STACK}/halfcore:latest")
    try:
        docker(
            *(
                "stack",
                "deploy",
                "--resolve-image",
                "never",
                "--compose-file",
                "compose/swarm.yaml",
                STACK,
            ),
            PORT=str(port),
            CONFIG=str(os.getpid()),
            NAMESPACE=STACK,
            TAG="latest",
        )
        await_ready(port, 120)
        until(lambda: running() == 3, "not every replica runs", 120)
        yield port
    finally:
        docker("stack", "rm", STACK)
        until(
            lambda: not docker("ps", "-q", "--filter", f"label=com.docker.stack.namespace={STACK}"),
            "the stack does not end",
            120,
        )
        if state == "inactive":
            docker("swarm", "leave", "--force")
        docker("rmi", f"{STACK}/halfcore:latest")


def running() -> int:
    """Replicas that run, and by their health check are well."""
    tasks = docker(
        "service",
        "ps",
        SERVICE,
        "--filter",
        "desired-state=running",
        "--format",
        "{{.CurrentState}}",
    ).splitlines()
    return sum(task.startswith("Running") for task in tasks)


def update_state() -> str:
    """What the Swarm says of the service's last update."""
    return str(json.loads(docker("service", "inspect", SERVICE))[0]["UpdateStatus"]["State"])


def test_the_stack_answers(port: int) -> None:
    """Through the balancer."""
    assert ask(port) == (200, ANSWER)


def test_an_update_of_all_replicas_costs_no_request(port: int) -> None:
    """One after another is replaced by a healthy one, under load."""
    before = set(
        docker("service", "ps", SERVICE, "-q", "--filter", "desired-state=running").split()
    )
    with Users(port) as users:
        until(lambda: users.answered > 500, "no answers")
        docker(
            "service",
            "update",
            "--detach=false",
            "--no-resolve-image",
            "--env-add",
            "HALFCORE_LOG_LEVEL=warning",
            SERVICE,
        )
        at = users.answered
        until(lambda: users.answered > at + 500, "no answers after the update")
    after = set(docker("service", "ps", SERVICE, "-q", "--filter", "desired-state=running").split())
    assert not users.failures
    until(lambda: update_state() == "completed", "the update is not complete")
    assert len(after) == 3
    assert not before & after, "every task is a new one"
