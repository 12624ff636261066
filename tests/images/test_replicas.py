"""Three replicas behind the balancer, under load: what happens to one of them happens to no
user."""

import time
from collections.abc import Iterator

import pytest

from support.containers import Compose, Users, docker, inspect, predictions, until

TIER = "three-by-015"


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """The tier, up."""
    with Compose(TIER, HEALTH_INTERVAL="1s") as compose:
        compose("up", "--wait")
        yield compose


def healthy(name: str) -> bool:
    """Whether the engine finds a container well."""
    return bool(inspect(name)["State"]["Health"]["Status"] == "healthy")


def served_on(users: Users, requests: int = 500) -> None:
    """Wait until so many more requests are answered."""
    aim = users.answered + requests
    until(lambda: users.answered >= aim, f"no answers any more: {users.outcomes}")


def test_requests_are_spread_though_connections_stay_open(compose: Compose) -> None:
    """Each replica gets a third of the requests, within 10 %, from users who keep their
    connections."""
    names = compose.containers(TIER)
    before = [predictions(name) for name in names]
    with Users(compose.port) as users:
        served_on(users, 6000)
    shares = [predictions(name) - start for name, start in zip(names, before, strict=True)]
    assert not users.failures
    assert len(shares) == 3
    assert max(shares) <= 1.1 * sum(shares) / 3, shares
    assert min(shares) >= 0.9 * sum(shares) / 3, shares


def test_a_rolling_restart_of_all_costs_no_request(compose: Compose) -> None:
    """One after another ends as `docker stop` ends it, and comes back."""
    with Users(compose.port) as users:
        served_on(users)
        for name in compose.containers(TIER):
            docker("restart", "--time", "45", name)
            until(lambda name=name: healthy(name), "the replica did not come back")  # type: ignore[misc]
            served_on(users)
    assert not users.failures
    assert all(inspect(name)["State"]["ExitCode"] == 0 for name in compose.containers(TIER))


def test_a_killed_replica_costs_no_request(compose: Compose) -> None:
    """It ends amid its requests; they are asked again elsewhere."""
    with Users(compose.port) as users:
        served_on(users)
        name = compose.containers(TIER)[0]
        docker("kill", "--signal", "KILL", name)
        served_on(users)
        docker("start", name)
        until(lambda: healthy(name), "the replica did not come back")
        served_on(users)
    assert not users.failures


def test_a_frozen_replica_costs_no_request(compose: Compose) -> None:
    """It takes requests and says nothing; they are asked again elsewhere, and those that follow do
    not go there."""
    with Users(compose.port) as users:
        served_on(users)
        name = compose.containers(TIER)[0]
        docker("pause", name)
        try:
            served_on(users, 2000)
            # Longer than the balancer waits for an answer: no user still waits for the frozen one.
            time.sleep(12)
        finally:
            docker("unpause", name)
        served_on(users)
    assert not users.failures
