"""Swaps of a running server under load: no request fails, and every answer is one version's own."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.client import parsed, wait_until
from support.fake_registry import FakeRegistry, fake_registry
from support.load import Load, Sent
from support.serving import Server, serving
from support.versions import BODIES, told, write_version


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    """Four versions, of which the first is the champion."""
    with fake_registry() as registry:
        for version in range(1, 5):
            registry.publish(write_version(tmp_path / "exported", version, megabytes=2.0))
        registry.point("numbers", "1")
        yield registry


def follow(registry: FakeRegistry, **more: object) -> dict[str, object]:
    """Settings of a server that follows the champion closely."""
    return {
        "follow": "models:/numbers@champion",
        "tracking_uri": registry.url,
        "follow_period_s": 0.2,
        "admin_token": "secret",
    } | more


def await_workers(server: Server, version: str, workers: int) -> None:
    """Wait until so many workers serve a version."""
    deadline = time.monotonic() + 90
    while (
        found := metrics(server).get(
            ("halfcore_model_served_workers", "numbers", "champion", version)
        )
    ) != workers:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """The server's metrics."""
    return parsed(httpx.get(f"http://127.0.0.1:{server.port}/metrics").text)


def test_an_alias_that_is_taken_away_leaves_its_version_in_service(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    """As does a model that is deleted; `/health` says what the registry lacks and what to do."""
    with serving(tmp_path / "none", store=tmp_path / "store", **follow(registry)) as server:
        await_workers(server, "1", 1)
        del registry.aliases["numbers", "champion"]
        address = f"http://127.0.0.1:{server.port}"

        def pending() -> dict[str, Any] | None:
            health = httpx.get(f"{address}/health").json()
            assert health["status"] == "ok"
            return health["models"]["numbers"]["following"]["champion"]["pending"]  # type: ignore[no-any-return]

        found = wait_until(pending)
        answer = httpx.post(
            f"{address}/models/numbers/predict",
            content=BODIES[0],
            headers={"content-type": "application/json"},
        )

    assert found["code"] == "not_found"
    assert found["reason"].startswith("models:/numbers@champion names no version: ")
    assert "; register a version and set its alias, or" in found["reason"]
    assert answer.json()["version"] == "1"


def ends_with(sent: list[Sent], *, version: str, answers: int) -> bool:
    """Whether the last answers all came from a version."""
    return len(sent) >= answers and all(
        one.answer is not None and one.answer.get("version") == version for one in sent[-answers:]
    )


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_swaps_there_and_back_under_load_cost_no_request(
    tmp_path: Path, registry: FakeRegistry, workers: int
) -> None:
    """0 failures; each answer equals the oracle of the version that it names; one worker's versions
    come in the alias's order."""
    order = ["1", "2", "3", "2", "4", "1"]
    with serving(
        tmp_path / "none", store=tmp_path / "store", workers=workers, **follow(registry)
    ) as server:
        await_workers(server, "1", workers)  # each is ready for itself
        load = Load(server.port, BODIES, rate=200.0)
        with load.running():
            for version in order:
                registry.point("numbers", version)
                load.await_sent(partial(ends_with, version=version, answers=20))

    assert load.failed == []
    versions = [told(one.answer, one.row) for one in sorted(load.sent, key=lambda one: one.at_s)]
    if workers == 1:
        assert [versions[0]] + [
            after for before, after in pairwise(versions) if before != after
        ] == order
    fetched = [path for path in registry.asked if path.endswith("model.onnx")]
    assert (
        len(fetched) == 4
    )  # whoever needs a version that is on disk takes it from there; of two workers one fetches


@pytest.mark.slow
def test_a_reload_reaches_every_worker_at_once(tmp_path: Path, registry: FakeRegistry) -> None:
    """The one that is asked tells the others: none waits for its next poll, which is an hour
    away."""
    with serving(
        tmp_path / "none",
        store=tmp_path / "store",
        workers=3,
        **follow(registry, follow_period_s=3600),
    ) as server:
        await_workers(server, "1", 3)
        registry.point("numbers", "2")
        headers = {"authorization": "Bearer secret"}
        answer = httpx.post(
            f"http://127.0.0.1:{server.port}/models/numbers/reload", headers=headers, timeout=30
        )
        assert answer.status_code == 200
        await_workers(server, "2", 3)


@pytest.mark.slow
def test_a_replaced_model_is_let_go(tmp_path: Path, registry: FakeRegistry) -> None:
    """After a dozen swaps the process holds one model, not a dozen, and the store no more bundles
    than it may."""

    def resident() -> int:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096

    for version in range(5, 15):
        registry.publish(write_version(tmp_path / "exported", version, megabytes=24.0))
    with serving(
        tmp_path / "none", store=tmp_path / "store", keep_versions=3, **follow(registry)
    ) as server:
        load = Load(server.port, BODIES, rate=50.0)
        with load.running():
            sizes = []
            for version in range(5, 15):
                registry.point("numbers", str(version))
                load.await_sent(partial(ends_with, version=str(version), answers=5))
                sizes.append(resident())
            # The replaced ones are released some time after their last request.
            load.await_sent(lambda _: resident() - sizes[1] < (24 + 16) << 20)

    assert load.failed == []
    kept = [path.name for path in (tmp_path / "store/numbers").iterdir() if path.is_dir()]
    assert len(kept) == 3
    assert [name for name in kept if name.startswith("14-")]
