"""The registry stopped, hung, slow or lying: predictions go on, the trouble has a name, and what
comes after it is served."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from halfcore.registry.client import Client
from halfcore.registry.errors import Unavailable
from support.fake_registry import API, Exchange, FakeRegistry, Lie, fake_registry
from support.load import Load, Sent
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer
from support.serving import Server, serving
from support.versions import BODIES, told, write_version

SETTINGS = {
    "follow": "models:/numbers@champion",
    "follow_period_s": 0.2,
    "follow_timeout_s": 0.5,
    "download_timeout_s": 0.5,
}
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


class Setting(NamedTuple):
    """A server that follows a registry which may lie, under load."""

    registry: FakeRegistry
    server: Server
    load: Load
    folder: Path

    def publish(self) -> str:
        """Register the next version and make it the champion."""
        number = len(self.registry.versions["numbers"]) + 1
        version = self.registry.publish(write_version(self.folder / "exported", number))
        self.registry.point("numbers", version)
        return version

    def status(self) -> dict[str, Any]:
        """What the server tells of its following."""
        url = f"http://127.0.0.1:{self.server.port}/models/numbers"
        document: dict[str, Any] = httpx.get(url).json()["following"]["champion"]
        return document


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """One server for all lies; in the end no request has failed, and each answer was one version's
    own."""
    folder = tmp_path_factory.mktemp("outages")
    with fake_registry() as registry:
        registry.point("numbers", registry.publish(write_version(folder / "exported", 1)))
        with serving(
            folder / "none", store=folder / "store", tracking_uri=registry.url, **SETTINGS
        ) as server:
            load = Load(server.port, BODIES, rate=100.0)
            with load.running():
                yield Setting(registry, server, load, folder)
            assert httpx.get(f"http://127.0.0.1:{server.port}/health/ready").status_code == 200
    assert load.failed == []
    for one in load.sent:
        told(one.answer, one.row)


def dripping(exchange: Exchange) -> None:
    """A byte now and then, for ever."""
    exchange.send_response(200)
    exchange.send_header("content-length", str(len(true(exchange))))
    exchange.end_headers()
    while True:
        exchange.wfile.write(b" ")
        exchange.wfile.flush()
        time.sleep(0.05)


def hanging(exchange: Exchange) -> None:
    """Nothing at all, until the other side gives up."""
    exchange.connection.recv(1)


def true(exchange: Exchange) -> bytes:
    """What should be answered."""
    return exchange.registry.truth(exchange.path)[1]


LIES: dict[str, tuple[str, Any]] = {
    "HTML with 200": ("html", lambda exchange: exchange.answer(200, HTML, "text/html")),
    "an answer that is cut short": (
        "cut_short",
        lambda exchange: exchange.answer(200, true(exchange)[:-9], length=len(true(exchange))),
    ),
    "silence": ("timeout", hanging),
    "a byte now and then": ("timeout", dripping),
    "an internal error": ("server_error", lambda exchange: exchange.answer(502, HTML, "text/html")),
    "too many requests": (
        "rate_limited",
        lambda exchange: exchange.answer(429, b"{}", retry_after="1"),
    ),
    "a redirect to another host": (
        "redirect",
        lambda exchange: exchange.answer(302, b"", location="http://169.254.169.254/"),
    ),
    "a login": ("unauthorized", lambda exchange: exchange.answer(401, b"")),
    "a refusal of the host": (
        "host_not_allowed",
        lambda exchange: exchange.answer(403, b"Invalid Host header - possible DNS", "text/plain"),
    ),
    "a refusal of the user": (
        "forbidden",
        lambda exchange: exchange.answer(403, b"Permission denied", "text/plain"),
    ),
    "a compressed answer": (
        "encoded",
        lambda exchange: exchange.answer(200, b"\x1f\x8b", content_encoding="gzip"),
    ),
    "no HTTP": ("protocol", lambda exchange: exchange.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "a closed connection": ("protocol", lambda exchange: exchange.connection.close()),
}
API_LIES: dict[str, tuple[str, Any]] = LIES | {
    "JSON that is not MLflow's": (
        "not_mlflow",
        lambda exchange: exchange.answer(200, b'{"model_version":"3"}'),
    ),
    "JSON that is no object": ("not_json", lambda exchange: exchange.answer(200, b"[]")),
    "half a JSON document": (
        "not_json",
        lambda exchange: exchange.answer(200, true(exchange)[:-9]),
    ),
    "an endless answer": ("wrong_length", lambda exchange: exchange.answer(200, b" " * (5 << 20))),
}
FILE_LIES: dict[str, tuple[str, Any]] = LIES | {
    "a wrong length": (
        "wrong_length",
        lambda exchange: exchange.answer(200, true(exchange) + b"\0" * 9),
    ),
    "other bytes of the right length": (
        "model_sha256",
        lambda exchange: exchange.answer(200, b"\0" * len(true(exchange))),
    ),
    "a file that is not there": ("bundle_missing", lambda exchange: exchange.answer(404, b"")),
}


def lying(where: str, lie: Any) -> Lie:
    """Lie to requests that have this in their path or query."""

    def answer(exchange: Exchange) -> bool:
        if where in exchange.path:
            lie(exchange)
            return True
        return False

    return answer


def until(condition: Any) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def failures(setting: Setting) -> dict[str, float]:
    """Failed polls by code."""
    text = httpx.get(f"http://127.0.0.1:{setting.server.port}/metrics").text
    found = {}
    for line in text.splitlines():
        if line.startswith("halfcore_registry_poll_failures_total{"):
            found[line.partition('code="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    return found


def ends_with(version: str, sent: list[Sent]) -> bool:
    """Whether the last answer came from a version."""
    return sent[-1].answer is not None and sent[-1].answer["version"] == version


@pytest.mark.parametrize("name", API_LIES)
def test_a_registry_that_lies_is_named_and_costs_nothing(setting: Setting, name: str) -> None:
    """What is served stays; when the registry speaks truly again, the next version comes."""
    code, lie = API_LIES[name]
    before = failures(setting).get(code, 0.0)
    setting.registry.lie = lying(API, lie)
    until(lambda: failures(setting).get(code, 0.0) > before)
    assert setting.status()["error"]

    setting.registry.lie = None
    version = setting.publish() if name in ("silence", "too many requests") else None
    until(lambda: setting.status()["error"] is None)
    if version:
        setting.load.await_sent(partial(ends_with, version))


@pytest.mark.parametrize("name", FILE_LIES)
def test_a_file_that_does_not_come_whole_is_fetched_again(setting: Setting, name: str) -> None:
    """The version waits, with its reason, and is served once its file comes."""
    code, lie = FILE_LIES[name]
    setting.registry.lie = lying("model.onnx", lie)
    version = setting.publish()
    # On a busy machine an attempt may end in a timeout first; the next one tells the same version's
    # reason.
    until(
        lambda: (
            (pending := setting.status()["pending"])
            and (pending["version"], pending["code"]) == (version, code)
        )
    )

    setting.registry.lie = None
    setting.load.await_sent(partial(ends_with, version))
    until(
        lambda: not list((setting.folder / "store/numbers").glob(".tmp-*"))
    )  # the pointer is written after the swap


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ({}, "the registry asks for a login: set MLFLOW_TRACKING_TOKEN, or"),
        ({"token": "old"}, "not accept the login of MLFLOW_TRACKING_TOKEN, which may have expired"),
        ({"username": "a", "password": "old"}, "not accept the login of MLFLOW_TRACKING_USERNAME"),
    ],
    ids=["none", "token", "user"],
)
async def test_a_login_that_is_refused_is_named(login: dict[str, str], says: str) -> None:
    """Who has set one is not advised to set one."""
    with fake_registry() as registry:
        registry.lie = lying(API, LIES["a login"][1])
        client = Client(registry.url, timeout_s=60.0, **login)  # type: ignore[arg-type]
        with pytest.raises(Unavailable, match=says) as raised:
            await client.get("registered-models/get", name="numbers")
        await client.close()
    assert "old" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_mlflow_may_stop_and_hang(
    tmp_path: Path, tracking: MlflowServer, registry: Registry, how: str
) -> None:
    """With the real server: no prediction fails, readiness stays, and the version that was made
    meanwhile is served."""
    name = f"outage-{how}"
    for version in (1, 2):
        registry.publish(name, write_version(tmp_path / "exported", version, name=name))
    registry.set_alias(name, "champion", "1")
    settings = SETTINGS | {
        "follow": f"models:/{name}@champion",
        "tracking_uri": tracking.url,
        "follow_timeout_s": 2,
        "download_timeout_s": 10,
    }
    with serving(tmp_path / "none", store=tmp_path / "store", **settings) as server:
        load = Load(server.port, BODIES, rate=100.0)
        with load.running():
            url = f"http://127.0.0.1:{server.port}"
            with getattr(tracking, how)():
                until(
                    lambda: httpx.get(f"{url}/models/{name}").json()["following"]["champion"][
                        "error"
                    ]
                )
                assert httpx.get(f"{url}/health/ready").status_code == 200
                assert httpx.get(f"{url}/health").json()["status"] == "degraded"
            registry.set_alias(name, "champion", "2")
            load.await_sent(partial(ends_with, "2"))
    assert load.failed == []
