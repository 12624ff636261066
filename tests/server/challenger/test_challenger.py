"""A challenger beside the served model: it answers a share or sees a copy, and costs nobody an
answer."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from halfcore.challenger_spec import ChallengerSpec, parse
from halfcore.models.served import LoadedModel
from halfcore.pipeline.engine import Engine
from halfcore.predict.protocols.prediction import TranslatedPrediction
from support.bundles import NUMBERS, graph, write_bundle
from support.client import app_client, samples, until
from support.mlflow_registry import Registry
from support.mlflow_server import MlflowServer
from support.serving import Server, request, serving

BODY = {"features": [1, 2, 3, 4.5]}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Version 1, which is served, and others that challenge it."""
    write_bundle(tmp_path, version="1", created_at="2026-02-02T00:00:00Z")
    write_bundle(tmp_path, version="2", classes=["c", "b", "a"])
    write_bundle(tmp_path, version="3", inputs=NUMBERS[:3])
    write_bundle(tmp_path, version="4", task="regression")
    write_bundle(tmp_path, version="5", dtype="float64")
    write_bundle(tmp_path, version="6", inputs=[*NUMBERS[:3], NUMBERS[3] | {"nullable": True}])
    return tmp_path


async def ask(client: httpx.AsyncClient, count: int, **headers: str) -> list[str]:
    """Versions that answered so many requests, which all must be."""
    versions = []
    for number in range(count):
        answer = await client.post(
            "/predict", json=BODY, headers={"x-request-id": f"id-{number}"} | headers
        )
        assert answer.status_code == 200
        versions.append(answer.json()["version"])
    return versions


async def challenger(client: httpx.AsyncClient) -> dict[str, Any]:
    """What GET /models says of it."""
    described: dict[str, Any] = (await client.get("/models/numbers")).json()["challenger"]
    return described


async def test_a_canary_answers_its_share_by_the_requests_id(bundles: Path) -> None:
    """The same ids meet the same model, and the answer says which; two thirds within what chance
    allows, for the hash is fixed."""
    async with app_client(
        bundles, challengers="numbers=version:2;mode=canary;share=0.66"
    ) as client:
        first, second = await ask(client, 300), await ask(client, 300)
        assert first == second
        assert 170 < first.count("2") < 226
        assert (await samples(client))[
            "halfcore_challenger_requests_total", "canary", "numbers", "answered"
        ] == 2 * first.count("2")
        assert await challenger(client) | {"loaded_at": None} == {
            "mode": "canary",
            "share": 0.66,
            "source": "version:2",
            "version": "2",
            "loaded_at": None,
            "refused": None,
        }


@pytest.mark.parametrize("share", ["0.5", "1"])
async def test_a_request_for_a_version_is_not_the_canary_s(bundles: Path, share: str) -> None:
    """The champion answers those for its own, and there is no other, whatever the share draws."""
    tensor = {"name": "input", "shape": [1, 4], "datatype": "FP32"}
    in_json = json.dumps({"inputs": [tensor | {"data": BODY["features"]}]}).encode()
    text = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 16}}]}).encode()
    binary = text + np.array(BODY["features"], "<f4").tobytes()
    bodies = {in_json: {}, binary: {"inference-header-content-length": str(len(text))}}
    async with app_client(
        bundles, challengers=f"numbers=version:2;mode=canary;share={share}"
    ) as client:
        for number in range(20):
            for (body, headers), version in product(bodies.items(), (1, 2)):
                answer = await client.post(
                    f"/v2/models/numbers/versions/{version}/infer",
                    content=body,
                    headers={"x-request-id": f"id-{number}"} | headers,
                )
                assert answer.status_code == (200 if version == 1 else 404), answer.text
                if version == 1:
                    assert answer.json()["model_version"] == "1"
                else:
                    assert answer.json()["error"].endswith("is not found, expected 1")
        assert not [key for key in await samples(client) if "challenger_requests" in key[0]]


@pytest.fixture
def break_challenger(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the challenger of the server that is started next fail on each request from now on,
    for this reason."""
    engine, make = Engine.infer, Engine.__init__
    broken: dict[Engine, str] = {}
    made: list[Engine] = []

    def infer(self: Engine, payload: bytes, rows: int) -> Any:
        if self in broken:
            raise RuntimeError(broken[self])
        return engine(self, payload, rows)

    def remember(self: Engine, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(Engine, "infer", infer)
    monkeypatch.setattr(Engine, "__init__", remember)
    return lambda reason: broken.update({made[-1]: reason})  # challengers are loaded last


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the log says of a challenger's failures since this was last called."""
    return [line for line in capsys.readouterr().err.splitlines() if "failed on a request" in line]


async def test_a_canary_that_fails_costs_no_answer(
    bundles: Path, break_challenger: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The champion answers instead, and the log has each reason once."""
    async with app_client(bundles, challengers="numbers=version:2;mode=canary;share=1") as client:
        assert await ask(client, 2) == ["2"] * 2
        break_challenger("the canary's graph is broken")
        assert await ask(client, 3) == ["1"] * 3
        assert (await samples(client))[
            "halfcore_challenger_requests_total", "canary", "numbers", "fell_back"
        ] == 3
        (line,) = failures(capsys)
        assert "challenger of numbers: version 2 failed" in line
        assert "RuntimeError: the canary's graph is broken" in line

        break_challenger("and now in another way")
        assert await ask(client, 3) == ["1"] * 3
        assert len(failures(capsys)) == 1


async def test_the_champion_answers_for_a_canary_within_the_request_s_own_time(
    bundles: Path, break_challenger: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which Triton's parameter `timeout` says, and which began when the canary did."""
    started: list[float] = []
    start = TranslatedPrediction.start

    def watched(self: TranslatedPrediction, model: LoadedModel) -> None:
        started.append(self._context.deadline)
        start(self, model)

    monkeypatch.setattr(TranslatedPrediction, "start", watched)
    tensor = {"name": "i", "shape": [1, 4], "datatype": "FP32", "data": BODY["features"]}
    body = {"inputs": [tensor], "parameters": {"timeout": 600_000_000}}
    async with app_client(bundles, challengers="numbers=version:2;mode=canary;share=1") as client:
        break_challenger("the canary's graph is broken")
        answer = await client.post("/v2/models/numbers/infer", json=body)
        ended = time.perf_counter()
    assert answer.json()["model_version"] == "1"
    by_canary, by_champion = started
    assert by_canary == inf
    assert by_champion < ended + 600


async def test_a_shadow_that_fails_is_in_the_log_once(
    bundles: Path, break_challenger: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The counter alone would not say why."""
    async with app_client(bundles, challengers="numbers=version:2") as client:
        break_challenger("the shadow's graph is broken")
        async with asyncio.timeout(60):
            # It is not asked while the loop runs late
            while (await shadowed(client)).get("failed", 0) < 2:
                assert await ask(client, 1) == ["1"]
                await asyncio.sleep(0.01)
        (line,) = failures(capsys)
    assert "the shadow's graph is broken" in line


async def test_a_wrong_request_is_not_held_against_a_canary(bundles: Path) -> None:
    """Neither model can answer it, so nothing is counted for the canary."""
    async with app_client(bundles, challengers="numbers=version:2;mode=canary;share=1") as client:
        for body in ({"features": [1]}, {"features": [1, 2, 3, "a"]}):
            assert (await client.post("/predict", json=body)).status_code == 422
        assert await ask(client, 1) == ["2"]
        counted = {
            key[1:]: value
            for key, value in (await samples(client)).items()
            if key[0] == "halfcore_challenger_requests_total"
        }
        assert counted == {("canary", "numbers", "answered"): 1}


async def test_a_shadow_sees_every_request_and_answers_none(bundles: Path) -> None:
    """Version 1 answers; version 2 was asked, and the labels were compared."""
    async with app_client(bundles, challengers="numbers=version:2") as client:
        assert set(await ask(client, 50)) == {"1"}
        many = await client.post("/predict", json={"features": [[1, 2, 3, 4], [0, 0, 0, 0]]})
        assert many.json()["version"] == "1"
        async with asyncio.timeout(60):
            # The metrics tell nobody
            while sum((await shadowed(client)).values()) < 51:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answered = (await shadowed(client))["answered"]
        found = await samples(client)
        compared = [
            found.get(("halfcore_challenger_compared_rows_total", agreement, "numbers"), 0)
            for agreement in ("equal", "different")
        ]
        assert answered > 0
        assert answered <= sum(compared) <= answered + 1
        assert compared[1] > 0


async def test_a_regressor_s_values_agree_within_both_tolerances(tmp_path: Path) -> None:
    """A millionth apart is what two proven exports of one model may be; four apart is another
    model."""
    nodes = [
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "close"], ["near"]),
        helper.make_node("Sub", ["rows", "five"], ["above"]),
        helper.make_node("Relu", ["above"], ["beyond"]),
        helper.make_node("ReduceSum", ["beyond", "axis"], ["more"], keepdims=0),
        helper.make_node("Add", ["near", "more"], ["value"]),
    ]
    constants = {
        "axis": np.array([1], np.int64),
        "close": np.array(1.000001, np.float32),
        "five": np.array(5, np.float32),
    }
    other = graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])
    write_bundle(tmp_path, version="1", task="regression")
    write_bundle(
        tmp_path, version="2", task="regression", model=other, created_at="2025-01-01T00:00:00Z"
    )
    async with app_client(tmp_path, challengers="numbers=version:2") as client:

        async def compared() -> list[float]:
            """Ask, for a busy machine drops what a shadow should see; then count."""
            answer = await client.post(
                "/predict", json={"features": [[1, 2, 3, 4], [9, 2, 3, 4], [0, 0, 0, 0]]}
            )
            assert answer.json()["version"] == "1"
            found = await samples(client)
            return [
                found.get(("halfcore_challenger_compared_rows_total", each, "numbers"), 0)
                for each in ("equal", "different")
            ]

        equal, different = await until(compared, sum)
        assert equal == 2 * different


async def shadowed(client: httpx.AsyncClient) -> dict[str, float]:
    """Shadowed requests by outcome."""
    found = await samples(client)
    return {
        name[3]: value
        for name, value in found.items()
        if name[0] == "halfcore_challenger_requests_total"
    }


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", "columns x0, x1, x2, expected the champion's x0, x1, x2, x3"),
        ("4", "task regression, expected the champion's classification"),
        ("5", "dtype float64, expected the champion's float32"),
        ("6", "column x3: nullable True, expected the champion's False"),
        ("9", "no bundle of numbers has version:9"),
    ],
)
@pytest.mark.parametrize("mode", ["shadow", "canary;share=1"])
async def test_a_challenger_that_does_not_fit_is_refused(
    bundles: Path, version: str, reason: str, mode: str
) -> None:
    """It is asked nothing, and GET /models says why."""
    async with app_client(bundles, challengers=f"numbers=version:{version};mode={mode}") as client:
        assert await ask(client, 3) == ["1"] * 3
        assert (await challenger(client))["refused"] == reason
        assert await shadowed(client) == {}


def test_the_setting_is_read() -> None:
    """Its forms."""
    assert parse("") == []
    assert parse("iris=version:2") == [ChallengerSpec("iris", "version:2", "shadow", 1.0)]
    assert parse("a=models:/a@next;mode=canary;share=0.1  b=version:x;share=0.5") == [
        ChallengerSpec("a", "models:/a@next", "canary", 0.1),
        ChallengerSpec("b", "version:x", "shadow", 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("iris", "'iris', expected NAME=SOURCE"),
        ("=version:2", "expected NAME=SOURCE"),
        ("iris=version:", "expected NAME=SOURCE"),
        ("iris=models:/", "expected NAME=SOURCE"),
        ("iris=s3://x", "expected NAME=SOURCE"),
        ("iris=version:2;mode=loud", "'mode=loud'"),
        ("iris=version:2;share=0", "'share=0'"),
        ("iris=version:2;share=1.1", "'share=1.1'"),
        ("iris=version:2;share=nan", "'share=nan'"),
        ("iris=version:2;mode=canary", "a canary needs its share"),
        ("iris=version:2 iris=version:3", "iris has two challengers"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(text: str, says: str) -> None:
    """And names the part that is wrong."""
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        parse(text)


def test_a_challenger_follows_the_registry_and_is_swapped(
    tmp_path: Path, registry: Registry, tracking: MlflowServer
) -> None:
    """An alias of its own: the challenger changes with it, and answers at once."""
    bundles = tmp_path / "bundles"
    write_bundle(bundles, "challenged", version="1")
    first, second = (
        registry.publish(
            "challenged",
            write_bundle(tmp_path / version, "challenged", version=version, classes=classes),
        )
        for version, classes in (("1", ["c", "b", "a"]), ("2", ["b", "c", "a"]))
    )
    registry.set_alias("challenged", "challenger", first)
    settings = {"tracking_uri": tracking.url, "follow_period_s": 0.2, "store": tmp_path / "store"}
    with serving(
        bundles,
        challengers="challenged=models:/challenged@challenger;mode=canary;share=1",
        **settings,
    ) as server:
        for version in (first, second):
            registry.set_alias("challenged", "challenger", version)
            deadline = time.monotonic() + 90
            while shown(server)["version"] != version:
                assert time.monotonic() < deadline, shown(server)
                time.sleep(0.05)
            answer = server.send(request("/predict", json.dumps(BODY).encode()))
            assert f'"version":"{version}"'.encode() in answer


def shown(server: Server) -> dict[str, Any]:
    """What GET /models says of the challenger."""
    answer = server.send(request("/models/challenged", method="GET")).partition(b"\r\n\r\n")[2]
    challenger: dict[str, Any] = json.loads(answer)["challenger"]
    return challenger
