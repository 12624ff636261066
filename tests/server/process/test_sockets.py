"""No socket that was not configured: every network call of a server, from its start to its end, as
the kernel saw it (strace)."""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from support.bundles import write_bundle
from support.fake_registry import fake_registry
from support.logged import migrated
from support.postgres import Postgres
from support.processes import GOOD, status
from support.serving import request, serving

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None,
    reason="strace is not installed: apt-get install strace",
)
CALL = re.compile(r"\b(socket|bind|connect|sendto|sendmsg)\((.*)")
NAME_CACHE = "/nscd/socket"
"""The C library looks for it before it resolves a name or a user."""
PORT = re.compile(r"sin6?_port=htons\((\d+)\)")


class Traced(NamedTuple):
    """What a server did with the network."""

    families: set[str]
    """Address families of the sockets that it made; socket pairs, which stay within a process, and
    the C library's question to the host's name cache are left out."""
    bound: set[int]
    connected: set[int]
    """Ports; 0 stands for a file of the file system."""


def traced(folder: Path, bundles: Path, paths: Sequence[str] = (), **settings: object) -> Traced:
    """Serve, predict, get some pages, and end the server by SIGTERM."""
    log = folder / "calls"
    command = ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-o", str(log)]
    calls = "--trace=socket,bind,connect,sendto,sendmsg"

    def wrap(server: Sequence[str]) -> Sequence[str]:
        return [*command, calls, *server]

    with serving(bundles, wrap=wrap, **settings) as server:
        assert status(server.send(request("/predict", GOOD))) == 200
        for path in paths:
            assert status(server.send(request(path, method="GET"))) == 200
        assert server.stop() == 0
    found = _read(log, server.process.pid)
    return found._replace(bound=found.bound - {server.port})


def _read(log: Path, process: int) -> Traced:
    families, bound, connected = set(), set(), set()
    for line in _whole(log, process).splitlines():
        match = CALL.search(line)
        if match is None or "resumed>" in line or NAME_CACHE in line:
            continue
        name, rest = match.groups()
        port = PORT.search(rest)
        if name == "socket":
            families.add(rest.partition(",")[0])
        elif name == "bind":
            bound.add(int(port[1]) if port else 0)
        elif name == "connect" or port:  # sendto and sendmsg name an address only without connect
            connected.add(int(port[1]) if port else 0)
    return Traced(families, bound, connected)


def _whole(log: Path, process: int) -> str:
    """What strace wrote, once it has seen the server's end: it outlives the server by a moment."""
    deadline = time.monotonic() + 60
    while not re.search(rf"^{process} +\+\+\+ exited", text := log.read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, "strace did not see the end of the server"
        time.sleep(0.02)
    return text


def test_by_default_there_is_only_the_listener(tmp_path: Path) -> None:
    """A prediction, both pages, health and the metrics: nobody is called, and nothing else
    listens."""
    write_bundle(tmp_path / "bundles", "sum", task="regression")
    paths = ("/", "/docs", "/openapi.json", "/health", "/metrics")
    found = traced(tmp_path, tmp_path / "bundles", paths, default_model="sum")

    assert found == Traced(families={"AF_INET"}, bound=set(), connected=set())


@pytest.mark.slow
def test_a_registry_and_a_database_are_the_only_ones_called(
    tmp_path: Path, postgres: Postgres
) -> None:
    """A server that follows a model and logs to PostgreSQL connects to those two ports."""
    database = migrated(postgres)
    with fake_registry() as registry:
        registry.publish(write_bundle(tmp_path / "exported", "sum", task="regression"))
        registry.point("sum", "1")
        found = traced(
            tmp_path,
            tmp_path / "bundles",
            ("/", "/docs", "/health"),
            follow="models:/sum@champion",
            tracking_uri=registry.url,
            database_url=postgres.dsn(database),
            prediction_log=True,
            prediction_log_spool=tmp_path / "spool",
        )
        registry_port = int(registry.url.rpartition(":")[2])

    assert found.connected == {registry_port, postgres.port}
    assert found.bound == set()
    assert found.families <= {"AF_INET", "AF_UNIX"}
