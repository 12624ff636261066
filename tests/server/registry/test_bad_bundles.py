"""Every kind of bad bundle, offered in turn to a running server under load: the old model serves
on, and each refusal says why."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.damage import BAD
from support.fake_registry import FakeRegistry, fake_registry
from support.load import Load
from support.serving import Server, serving
from support.versions import BODIES, told, write_version

pytestmark = pytest.mark.slow

SETTINGS = {
    "follow": "models:/numbers@champion",
    "follow_period_s": 0.1,
    "sandbox_timeout_s": 10,
    "sandbox_memory_mb": 600,
    "max_bundle_mb": 16,
}


def offer(registry: FakeRegistry, root: Path, name: str) -> str:
    """Register a bundle of this kind as the next version."""
    kind = BAD[name]
    number = len(registry.versions["numbers"]) + 1
    path = write_version(root, number)
    kind.damage(path)
    version = registry.publish(path)
    for key, value in kind.tags.items():
        registry.versions["numbers"][version].pop(key, None)
        if value is not None:
            registry.versions["numbers"][version][key] = value
    return version


def verdict(server: Server, version: str) -> dict[str, Any]:
    """Wait until the server says what it thinks of a version."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        status = httpx.get(f"http://127.0.0.1:{server.port}/models/numbers").json()["following"][
            "champion"
        ]
        assert status["served"]["version"] == "1"
        for kind in ("refused", "pending"):
            if (
                (found := status[kind])
                and found["version"] == version
                and found["code"] != "loading"
            ):
                return found  # type: ignore[no-any-return]
        time.sleep(0.02)
    raise AssertionError(f"nothing is said of version {version}: {status}")


def test_no_bad_bundle_is_served_and_none_costs_a_request(tmp_path: Path) -> None:
    """36 kinds in turn; then a good one is taken. Nothing temporary is left, and the process is the
    same."""
    with fake_registry() as registry:
        registry.point("numbers", registry.publish(write_version(tmp_path / "good", 1)))
        with serving(
            tmp_path / "none", store=tmp_path / "store", tracking_uri=registry.url, **SETTINGS
        ) as server:
            load = Load(server.port, BODIES, rate=100.0)
            found = {}
            with load.running():
                for name in BAD:
                    version = offer(registry, tmp_path / "bad", name)
                    registry.point("numbers", version)
                    found[name] = verdict(server, version)
                assert {told(one.answer, one.row) for one in load.sent if one.status == 200} == {
                    "1"
                }
                kept = sorted(path.name for path in (tmp_path / "store/numbers").iterdir())
                good = str(len(registry.versions["numbers"]) + 1)
                registry.point(
                    "numbers", registry.publish(write_version(tmp_path / "good", int(good)))
                )
                load.await_sent(lambda sent: sent[-1].answer["version"] == good)
            health = httpx.get(f"http://127.0.0.1:{server.port}/health").json()

    assert health["status"] == "ok", health
    assert load.failed == []
    assert {name: one["code"] for name, one in found.items()} == {
        name: kind.code for name, kind in BAD.items()
    }
    assert [
        (name, one["reason"]) for name, one in found.items() if BAD[name].says not in one["reason"]
    ] == []
    assert [
        one["reason"]
        for one in found.values()
        if str(tmp_path) in one["reason"] or "\n" in one["reason"]
    ] == []
    assert [name for name in kept if not name.startswith("1-")] == [
        ".champion.json",
        ".lock",
        ".refused.json",
    ]
