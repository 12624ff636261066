"""The budget of bytes: never more than its limit, and nothing reserved once requests have ended,
however they end."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from halfcore.log import logger
from halfcore.predict.budget import LARGE_ANSWER_BYTES, LOG_EVERY_S, SMALL_BYTES, Budget, Hold
from halfcore.problem import Problem
from halfcore.settings.groups import Settings
from halfcore.worker import Worker
from support.bundles import write_bundle
from support.client import transport_of
from support.examples import examples

LIMIT = 100_000
ROWS = 4000
BODY = json.dumps([[1, 2, 3, 4]] * ROWS).encode()
SIZES = st.integers(0, 2 * LIMIT)


class Holds(RuleBasedStateMachine):
    """Requests that grow, are refused and end, in any order."""

    @initialize()
    def begin(self) -> None:
        """Nothing is reserved."""
        self.budget = Budget(LIMIT)
        self.holds: list[Hold] = []
        self.forced = False

    @rule(of_pages=st.booleans())
    def opens(self, of_pages: bool) -> None:
        """One more request."""
        self.holds.append(self.budget.hold(of_pages=of_pages))

    @rule(size=SIZES, at=st.integers(0, 9))
    def grows(self, size: int, at: int) -> None:
        """It gets what it needs, or 503 and keeps what it had."""
        if at >= len(self.holds):
            return
        hold = self.holds[at]
        before = hold.size
        needed = max(before, size) if size > SMALL_BYTES else before
        if hold.fits(needed):
            hold.cover(size)
            assert hold.size == needed
        elif needed > before:
            with pytest.raises(Problem) as caught:
                hold.cover(size)
            assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
            assert hold.size == before

    @rule(size=st.integers(0, LIMIT // 10), at=st.integers(0, 9))
    def is_forced(self, size: int, at: int) -> None:
        """An answer that is encoded is in memory, whatever the limit says."""
        if at < len(self.holds):
            self.holds[at].force(size)
            self.forced = True

    @rule(at=st.integers(0, 9))
    def ends(self, at: int) -> None:
        """Once or twice."""
        if at < len(self.holds):
            self.holds[at].release()

    @invariant()
    def is_the_sum(self) -> None:
        """Of what each has, and within the limit."""
        if hasattr(self, "budget"):
            assert self.budget.used == sum(hold.size for hold in self.holds)
            if not self.forced:
                assert self.budget.used <= LIMIT * 5 // 4

    def teardown(self) -> None:
        """All end."""
        for hold in getattr(self, "holds", []):
            hold.release()
        if hasattr(self, "budget"):
            assert self.budget.used == 0


TestHolds = Holds.TestCase
TestHolds.settings = settings(examples(30), stateful_step_count=20)


def test_refusals_are_logged_at_most_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, and how many there were."""
    lines: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *parts: lines.append(text % parts))
    now = [0.0]
    budget = Budget(LIMIT, clock=lambda: now[0])
    for second in (0.0, 1.0, LOG_EVERY_S + 1):
        now[0] = second
        with pytest.raises(Problem):
            budget.hold().cover(LIMIT + 1)
    assert len(lines) == 2
    assert "3 refused so far" in lines[1]
    assert "HALFCORE_MAX_BYTES_IN_FLIGHT" in lines[0]


@asynccontextmanager
async def served(bundles: Path, **settings: Any) -> AsyncIterator[tuple[Budget, httpx.AsyncClient]]:
    """The budget of a worker, and a client of its app."""
    write_bundle(bundles)
    worker = Worker(Settings(bundles=bundles, log_level="error", **settings))
    async with (
        worker.app.lifespan(),
        httpx.AsyncClient(transport=transport_of(worker.app), base_url="http://test") as client,
    ):
        yield worker.predictor.reader.budget, client


def in_chunks(body: bytes) -> Iterator[bytes]:
    """Without an announced length."""
    return (body[at : at + 1000] for at in range(0, len(body), 1000))


JSON = {"content-type": "application/json"}
BINARY_ROWS = 8000
TENSOR = json.dumps(
    {
        "inputs": [
            {
                "name": "i",
                "shape": [BINARY_ROWS, 4],
                "datatype": "FP32",
                "parameters": {"binary_data_size": BINARY_ROWS * 16},
            }
        ]
    }
).encode()
FORMS: dict[str, tuple[str, bytes, dict[str, str], str]] = {
    "own": ("/predict", BODY, JSON, "code"),
    "MLflow": ("/invocations", b'{"instances":%b}' % BODY, JSON, "error_code"),
    "KServe": ("/v1/models/numbers:predict", b'{"instances":%b}' % BODY, JSON, "error"),
    "binary": (
        "/v2/models/numbers/infer",
        TENSOR + bytes(BINARY_ROWS * 16),
        {"inference-header-content-length": str(len(TENSOR))},
        "error",
    ),
    "compressed": ("/predict", gzip.compress(BODY), JSON | {"content-encoding": "gzip"}, "code"),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_body_that_does_not_fit_is_503_in_its_protocols_form(
    tmp_path: Path, form: str
) -> None:
    """With Retry-After; a small one is answered meanwhile, and this one afterwards."""
    path, body, headers, field = FORMS[form]
    async with served(tmp_path) as (budget, client):
        budget.limit = len(BODY) // 2
        refused = await client.post(path, content=body, headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert field in refused.json()
        small = await client.post("/predict", json={"features": [1, 2, 3, 4]})
        assert (small.status_code, budget.used) == (200, 0)
        budget.limit = 10 * len(BODY)
        answered = await client.post(path, content=body, headers=headers)
        assert (answered.status_code, budget.used) == (200, 0)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (BODY, 200),
        (b"[" * len(BODY), 400),
        (json.dumps([[1, 2, 3]] * ROWS).encode(), 422),
        (b" " * 3_000_000, 413),
    ],
    ids=["answered", "no JSON", "wrong rows", "too large"],
)
async def test_nothing_stays_reserved_after_an_answer(
    tmp_path: Path, content: bytes, status: int
) -> None:
    """Whatever it is; also of a body in chunks."""
    async with served(tmp_path, max_body_bytes=2_000_000) as (budget, client):
        for body in (content, in_chunks(content)):
            sent = _async(body) if not isinstance(body, bytes) else body
            answer = await client.post("/predict", content=sent, headers=JSON)
            assert (answer.status_code, budget.used) == (status, 0)


OBJECTS, ARRAYS = (b",".join([part] * 7000) for part in (b"{}", b"[]"))
SHORT_PARTS = {
    "/invocations": b'{"dataframe_records":[' + OBJECTS + b"]}",
    "/v1/models/numbers:predict": b'{"instances":[' + ARRAYS + b"]}",
    "/v2/models/numbers/infer": b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":['
    + OBJECTS
    + b"]}]}",
}


@pytest.mark.parametrize("path", SHORT_PARTS)
async def test_a_body_of_very_many_short_parts_is_reserved_as_what_it_takes(
    tmp_path: Path, path: str
) -> None:
    """It is refused before it is parsed if that does not fit; otherwise it is read."""
    body = SHORT_PARTS[path]
    async with served(tmp_path) as (budget, client):
        for limit, status in ((8 * len(body), 503), (100 * len(body), 400)):
            budget.limit = limit
            answer = await client.post(path, content=body, headers=JSON)
            assert (answer.status_code, budget.used) == (status, 0)


async def _async(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_body_in_chunks_is_reserved_as_it_grows(tmp_path: Path) -> None:
    """It is refused within, and what arrived is released."""
    async with served(tmp_path) as (budget, client):
        budget.limit = len(BODY) // 2
        answer = await client.post("/predict", content=_async(in_chunks(BODY)), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_bytes")
        assert budget.used == 0


async def test_a_body_that_stalls_is_reserved_until_it_is_given_up(tmp_path: Path) -> None:
    """The client gets 408."""
    stalled = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"["
        stalled.set()
        await asyncio.Event().wait()

    headers = JSON | {"content-length": "50000"}
    async with served(tmp_path, body_timeout_s=0.2) as (budget, client):
        asked = asyncio.create_task(client.post("/predict", content=parts(), headers=headers))
        await stalled.wait()
        assert budget.used == 50_000
        assert (await asked).status_code == 408
        assert budget.used == 0


async def test_a_cancelled_request_releases_what_it_has(tmp_path: Path) -> None:
    """As when the worker stops."""
    stalled = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        stalled.set()
        await asyncio.Event().wait()
        yield b""

    headers = JSON | {"content-length": "50000"}
    async with served(tmp_path) as (budget, client):
        asked = asyncio.create_task(client.post("/predict", content=parts(), headers=headers))
        await stalled.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert budget.used == 0


async def test_an_answer_that_does_not_fit_is_503(tmp_path: Path) -> None:
    """A short body may ask for it; it is not counted as answered."""
    body = b"[" + b",".join([b"[]"] * 10) + b"]"
    rows = b"[" + b",".join([b"[1,2,3,4]"] * 800) + b"]"
    assert len(rows) < SMALL_BYTES < LARGE_ANSWER_BYTES
    async with served(tmp_path) as (budget, client):
        model_body = await client.post("/predict", content=rows, headers=JSON)
        assert model_body.status_code == 200
        budget.limit = 10_000
        refused = await client.post("/predict", content=rows, headers=JSON)
        assert (refused.status_code, budget.used) == (503, 0)
        assert (await client.post("/predict", content=body, headers=JSON)).status_code == 422


@pytest.mark.parametrize("length", ["2000000", "9" * 30])
async def test_a_webhook_that_announces_too_much_is_not_read(tmp_path: Path, length: str) -> None:
    """It needs no signature to be refused."""

    async def never() -> AsyncIterator[bytes]:
        pytest.fail("it was read")
        yield b""

    async with served(tmp_path, webhook_secret="s") as (budget, client):
        headers = JSON | {"content-length": length}
        answer = await client.post("/webhooks/mlflow", content=never(), headers=headers)
        assert (answer.status_code, budget.used) == (413, 0)


async def test_a_slow_webhook_is_408(tmp_path: Path) -> None:
    """As a slow prediction is."""

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with served(tmp_path, webhook_secret="s", body_timeout_s=0.1) as (budget, client):
        answer = await client.post("/webhooks/mlflow", content=stalls(), headers=JSON)
        assert (answer.status_code, budget.used) == (408, 0)
