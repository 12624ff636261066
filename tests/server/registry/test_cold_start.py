"""Starts without a registry: what was served last is served again, and a first start waits
alive."""

import json
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from halfcore.log import logger
from halfcore.registry.store import Store
from support.fake_registry import Exchange, fake_registry
from support.serving import Server, free_port, serving
from support.versions import BODIES, write_version

SETTINGS = {"follow": "models:/numbers@champion", "follow_period_s": 0.2, "follow_timeout_s": 0.5}


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that knows three versions, of which the second was served last, after a roll-back
    from the third."""
    tmp_path = tmp_path_factory.mktemp("store")
    with fake_registry() as registry:
        for number in (1, 2, 3):
            registry.publish(write_version(tmp_path / "exported", number))
        registry.point("numbers", "1")
        with serving(
            tmp_path / "none", store=tmp_path / "store", tracking_uri=registry.url, **SETTINGS
        ) as server:
            for version in ("2", "3", "2"):
                registry.point("numbers", version)
                until(partial(serves, server, version))
            pointer = tmp_path / "store/numbers/.champion.json"
            until(lambda: json.loads(pointer.read_text())["version"] == "2")
    return tmp_path / "store"


@pytest.fixture
def store(tmp_path: Path, left_behind: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(left_behind, tmp_path / "store"))


def serves(server: Server, version: str) -> bool:
    """Whether a version answers."""
    found: bool = (
        httpx.post(
            f"http://127.0.0.1:{server.port}/predict",
            content=BODIES[0],
            headers={"content-type": "application/json"},
        ).json()["version"]
        == version
    )
    return found


def test_a_cold_start_with_everything_down_serves_what_was_served_last(
    tmp_path: Path, store: Path
) -> None:
    """A roll-back survives a restart, and nobody has to be asked."""
    with serving(
        tmp_path / "none", store=store, tracking_uri=f"http://127.0.0.1:{free_port()}", **SETTINGS
    ) as server:
        assert serves(server, "2")


def test_a_cold_start_with_a_damaged_bundle_serves_the_one_before_it(
    tmp_path: Path, store: Path
) -> None:
    """What a disk did to the last bundle costs a version, not the service."""
    (last,) = store.glob("numbers/2-*")
    (last / "model.onnx").write_bytes(b"\0" * (last / "model.onnx").stat().st_size)
    with serving(
        tmp_path / "none", store=store, tracking_uri=f"http://127.0.0.1:{free_port()}", **SETTINGS
    ) as server:
        assert serves(server, "3")


def broken(exchange: Exchange) -> bool:
    """Answer nothing but errors."""
    exchange.answer(500, b"")
    return True


def until(condition: Any) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_first_start_with_everything_down_waits_alive(tmp_path: Path) -> None:
    """No bundle, no registry: it lives, is not ready, says so to those who predict, and serves as
    soon as it can."""
    with fake_registry() as registry:
        registry.lie = broken
        registry.point("numbers", registry.publish(write_version(tmp_path / "exported", 1)))
        with serving(
            tmp_path / "none",
            store=tmp_path / "store",
            tracking_uri=registry.url,
            path="/health/live",
            **SETTINGS,
        ) as server:
            url = f"http://127.0.0.1:{server.port}"
            answer = httpx.post(
                f"{url}/predict", content=BODIES[0], headers={"content-type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "model_not_loaded")
            assert answer.headers["retry-after"]
            assert httpx.get(f"{url}/health/ready").status_code == 503
            registry.lie = None
            until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
            assert serves(server, "1")


SEVERAL = SETTINGS | {"follow": "models:/a@champion,models:/b@champion"}


def test_a_first_start_is_ready_with_every_model_that_it_follows(tmp_path: Path) -> None:
    """While the registry answers slowly, a model of the folder is served, and no balancer sends
    requests for the others yet. Then each that is exported is there, and one that is not keeps
    nothing waiting."""
    write_version(tmp_path / "bundles", 1, name="own")
    asked = threading.Event()

    def slow(_: Exchange) -> bool:
        asked.wait(90)
        return False

    with fake_registry() as registry:
        registry.lie = slow
        registry.publish(write_version(tmp_path / "exported", 1, name="a"))
        registry.point("a", "1")
        settings = SEVERAL | {"follow_timeout_s": 60, "tracking_uri": registry.url}
        store, live = tmp_path / "store", "/health/live"
        with serving(tmp_path / "bundles", store=store, path=live, **settings) as server:
            url = f"http://127.0.0.1:{server.port}"
            assert httpx.get(f"{url}/health/ready").status_code == 503
            waits = "followed and not loaded yet: a, b"
            assert waits in httpx.get(f"{url}/health").json()["reasons"]
            assert [predicted(url, name) for name in ("own", "a", "b")] == [200, 503, 503]
            asked.set()
            until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
            assert [predicted(url, name) for name in ("own", "a", "b")] == [200, 200, 503]
            assert waits not in httpx.get(f"{url}/health").json()["reasons"]


def predicted(url: str, name: str) -> int:
    """The status of a prediction of a model."""
    headers = {"content-type": "application/json"}
    path = f"{url}/models/{name}/predict"
    return httpx.post(path, content=BODIES[0], headers=headers).status_code


def test_a_first_start_without_the_registry_serves_the_models_of_the_folder(tmp_path: Path) -> None:
    """They do not wait for it."""
    write_version(tmp_path / "bundles", 1, name="own")
    address = f"http://127.0.0.1:{free_port()}"
    with serving(
        tmp_path / "bundles", store=tmp_path / "store", tracking_uri=address, **SEVERAL
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert [predicted(url, name) for name in ("own", "a")] == [200, 503]


def test_a_store_that_cannot_be_written_keeps_what_is_served(tmp_path: Path, store: Path) -> None:
    """A full or read-only disk: the new version waits with its reason, which the log has once."""
    (store / "numbers/.lock").unlink()
    (
        store / "numbers/.lock"
    ).mkdir()  # nothing can be locked, so nothing is fetched; root may write anywhere else
    with fake_registry() as registry:
        for number in (1, 2, 3, 4):
            registry.publish(write_version(tmp_path / "exported", number))
        registry.point("numbers", "4")
        with serving(
            tmp_path / "none", store=store, tracking_uri=registry.url, **SETTINGS
        ) as server:
            url = f"http://127.0.0.1:{server.port}/models/numbers"
            found = until(
                lambda: (
                    (now := httpx.get(url).json()["following"]["champion"]["pending"])
                    and now["code"] != "loading"
                    and now["attempts"] > 2
                    and now
                )
            )
            assert (found["version"], found["code"]) == ("4", "disk")
            assert serves(server, "2")
            assert server.stop() == 0
            assert server.process.stderr is not None
            assert server.process.stderr.read().count("the store cannot be written") == 1


def test_a_version_that_the_store_cannot_record_is_served(tmp_path: Path, store: Path) -> None:
    """A disk that became full amid a swap: it counts as one, the log says what a restart would
    serve, and it is recorded once there is room."""
    pointer = store / "numbers/.champion.json"
    with fake_registry() as registry:
        for number in (1, 2, 3):
            registry.publish(write_version(tmp_path / "exported", number))
        registry.point("numbers", "2")
        with serving(
            tmp_path / "none", store=store, tracking_uri=registry.url, **SETTINGS
        ) as server:
            url = f"http://127.0.0.1:{server.port}"
            pointer.unlink()
            pointer.mkdir()  # nothing can be renamed to it; root may write anywhere else
            registry.point("numbers", "3")
            until(lambda: serves(server, "3"))
            swapped = 'halfcore_model_swaps_total{model="numbers",result="swapped",role="champion"}'
            until(lambda: f"{swapped} 1.0" in httpx.get(f"{url}/metrics").text)
            found = httpx.get(f"{url}/models/numbers").json()["following"]["champion"]
            assert found["served"]["version"] == "3"
            assert (found["pending"], found["refused"]) == (None, None)
            pointer.rmdir()
            until(pointer.exists)
            assert json.loads(pointer.read_text())["version"] == "3"
            assert server.stop() == 0
            assert server.process.stderr is not None
            log = server.process.stderr.read()
    assert log.count("version 3 is served, but the store could not record that") == 1
    assert "download failed" not in log


def test_refusals_that_the_store_cannot_forget_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that became read-only: a reload goes on, and the log says what holds."""
    lines: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *parts: lines.append(text % parts))
    (tmp_path / "numbers/.refused.json").mkdir(parents=True)  # root may remove any file
    Store(tmp_path, session="s", keep=4).forget_refusals("numbers")
    (line,) = lines
    assert "failed to forget which versions of numbers were refused: Is a directory" in line


def test_a_damaged_record_of_another_role_does_not_end_a_swap(tmp_path: Path) -> None:
    """A crash of the machine may leave any bytes in it; the other bundles are still pruned."""
    store = Store(tmp_path, session="s", keep=2)
    made = []
    for version in ("1", "2", "3", "4"):
        made.append(store.accept(store.staging("numbers"), version, "a" * 64))
        (tmp_path / "numbers/.canary.json").write_bytes(b'{"folder":"\xff"}')
        served = {"version": version, "manifest_sha256": "a" * 64, "uri": "", "workspace": ""}
        store.point("numbers", "champion", made[-1], **served)
    assert [path.exists() for path in made] == [False, False, True, True]
