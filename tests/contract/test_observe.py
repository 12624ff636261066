"""The dashboard asks for metrics that the server has, and Prometheus knows where they are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.bundles import write_bundle
from support.serving import request, serving

COMPOSE = Path(__file__).parents[2] / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
DASHBOARD: dict[str, Any] = json.loads((COMPOSE / "grafana/dashboards/halfcore.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OPTIONAL = re.compile(
    r"halfcore_(cpu_quota|cpu_periods|cpu_throttled|memory|model_s|drift|registry|prediction_log)"
)
"""Metrics of a server in limits, that follows a registry, or logs: test_dashboard.py has one."""
ASKED = {
    name
    for panel in PANELS
    for target in panel["targets"]
    for name in re.findall(r"\bhalfcore_\w+", target["expr"])
    if not OPTIONAL.match(name)
}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a server that has answered one request tells."""
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    with serving(root) as server:
        assert b" 200 " in server.send(request("/predict", b'{"features":[1,2,3,4]}'))[:20]
        return server.send(request("/metrics", method="GET")).decode()


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_server_has_the_metric(exposed: str, name: str) -> None:
    """With this very name."""
    assert re.search(rf"^{name}(\{{| )", exposed, re.MULTILINE), f"no metric {name}"


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    """A title, a unit, a place and at least one question each."""
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert (
            panel["datasource"]["uid"]
            == yaml.safe_load((COMPOSE / "grafana/datasources/prometheus.yml").read_text())[
                "datasources"
            ][0]["uid"]
        )
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(places) == len(set(places))


def test_prometheus_asks_names_that_compose_gives() -> None:
    """A service's name, or the name that all servers share."""
    config = yaml.safe_load((COMPOSE / "prometheus/prometheus.yml").read_text())
    asked = {
        name
        for job in config["scrape_configs"]
        for discovery in job.get("dns_sd_configs", [])
        for name in discovery["names"]
    }
    aliases = {
        alias
        for service in SERVICES.values()
        if isinstance(service["networks"], dict)
        for network in service["networks"].values()
        for alias in (network or {}).get("aliases", [])
    }
    assert asked <= aliases | SERVICES.keys()
