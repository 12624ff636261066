"""Replicas behind HAProxy: what is dealt out, who joins late, and whose CPU time is counted."""

from pathlib import Path

import msgspec
import pytest

from loadlab.generator.exchange import bodies
from loadlab.generator.http import Client
from loadlab.generator.plan import scenarios
from loadlab.record.cgroup import Unavailable
from loadlab.run.order import parse
from loadlab.target import start
from loadlab.target.process import control_group
from loadlab.target.serving import BackendFailed
from loadlab.target.tiers import Tier
from loadlab.words import UsageError

TIERS = {"pair": Tier(name="pair", cpus=0.4, memory_bytes=256 << 20, replicas=2)}
ADDRESSES = [("127.0.0.1", 1001), ("127.0.0.1", 1002)]
REQUESTS = 40


def order(*words, late=False):
    """An order for two replicas."""
    found = parse(["tier=pair", "backend=cgroup", *words], TIERS, scenarios())
    return msgspec.structs.replace(found, late=late)


def test_the_configuration_names_every_replica_and_room_for_every_user():
    """By requests or by connections; the one that joins late is known, and out."""
    http, tcp = (
        start.configuration(asked, ADDRESSES, port=1000, control=Path("/c"))
        for asked in (order("balancer=http", "users=10000"), order("balancer=tcp", late=True))
    )

    assert "balance leastconn" in http
    assert "http-reuse always" in http
    assert "disabled" not in http
    assert "maxconn 10256" in http
    assert "balance roundrobin" in tcp
    assert "mode http" not in tcp
    assert tcp.endswith(
        "    server replica1 127.0.0.1:1001\n    server replica2 127.0.0.1:1002 disabled\n"
    )


def test_without_haproxy_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    """Before anything is started."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(
        BackendFailed, match=r"balancer=http: .* `apt-get install haproxy` installs it"
    ):
        start.choose(order("balancer=http"), tmp_path)


@pytest.mark.parametrize(
    "words", [["balancer=http", "backend=compose"], ["balancer=tcp", "target=127.0.0.1:1"]]
)
def test_a_balancer_stands_only_before_the_labs_own_processes(words):
    """Containers have one; a given server is as it is."""
    with pytest.raises(UsageError, match="is for processes of the lab"):
        parse(["tier=pair", *words], TIERS, scenarios())


@pytest.fixture
def bundles(tmp_path):
    """With one model; skipped, and said, where control groups or HAProxy are missing."""
    if reason := start.no_haproxy():
        pytest.skip(reason)
    try:
        with control_group("probe"):
            pass
    except Unavailable as unavailable:
        pytest.skip(str(unavailable))
    from support.bundles import write_bundle

    write_bundle(tmp_path / "bundles", "iris", model=None)
    return tmp_path / "bundles"


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "joins"), [("http", True), ("tcp", False)])
def test_a_late_replica_gets_requests_of_kept_connections_only_from_a_balancer_of_requests(
    bundles, tmp_path, mode, joins
):
    """Keep-alive pins a user to a replica where connections are dealt out; what the balancer uses
    is counted apart."""
    asked = order(f"balancer={mode}", "users=20", late=True)
    with start.starting(
        "cgroup", asked, tmp_path, bundles=bundles, scratch=tmp_path, cpus=""
    ) as serving:
        user, body = (
            Client(*serving.addresses[0], serving.path),
            bodies("iris", serving.manifest, 1)[0],
        )
        assert {user.ask(body)[0] for _ in range(REQUESTS)} == {200}
        assert serving.answered() == [REQUESTS, 0]

        serving.settled()
        assert {user.ask(body)[0] for _ in range(REQUESTS)} == {200}
        user.close()
        first, second = serving.answered()

        assert first + second == 2 * REQUESTS
        assert (second > 0) is joins
        assert serving.balancer is not None
        assert serving.balancer.usage().cpu_s > 0
        assert serving.balancer.processes() == [serving.balancer_pid]
        assert len(serving.replicas()) == 2
