"""Every route, asked through plain ASGI."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from blockbuster import BlockBuster
from jsonschema import Draft202012Validator
from litestar import Litestar
from onnx import TensorProto, helper

from halfcore.http.routes import health
from halfcore.log import logger
from halfcore.metrics.counters import Metrics
from halfcore.models.served import Models
from halfcore.pipeline.engine import Engine
from halfcore.predict.keys import new_key
from halfcore.registry.followers import Followers
from support.bodies import ACCEPTED, MOST_ROWS, REFUSED, RIGHT, Case
from support.bundles import MIXED, NUMBERS, PARITY, graph, write_bundle
from support.client import app_client, samples, transport_of

JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serves `numbers` (the default), `mixed` and `sum`; what blocks the event loop while a request
    is answered fails the test."""
    write_bundle(tmp_path)
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    write_bundle(tmp_path, "sum", task="regression", dtype="float64")
    # No row runs alone because the machine was slow: what arrives in one turn shares a batch,
    # whatever the clock says.
    settings: dict[str, Any] = {
        "default_model": "numbers",
        "max_rows": MOST_ROWS,
        "max_body_bytes": 2_000_000,
        "solo_after_ms": 0.0,
    }
    async with app_client(tmp_path, **settings) as client:
        guard = BlockBuster()
        for function in guard.functions.values():
            function.can_block_in(
                "prometheus_client/process_collector.py", {"collect"}
            )  # /proc is memory, not a disk
            function.can_block_in("mimetypes.py", {"init"})  # once per process
        guard.activate()
        try:
            yield client
        finally:
            guard.deactivate()


# -- predictions -----------------------------------------------------------------------------------


async def test_a_vector_gets_a_prediction(client: httpx.AsyncClient) -> None:
    """The answer names the class, every class's probability, the model and its version."""
    answer = await client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["content-length"] == str(len(answer.content))
    document = answer.json()
    assert list(document) == ["prediction", "probabilities", "model", "version"]
    assert document["prediction"] == max(
        document["probabilities"], key=document["probabilities"].get
    )
    assert sum(document["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert (document["model"], document["version"]) == ("numbers", "1")


async def test_the_four_forms_mean_the_same(client: httpx.AsyncClient) -> None:
    """A record is a vector with names, and a list gets a list."""
    row, record = [1, 2, 3, 4], {"x0": 1, "x1": 2, "x2": 3, "x3": 4}
    bodies: list[Any] = [{"features": row}, record, {"features": [row, row]}, [record, record]]

    one, same, several, same_several = [
        (await client.post("/predict", json=body)).json() for body in bodies
    ]

    assert one == same
    assert (
        several
        == same_several
        == one | {name: [one[name]] * 2 for name in ("prediction", "probabilities")}
    )


async def test_a_model_is_chosen_by_its_name(client: httpx.AsyncClient) -> None:
    """/predict is the default model, /models/NAME/predict any."""
    by_default = await client.post("/predict", json={"features": [1, 2, 3, 4]})
    by_name = await client.post("/models/numbers/predict", json={"features": [1, 2, 3, 4]})
    other = await client.post("/models/sum/predict", json={"features": [1, 2, 3, 4.5]})

    assert by_default.json() == by_name.json()
    assert other.json() == {"prediction": 10.5, "model": "sum", "version": "1"}


async def test_200_requests_at_once_get_their_own_answers(client: httpx.AsyncClient) -> None:
    """Row i in, answer i out, however the rows share a batch."""

    async def one(i: int) -> float:
        answer = await client.post("/models/sum/predict", json={"features": [i, 0, 0, 0.5]})
        return float(answer.json()["prediction"])

    async def several(i: int) -> list[float]:
        rows = [[i, j, 0, 0.25] for j in range(1 + i % MOST_ROWS)]
        answer = await client.post("/models/sum/predict", json={"features": rows})
        return [value - i - j for j, value in enumerate(answer.json()["prediction"])]

    answers = await asyncio.gather(*(one(i) for i in range(200)), *(several(i) for i in range(50)))

    assert answers[:200] == [i + 0.5 for i in range(200)]
    assert answers[200:] == [[0.25] * (1 + i % MOST_ROWS) for i in range(50)]
    found = await samples(client)
    assert found["halfcore_batch_rows_count", "sum"] < 250


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
async def test_a_right_body_is_answered(client: httpx.AsyncClient, case: Case) -> None:
    """Every right body of the table is 200; one that overflows in the model itself is
    refused with that reason."""
    answer = await client.post("/models/mixed/predict", content=case.body, headers=JSON)

    assert answer.status_code == 200 or (
        case.name == "the largest float32" and answer.json()["code"] == "no_finite_answer"
    )


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_a_wrong_body_is_refused(
    client: httpx.AsyncClient, case: Case, tmp_path: Path
) -> None:
    """Status and code of the table, as a problem document that leaks nothing; the model never sees
    the body."""
    answer = await client.post("/models/mixed/predict", content=case.body, headers=JSON)

    document = answer.json()
    assert (answer.status_code, document["code"], document["status"]) == (
        case.status,
        case.code,
        case.status,
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert_leaks_nothing(answer.text, tmp_path)
    found = await samples(client)
    assert found["halfcore_requests_total", "mixed", case.code, "predict"] == 1
    assert found["halfcore_stage_duration_seconds_count", "mixed", "queue"] == 0


async def test_a_byte_order_mark_is_called_so(client: httpx.AsyncClient) -> None:
    """Nobody sees it in an editor."""
    body = "\ufeff" + '{"features":[1,2,3,4]}'
    answer = await client.post("/predict", content=body.encode(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    assert "begins with a byte order mark (EF BB BF); send it" in answer.json()["detail"]


def assert_leaks_nothing(text: str, *paths: Path) -> None:
    """No stack, no path, no long payload."""
    assert len(text) < 4000
    for leak in (
        "Traceback",
        'File "',
        ".py",
        "halfcore.",
        "onnxruntime",
        "site-packages",
        *map(str, paths),
    ):
        assert leak not in text


HEADS: dict[str, tuple[dict[str, str], int, str]] = {
    "JSON": ({"content-type": "application/json"}, 200, ""),
    "JSON in UTF-8": ({"content-type": "application/json; charset=utf-8"}, 200, ""),
    "JSON in other letters": ({"content-type": 'Application/JSON;Charset="UTF-8"'}, 200, ""),
    "identity": ({"content-type": "application/json", "content-encoding": "identity"}, 200, ""),
    "JSON in Latin-1": (
        {"content-type": "application/json; charset=latin-1"},
        415,
        "unsupported_media_type",
    ),
    "no content type": ({}, 415, "unsupported_media_type"),
    "text": ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
    "a form": (
        {"content-type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_media_type",
    ),
    "other JSON": ({"content-type": "application/jsonp"}, 415, "unsupported_media_type"),
    "a long content type": ({"content-type": "x" * 3000}, 415, "unsupported_media_type"),
    "two codings": (
        {"content-type": "application/json", "content-encoding": "gzip, deflate"},
        415,
        "unsupported_encoding",
    ),
    "a coding of the transfer": (
        {"content-type": "application/json", "transfer-encoding": "gzip, chunked"},
        501,
        "unsupported_transfer",
    ),
    "br": (
        {"content-type": "application/json", "content-encoding": "br"},
        415,
        "unsupported_encoding",
    ),
    "a length over the limit": (
        {"content-type": "application/json", "content-length": "2000001"},
        413,
        "body_too_large",
    ),
    "a length of 400 digits": (
        {"content-type": "application/json", "content-length": "9" * 400},
        413,
        "body_too_large",
    ),
    "a length of 5,000 digits": (
        {"content-type": "application/json", "content-length": "9" * 5000},
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_the_head_decides_whether_the_body_is_read(
    client: httpx.AsyncClient, name: str
) -> None:
    """Media type, encoding and length are refused before a byte of the body; the connection is
    closed then."""
    headers, status, code = HEADS[name]
    request = client.build_request("POST", "/predict", content=b'{"features":[1,2,3,4]}')
    request.headers.pop("content-length", None)
    request.headers.update(headers)

    answer = await client.send(request)

    assert answer.status_code == status
    if code:
        assert answer.json()["code"] == code
        assert answer.headers["connection"] == "close"
        assert_leaks_nothing(answer.text)


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    """The bytes are counted as they come, whatever the head says."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100_000

    answer = await client.post("/predict", content=chunks(), headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "name",
    [
        "nobody",
        "Numbers",
        "numbers ",
        "nümbers",
        "x" * 3000,
        "%00",
        "%ED%A0%80",
        "%FF",
        "%2e%2e%2fx",
        "{name}",
    ],
)
async def test_an_unknown_model_is_404_with_the_known_ones(
    client: httpx.AsyncClient, name: str, tmp_path: Path
) -> None:
    """The answer lists what the client may ask for."""
    for answer in (
        await client.post(f"/models/{name}/predict", json=RIGHT),
        await client.get(f"/models/{name}"),
    ):
        assert answer.status_code in (404, 405), answer.text
        if answer.json()["code"] == "unknown_model":
            assert "one of mixed, numbers, sum" in answer.json()["detail"]
        assert_leaks_nothing(answer.text, tmp_path)


async def test_without_a_default_the_client_is_asked_to_choose(tmp_path: Path) -> None:
    """Several models and no default: /predict says which routes there are."""
    write_bundle(tmp_path, "a")
    write_bundle(tmp_path, "b")
    async with app_client(tmp_path) as client:
        answer = await client.post("/predict", json={"features": [1, 2, 3, 4]})

    assert (answer.status_code, answer.json()["code"]) == (404, "no_default_model")
    assert "/models/NAME/predict with one of a, b" in answer.json()["detail"]


async def test_the_only_model_is_the_default(tmp_path: Path) -> None:
    """One bundle needs no setting."""
    write_bundle(tmp_path, "only")
    async with app_client(tmp_path) as client:
        answer = await client.post("/predict", json={"features": [1, 2, 3, 4]})

    assert answer.json()["model"] == "only"


async def test_the_bench_routes_predict_nothing(tmp_path: Path) -> None:
    """Nothing by GET and POST, and decoding alone; a wrong body is refused as ever, and without the
    setting there is none of them."""
    write_bundle(tmp_path)
    async with app_client(tmp_path, bench_routes=True) as client:
        assert (await client.get("/bench/null")).json() == {}
        assert (await client.post("/bench/null", json={})).json() == {}
        assert (
            await client.post("/bench/decode", json={"features": [[1, 2, 3, 4]] * 2})
        ).json() == {"rows": 2}
        assert (await client.post("/bench/decode", json={"features": [1]})).json()[
            "code"
        ] == "wrong_length"
        assert ("halfcore_requests_total", "numbers", "200", "predict") not in await samples(client)
    async with app_client(tmp_path) as client:
        assert {
            (await client.request(method, "/bench/null")).status_code for method in ("GET", "POST")
        } == {404}


# -- when it goes wrong ----------------------------------------------------------------------------


class Gate:
    """Holds the engine where a test wants it, in the inference thread."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every run of a model waits at this gate."""
    gate, infer = Gate(), Engine.infer

    def gated(self: Engine, payload: bytes, rows: int) -> Any:
        gate.entered.set()
        assert gate.open.wait(90)
        return infer(self, payload, rows)

    monkeypatch.setattr(Engine, "infer", gated)
    yield gate
    gate.open.set()


async def until(client: httpx.AsyncClient, sample: tuple[str, ...], value: float) -> None:
    """Wait for a metric to have this value."""
    async with asyncio.timeout(60):
        # The state is behind HTTP: there is no event to wait for
        while (await samples(client))[sample] != value:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_full_queue_refuses_at_once(tmp_path: Path, gate: Gate) -> None:
    """Beyond max_queue_size rows it is 503 with Retry-After; what waits is answered, health goes
    on, readiness stays."""
    write_bundle(tmp_path, "sum", task="regression")
    async with app_client(tmp_path, max_rows=4, max_queue_size=4, inline_budget_ms=0.0) as client:
        gate.entered.clear()
        gate.open.clear()
        running = asyncio.create_task(client.post("/predict", json={"features": [1, 0, 0, 0]}))
        await asyncio.to_thread(gate.entered.wait, 10)
        waiting = [
            asyncio.create_task(client.post("/predict", json={"features": [i, 0, 0, 0]}))
            for i in range(2, 6)
        ]
        await until(client, ("halfcore_queued_rows", "sum"), 4)

        refused = await client.post("/predict", json={"features": [9, 0, 0, 0]})
        ready = await client.get("/health/ready")

        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"].isdecimal()
        assert ready.status_code == 200
        gate.open.set()
        answers = [(await task).json()["prediction"] for task in (running, *waiting)]
        assert answers == [1, 2, 3, 4, 5]
        assert (await samples(client))[
            "halfcore_requests_total", "sum", "overloaded", "predict"
        ] == 1


async def test_too_many_requests_in_progress_are_refused_at_once(
    tmp_path: Path, gate: Gate
) -> None:
    """Beyond max_in_flight it is 503 before the body is read; a place is free again once a request
    is answered."""
    write_bundle(tmp_path, "sum", task="regression")
    async with app_client(tmp_path, max_in_flight=1, inline_budget_ms=0.0) as client:
        gate.entered.clear()
        gate.open.clear()
        running = asyncio.create_task(client.post("/predict", json={"features": [1, 0, 0, 0]}))
        await asyncio.to_thread(gate.entered.wait, 10)

        refused = await client.post("/predict", json={"features": [9, 0, 0, 0]})

        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.json()["detail"] == "1 requests are in progress, the limit; try again"
        assert refused.headers["retry-after"].isdecimal()
        gate.open.set()
        assert (await running).json()["prediction"] == 1
        assert (await client.post("/predict", json={"features": [2, 0, 0, 0]})).status_code == 200


async def test_a_request_that_finds_no_place_does_not_count_against_its_keys_rate(
    tmp_path: Path, gate: Gate
) -> None:
    """A full server would otherwise answer 429 as soon as it has room again."""
    write_bundle(tmp_path / "bundles", "sum", task="regression")
    key, lines = new_key("slow", [], 0.01)
    other, other_lines = new_key("other", [])
    (tmp_path / "keys.toml").write_text(lines + other_lines)
    settings = {"api_keys": str(tmp_path / "keys.toml"), "max_in_flight": 1}
    async with app_client(tmp_path / "bundles", inline_budget_ms=0.0, **settings) as client:

        async def ask(key: str) -> Any:
            answer = await client.post(
                "/predict", json={"features": [1, 0, 0, 0]}, headers={"x-api-key": key}
            )
            return answer.status_code

        gate.entered.clear()
        gate.open.clear()
        running = asyncio.create_task(ask(other))
        await asyncio.to_thread(gate.entered.wait, 10)
        assert [await ask(key) for _ in range(3)] == [503, 503, 503]
        gate.open.set()
        assert await running == 200
        assert [await ask(key) for _ in range(2)] == [200, 429]


async def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path, gate: Gate) -> None:
    """A cancelled request leaves the queue, and the next one takes its place."""
    write_bundle(tmp_path, "sum", task="regression")
    async with app_client(tmp_path, max_rows=1, max_queue_size=1, inline_budget_ms=0.0) as client:
        gate.entered.clear()
        gate.open.clear()
        running = asyncio.create_task(client.post("/predict", json={"features": [1, 0, 0, 0]}))
        await asyncio.to_thread(gate.entered.wait, 10)
        leaver = asyncio.create_task(client.post("/predict", json={"features": [2, 0, 0, 0]}))
        await until(client, ("halfcore_queued_rows", "sum"), 1)

        leaver.cancel()
        await until(client, ("halfcore_queued_rows", "sum"), 0)
        next_one = asyncio.create_task(client.post("/predict", json={"features": [3, 0, 0, 0]}))
        await until(client, ("halfcore_queued_rows", "sum"), 1)
        gate.open.set()

        assert [(await task).json()["prediction"] for task in (running, next_one)] == [1, 3]


def looks_up() -> Any:
    """A graph that fails on rows whose first value is not 0, 1 or 2: it looks that value up in a
    table of three."""
    nodes = [
        helper.make_node("Gather", ["rows", "first"], ["column"], axis=1),
        helper.make_node("Cast", ["column"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["value"]),
    ]
    constants = {"first": np.array(0, np.int64), "table": np.array([10, 11, 12], np.float32)}
    return graph(nodes, constants, 4, "float32", [("value", TensorProto.FLOAT, ["N"])])


async def test_a_failing_row_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model cannot run is a bare 500, whose line in the log names the request's trace; the
    other rows of its batch are answered."""
    golden = [{"row": {"x0": 0, "x1": 1, "x2": 2, "x3": 3}, "prediction": 10.0}]
    write_bundle(tmp_path, "table", task="regression", model=looks_up(), changes={"golden": golden})
    async with app_client(tmp_path) as client:
        bodies = [{"features": [7 if i % 5 == 0 else i % 3, 0, 0, 0]} for i in range(50)]
        monkeypatch.setattr(logger, "propagate", True)
        headers = [{"traceparent": f"00-{i + 1:032x}-00f067aa0ba902b7-01"} for i in range(50)]
        answers = await asyncio.gather(
            *(
                client.post("/predict", json=body, headers=header)
                for body, header in zip(bodies, headers, strict=True)
            )
        )
        found = await samples(client)

    logged = {record.__dict__["trace_id"] for record in caplog.records}
    assert logged == {f"{i + 1:032x}" for i in range(0, 50, 5)}
    for i, answer in enumerate(answers):
        assert answer.headers["traceparent"] == headers[i]["traceparent"]
        if i % 5 == 0:
            assert (answer.status_code, answer.json()["code"]) == (500, "model_failed")
            assert_leaks_nothing(answer.text, tmp_path)
        else:
            assert answer.json()["prediction"] == 10 + i % 3
    assert found["halfcore_requests_total", "table", "model_failed", "predict"] == 10
    assert found["halfcore_requests_total", "table", "200", "predict"] == 40


async def test_an_answer_that_is_not_finite_is_no_answer(tmp_path: Path) -> None:
    """Infinity has no JSON: the row that overflows is refused, its neighbours get their sums."""
    write_bundle(tmp_path, "sum", task="regression")
    async with app_client(tmp_path) as client:
        rows = [[3e38, 3e38, 0, 0], [1, 2, 3, 4]]
        overflow, right = await asyncio.gather(
            *(client.post("/predict", json={"features": row}) for row in rows)
        )

        large = await client.post("/predict", json={"features": [[3e38, 0, 0, 0], [3e38, 0, 0, 0]]})

    assert (overflow.status_code, overflow.json()["code"]) == (422, "no_finite_answer")
    assert (right.status_code, right.json()["prediction"]) == (200, 10)
    assert (large.status_code, large.json()["prediction"]) == (200, [3e38, 3e38])


# -- what is served --------------------------------------------------------------------------------


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    """Names, versions, tasks, and which is the default."""
    document = (await client.get("/models")).json()

    assert document["default_model"] == "numbers"
    assert {(model["name"], model["version"], model["task"]) for model in document["models"]} == {
        ("mixed", "1", "classification"),
        ("numbers", "1", "classification"),
        ("sum", "1", "regression"),
    }


async def test_a_model_says_what_it_wants_and_gives(client: httpx.AsyncClient) -> None:
    """Inputs with type, nullability, categories and example; outputs; the proof of parity."""
    document = (await client.get("/models/mixed")).json()

    assert [column["name"] for column in document["inputs"]] == [column["name"] for column in MIXED]
    island = document["inputs"][0]
    assert (island["kind"], island["nullable"], island["example"]) == ("category", False, "Biscoe")
    assert island["categories"] == ["Biscoe", "Dream", "Torgersen"]
    assert document["outputs"] == {"prediction": ["a", "b", "c"], "probabilities": True}
    assert document["parity"]["passed"] is True
    assert (await client.post("/models/mixed/predict", json=document["example"])).status_code == 200


async def test_what_weakens_a_proof_is_shown(tmp_path: Path) -> None:
    """GET /models/NAME says what the proof was drawn from and what is missing in it; of bundles
    that do not say so, nothing."""
    said = {
        "data_origin": "the model's input example",
        "data_rows": 5,
        "distinct_rows": 5,
        "warnings": ["drawn from only 5 distinct rows"],
    }
    write_bundle(tmp_path, "old")
    write_bundle(tmp_path, "new", changes={"parity": PARITY | said})
    async with app_client(tmp_path, default_model="old") as client:
        assert (await client.get("/models/old")).json()["parity"] == PARITY
        assert (await client.get("/models/new")).json()["parity"] == PARITY | said


async def test_examples_are_answered_by_their_own_models(client: httpx.AsyncClient) -> None:
    """What /models/NAME shows as an example can be sent."""
    for name in ("numbers", "mixed", "sum"):
        example = (await client.get(f"/models/{name}")).json()["example"]
        assert (await client.post(f"/models/{name}/predict", json=example)).json()["model"] == name


async def test_health_of_a_server_that_is_well(client: httpx.AsyncClient) -> None:
    """API and every model, alive and ready."""
    document = (await client.get("/health")).json()

    assert (document["status"], document["api"], document["default_model"]) == (
        "ok",
        "ok",
        "numbers",
    )
    assert {name: model["state"] for name, model in document["models"].items()} == dict.fromkeys(
        ("numbers", "mixed", "sum"), "loaded"
    )
    assert (await client.get("/health/live")).json() == {"status": "alive"}
    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_a_refused_bundle_degrades_but_does_not_unready(tmp_path: Path) -> None:
    """The other models serve on; the refused one is 503 with Retry-After, and no path leaks."""
    write_bundle(tmp_path, "good")
    write_bundle(tmp_path, "broken", changes={"format": 7})
    async with app_client(tmp_path, default_model="good") as client:
        document = (await client.get("/health")).json()
        assert document["status"] == "degraded"
        assert document["models"]["broken"]["state"] == "refused"
        assert document["models"]["good"]["state"] == "loaded"
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/predict", json={"features": [1, 2, 3, 4]})).status_code == 200
        for answer in (
            await client.post("/models/broken/predict", json=RIGHT),
            await client.get("/models/broken"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "model_not_loaded")
            assert answer.headers["retry-after"].isdecimal()
            assert_leaks_nothing(answer.text, tmp_path)
        assert (await samples(client))["halfcore_model_load_failures_total", "broken"] == 1


@pytest.mark.parametrize("default", ["", "missing", "broken"])
async def test_without_its_default_model_it_is_not_ready(tmp_path: Path, default: str) -> None:
    """Alive, not ready, and honest about it; nothing else breaks."""
    write_bundle(tmp_path, "broken", changes={"format": 7})
    async with app_client(tmp_path, default_model=default) as client:
        assert (await client.get("/health")).json()["status"] == "not_ready"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post("/predict", json={"features": [1]})).status_code in (404, 503)
        for path in ("/models", "/metrics", "/docs", "/docs/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_a_draining_server_is_not_ready() -> None:
    """It says so, so that a balancer sends no more."""
    models = Models(default="", metrics=Metrics())
    models.begin_draining()
    app = Litestar(health.routes(models, Followers()), openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(transport=transport_of(app), base_url="http://test") as client:
        assert (await client.get("/health")).json()["status"] == "draining"
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/", 405),
        ("POST", "/predict/", 200),
        ("GET", "/predict", 405),
        ("DELETE", "/predict", 405),
        ("GET", "/models/numbers/predict", 405),
        ("POST", "/health", 405),
        ("TRACE", "/predict", 405),
        ("PATCH", "/metrics", 405),
        ("GET", "/docs/assets/../../app.py", 404),
        ("GET", "/docs/assets/none.js", 404),
        ("POST", "/models//predict", 405),
    ],
)
async def test_other_routes_and_methods_are_refused_politely(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """Problem documents here too; 405 names what is allowed."""
    answer = await client.request(method, path, headers=JSON, content=b'{"features":[1,2,3,4]}')

    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert_leaks_nothing(answer.text)
    if status == 405:
        assert answer.headers["allow"]


# -- metrics ---------------------------------------------------------------------------------------


async def test_metrics_count_what_was_sent(client: httpx.AsyncClient) -> None:
    """Requests by outcome, stages, batches and rows agree with what the client did."""
    for _ in range(3):
        await client.post("/predict", json={"features": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    await client.post("/predict", json={"features": [1]})
    await client.post("/models/nobody/predict", json={})
    await client.post("/models/sum/predict", content=b"{", headers=JSON)

    answer = await client.get("/metrics")
    found = await samples(client)

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert found["halfcore_requests_total", "numbers", "200", "predict"] == 3
    assert found["halfcore_requests_total", "numbers", "wrong_length", "predict"] == 1
    assert found["halfcore_requests_total", "", "unknown_model", "predict"] == 1
    assert found["halfcore_requests_total", "sum", "invalid_json", "predict"] == 1
    assert found["halfcore_batch_rows_count", "numbers"] == 3
    assert found["halfcore_batch_rows_sum", "numbers"] == 6
    for stage in ("decode", "queue", "infer", "encode"):
        assert found["halfcore_stage_duration_seconds_count", "numbers", stage] == 3
        assert found["halfcore_stage_duration_seconds_sum", "numbers", stage] > 0
        assert found["halfcore_stage_duration_seconds_bucket", "+Inf", "numbers", stage] == 3
    assert found["halfcore_queued_rows", "numbers"] == 0
    assert ("halfcore_model_loaded_timestamp_seconds", "numbers", "1") in found
    assert found["halfcore_build_info", (await client.get("/health")).json()["version"]] == 1
    assert found[("process_resident_memory_bytes",)] > 0


async def test_unknown_names_do_not_become_labels(client: httpx.AsyncClient) -> None:
    """A client cannot grow the metrics by asking for models that do not exist."""
    for i in range(20):
        await client.post(f"/models/nobody{i}/predict", json={})

    assert "nobody" not in (await client.get("/metrics")).text


# -- documentation ---------------------------------------------------------------------------------


async def test_the_docs_need_no_network(client: httpx.AsyncClient) -> None:
    """Every script, style and image of /docs is served from here."""
    page = await client.get("/docs")

    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    references = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(references) >= 3
    for reference in references:
        if reference.startswith("data:"):
            continue
        assert reference.startswith("/docs/")
        asset = await client.get(reference)
        assert (asset.status_code, len(asset.content) > 1000) == (200, True), reference
    outside = re.findall(
        r"""https?://[^\s"'<>]+""",
        re.sub(r"<script[^>]*>.*?</script>|<style.*?</style>", "", page.text, flags=re.S),
    )
    assert outside == []


async def test_the_description_is_sound(client: httpx.AsyncClient) -> None:
    """OpenAPI 3.1: every route of the app with a unique operation, every reference resolved, every
    path parameter declared."""
    document = (await client.get("/docs/openapi.json")).json()

    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    paths = document["paths"]
    expected = {
        "/predict",
        "/models",
        "/models/{name}",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    assert expected | {f"/models/{name}/predict" for name in ("numbers", "mixed", "sum")} <= set(
        paths
    )
    operations = [(path, operation) for path, item in paths.items() for operation in item.values()]
    identities = [operation["operationId"] for _, operation in operations]
    assert len(set(identities)) == len(identities)
    for path, operation in operations:
        assert operation["responses"]
        assert all(
            re.fullmatch(r"[1-5]\d\d", status) and answer["description"]
            for status, answer in operation["responses"].items()
        )
        declared = {
            parameter["name"]
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "path"
        }
        assert declared == set(re.findall(r"{(\w+)", path))
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', json.dumps(document)):
        target = document
        for part in reference.split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]


async def test_the_examples_of_the_description_are_accepted(client: httpx.AsyncClient) -> None:
    """Whoever presses "Try it out" gets a prediction."""
    paths = (await client.get("/docs/openapi.json")).json()["paths"]
    tried = 0
    for path in (path for path in paths if path.endswith("/predict")):
        for example in paths[path]["post"]["requestBody"]["content"]["application/json"][
            "examples"
        ].values():
            assert (await client.post(path, json=example["value"])).status_code == 200
            tried += 1
    assert tried == 8


async def test_the_description_says_what_is_taken_and_given(client: httpx.AsyncClient) -> None:
    """What its schemas accept is answered as they say; what they refuse is refused, with the
    document that they describe."""
    document = (await client.get("/openapi.json")).json()
    components = {"components": document["components"]}

    def valid(schema: dict[str, Any], value: Any) -> bool:
        return bool(Draft202012Validator(schema | components).is_valid(value))

    for path in (path for path in document["paths"] if path.endswith("/predict")):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        Draft202012Validator.check_schema(body["schema"] | components)
        one = body["examples"]["one"]["value"]
        row = one["features"] if "features" in one else list(one.values())
        right = [example["value"] for example in body["examples"].values()] + [
            {"features": row},
            {"features": [row, row]},
        ]
        wrong = [
            {"features": row[1:]},
            {"features": [*row, 1]},
            {"features": [row, row[1:]]},
            {},
            [],
            [one, {}],
            {**one, "more": 1},
            row,
            1,
        ]
        for value in right:
            answer = await client.post(path, json=value)
            assert (valid(body["schema"], value), answer.status_code) == (True, 200), value
            assert valid(
                operation["responses"]["200"]["content"]["application/json"]["schema"],
                answer.json(),
            )
        for value in wrong:
            answer = await client.post(path, json=value)
            assert (valid(body["schema"], value), answer.status_code) == (False, 422), value
            assert valid(
                operation["responses"]["422"]["content"]["application/problem+json"]["schema"],
                answer.json(),
            )
    unknown = document["paths"]["/models/{name}"]["get"]["responses"]["404"]["content"][
        "application/problem+json"
    ]["schema"]
    assert valid(unknown, (await client.get("/models/nobody")).json())


async def test_the_description_outlives_the_version_that_is_served(
    client: httpx.AsyncClient,
) -> None:
    """A client that is made from it does not refuse the next version, and has a name for every
    schema and none twice."""
    document = (await client.get("/openapi.json")).json()

    assert '"const"' not in json.dumps(document)
    assert all("title" not in schema for schema in document["components"]["schemas"].values())
    assert not any(key == "items" and isinstance(value, bool) for key, value in pairs(document))


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value within a document."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from pairs(inner)


async def test_nothing_in_the_page_can_end_its_script(tmp_path: Path) -> None:
    """A column may be called as it likes; the page holds the document in a script."""
    write_bundle(tmp_path, inputs=[{**NUMBERS[0], "name": "</script><!--"}, *NUMBERS[1:]])
    async with app_client(tmp_path) as client:
        page = (await client.get("/docs")).text
        assert "</script><!--" in (await client.get("/openapi.json")).text
    assert page.count("</script>") == page.count("<script")
    assert "<!--" not in page.replace("<!DOCTYPE", "")


async def test_head_is_answered_wherever_get_is(client: httpx.AsyncClient) -> None:
    """Every route of the description, and the pages; with GET's status and headers, and without a
    body."""
    described = (await client.get("/openapi.json")).json()["paths"]
    paths = [path.replace("{name}", "sum") for path, item in described.items() if "get" in item]
    pages = ("/", "/home/home.js", "/docs", "/openapi.json", "/docs/assets/swagger-ui-bundle.js")
    for path in (*paths, *pages):
        get, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        same = (
            dict(get.headers)
            if path != "/metrics"
            else {**get.headers, "content-length": head.headers["content-length"]}
        )
        assert dict(head.headers) == same, path


async def test_what_lies_beyond_the_proven_domain_is_refused(tmp_path: Path) -> None:
    """With 422 and the bounds, which are legal themselves; the model's page shows them as the
    bundle's."""
    write_bundle(tmp_path, inputs=[NUMBERS[0] | {"domain": [-1e9, 1e9]}, *NUMBERS[1:]])
    async with app_client(tmp_path) as client:
        answers = [
            await client.post("/predict", json={"features": [value, 1, 2, 3]})
            for value in (1e9, -1e9, 1.1e9)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 422]
        (error,) = answers[2].json()["errors"]
        assert (error["code"], error["expected"]) == (
            "out_of_range",
            "between -1000000000 and 1000000000",
        )
        shown = (await client.get("/models/numbers")).json()["inputs"][0]
        assert (shown["source"], shown["allowed"]) == ("bundle", {"minimum": -1e9, "maximum": 1e9})
