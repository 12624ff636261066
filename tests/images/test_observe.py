"""Prometheus finds every replica by itself, and the balancer."""

import json
import urllib.request
from urllib.parse import quote

from support.containers import Compose, Users, until
from support.serving import free_port


def test_prometheus_sees_each_replica_and_the_balancer() -> None:
    """All targets are up, and the replicas' requests can be told apart."""
    port = free_port()
    with Compose("two-by-015", "observe", PROMETHEUS_PORT=str(port)) as compose:
        compose("up", "--wait", "--detach", "two-by-015", "balancer", "prometheus")
        until(lambda: _ask(port, 'up{job="halfcore"} == 1') == 2, "not both replicas are seen")
        until(lambda: _ask(port, 'up{job="balancer"} == 1') == 1, "the balancer is not seen")
        with Users(compose.port) as users:
            until(
                lambda: _ask(port, 'halfcore_requests_total{outcome="200"} > 0') == 2,
                "no requests are seen",
            )
    assert not users.failures


def _ask(port: int, query: str) -> int:
    """How many series answer a query."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}", timeout=5
        ) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return 0
