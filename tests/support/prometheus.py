"""A real Prometheus that scrapes one server; Debian's package, where it is installed."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.serving import Server, free_port

RULES = Path(__file__).parents[2] / "compose/prometheus/rules.yml"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression, now."""
        answer = httpx.get(
            f"{self._url}/api/v1/query", params={"query": expression}, timeout=60
        ).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return httpx.get(f"{self._url}/-/ready", timeout=60).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}; Debian: prometheus")
    return found


@contextmanager
def scraping(server: Server) -> Iterator[Prometheus]:
    """Scrape a server every second, with the project's rules, until the block ends."""
    binary, port = program("prometheus"), free_port()
    home = Path(tempfile.mkdtemp(prefix="halfcore-prometheus-"))
    job = {"job_name": "halfcore", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [job],
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        binary,
        f"--config.file={home}/prometheus.yml",
        f"--storage.tsdb.path={home}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        prometheus = Prometheus(port)
        deadline = time.monotonic() + 90
        while not prometheus.ready():
            said = (home / "output").read_text(errors="replace")
            assert process.poll() is None, f"Prometheus ended: {said}"
            assert time.monotonic() < deadline, f"Prometheus is not ready: {said}"
            time.sleep(0.1)
        yield prometheus
    finally:
        process.kill()
        process.wait(30)
        shutil.rmtree(home)
