"""The alerts raise what they should, and each panel of the dashboard has something to show: asked
of a real Prometheus that scrapes a real server."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadlab.record import cgroup
from loadlab.record.cgroup import Limits
from loadlab.target.process import control_group
from support.fake_registry import Exchange, fake_registry
from support.postgres import Postgres
from support.prometheus import RULES, program, scraping
from support.serving import Server, request, serving
from support.versions import BODIES, write_version

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "compose/grafana/dashboards/halfcore.json").read_text()
)
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
CASES: dict[str, Any] = yaml.safe_load((ROOT / "tests/prometheus/rules_test.yml").read_text())


def test_the_alerts_raise_what_they_should() -> None:
    """As promtool sees it."""
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(ROOT / "tests/prometheus/rules_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_both_ways_and_explained(alert: str) -> None:
    """A case in which it is raised, one in which it is not, what to do, and a line in the
    operator's page."""
    raised = {
        bool(case["exp_alerts"])
        for test in CASES["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    }
    assert raised == {True, False}
    assert ALERTS[alert]["annotations"].keys() == {"summary", "action"}
    assert f"`{alert}`" in (ROOT / "docs/operations.md").read_text()


def test_each_code_of_a_refused_bundle_raises_the_alert() -> None:
    """Those that the operator's page says are not downloaded again, and no others."""
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| (?:not tried|checked) again", page, re.MULTILINE)
    refused = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    named = re.findall(r'result=~"([^"]+)"', ALERTS["HalfcoreBundleRefused"]["expr"])
    assert len(refused) > 10
    assert [set(codes.split("|")) for codes in named] == [refused, refused]


@contextmanager
def limited(stack: ExitStack) -> Iterator[dict[str, Any]]:
    """How to start a server under a CPU quota and a memory limit; nothing where that is not
    possible."""
    limits = Limits(cpus=0.5, memory_bytes=512 << 20)
    try:
        yield {"wrap": stack.enter_context(control_group("dashboard", limits)).wrap}
    except cgroup.Unavailable:
        yield {}


@pytest.mark.slow
def test_each_panel_has_something_to_show(
    tmp_path: Path, postgres: Postgres, database: str
) -> None:
    """Of a server in its limits that follows a registry and logs its predictions."""
    with fake_registry() as registry, ExitStack() as stack:
        described = {"distribution": {"rows": 100, "inputs": {"x0": TWO_RANGES}}}
        registry.publish(write_version(tmp_path / "exported", 1, changes=described))
        registry.point("numbers", "1")
        wrap = stack.enter_context(limited(stack))
        server = stack.enter_context(
            serving(
                tmp_path / "none",
                store=tmp_path / "store",
                follow="models:/numbers@champion",
                tracking_uri=registry.url,
                follow_period_s=0.5,
                database_url=postgres.dsn(database),
                prediction_log=True,
                prediction_log_spool=tmp_path / "spool",
                **wrap,
            )
        )
        prometheus = stack.enter_context(scraping(server))
        waiting = {
            (panel["title"], target["legendFormat"]): asked(target["expr"])
            for panel in DASHBOARD["panels"]
            for target in panel.get("targets", [])
            if wrap or not re.search(r"_quota_|throttled|memory_limit", target["expr"])
        }
        assert len(waiting) >= 20
        registry.lie = unavailable  # so that polls fail, too
        deadline = time.monotonic() + 90
        while waiting:
            assert time.monotonic() < deadline, f"no data: {waiting}"
            ask(server)
            waiting = {key: query for key, query in waiting.items() if not prometheus.query(query)}


def unavailable(exchange: Exchange) -> bool:
    """What the registry answers while it is down."""
    exchange.answer(503, b"")
    return True


TWO_RANGES = {"limits": [1.0], "shares": [0.5, 0.5, 0.0]}
MANY = b'{"features":[' + b",".join([b"[1,2,3,4]"] * 300) + b"]}"
"""Enough for the drift of its columns."""


def ask(server: Server) -> None:
    """A prediction that is right, and one that is refused."""
    server.send(request("/models/numbers/predict", BODIES[0]))
    server.send(request("/models/numbers/predict", MANY))
    server.send(request("/models/numbers/predict", b"{"))


def asked(expression: str) -> str:
    """What Grafana makes of a panel's expression."""
    return expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
