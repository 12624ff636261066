"""The intake: plain predictions are begun on granian's thread and answered once; everything else
goes granian's own way.

granian is scripted here, for its threads' timing cannot be; tests/contract/test_front.py and
test_process.py run over the real one.
"""

import asyncio
import gc
import json
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pytest
from granian.rsgi import ProtocolClosed

from halfcore.http import granian_private
from halfcore.http.granian_private import Intake
from halfcore.settings.groups import Settings
from halfcore.worker import Worker
from support.bundles import write_bundle

if TYPE_CHECKING:
    from halfcore.http.rsgi import Front

BODY = b'{"features":[1,2,3,4.5]}'
HEADERS = {"content-type": "application/json", "content-length": str(len(BODY))}


class Coming:
    """A body that is not yet complete, as granian represents it."""

    def __init__(self) -> None:
        self.outcome: bytes | BaseException | None = None
        self._callbacks: list[Callable[[Coming], None]] = []

    def add_done_callback(self, callback: Callable[["Coming"], None]) -> None:
        """Call back when it has come."""
        self._callbacks.append(callback)

    def come(self, outcome: bytes | BaseException) -> None:
        """It has come, or has not."""
        self.outcome = outcome
        for callback in self._callbacks:
            callback(self)

    def cancel(self) -> None:
        """Granian then calls back, on the loop."""
        asyncio.get_running_loop().call_soon(self.come, asyncio.CancelledError())

    def result(self) -> bytes:
        """The body, or the error."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


class Request:
    """What granian hands over: a watcher, its scope and its exchange in one."""

    def __init__(self, path: str = "/predict", method: str = "POST", **headers: str | None) -> None:
        self.scope = self.proto = self
        self.path, self.method = path, method
        given = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers = {name: value for name, value in given.items() if value is not None}
        self.body = Coming()
        self.answers: list[tuple[int, dict[str, str], Any]] = []

    def __call__(self) -> Coming:
        """The body is asked for."""
        return self.body

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """The answer."""
        self.answers.append((status, dict(headers), json.loads(body)))


class Taking:
    """An intake, and what it left to granian."""

    def __init__(self, worker: Worker) -> None:
        self.models = worker.models
        self.front = front = worker.front()
        self.left: list[Any] = []
        self._intake = Intake(front, asyncio.get_running_loop(), self.left.append)

    def take(self, request: Request) -> Request:
        """Hand a request over."""
        self._intake(request)
        return request


@asynccontextmanager
async def taking(bundles: Path, **settings: Any) -> AsyncIterator[Taking]:
    """An intake before a server of one model."""
    write_bundle(bundles)
    worker = Worker(Settings(bundles=bundles, log_level="error", **settings))
    async with worker.app.lifespan():
        yield Taking(worker)


async def answered(request: Request) -> tuple[int, dict[str, str], Any]:
    """The answer, once it is there."""
    async with asyncio.timeout(60):
        while not request.answers:  # noqa: ASYNC110  the answer is a call, and sets no event
            await asyncio.sleep(0)
    (only,) = request.answers
    return only


async def test_a_plain_prediction_is_answered_when_its_body_has_come(tmp_path: Path) -> None:
    """Not before, once, and granian makes no task of it."""
    async with taking(tmp_path) as server:
        request = server.take(Request(path="/models/numbers/predict"))
        assert len(server.front.predictor.reader.reading) == 1
        request.body.come(BODY)
        status, headers, body = await answered(request)

    assert (status, body["model"], server.left) == (200, "numbers", [])
    assert "x-request-id" not in headers
    assert not server.front.predictor.reader.reading


TENSOR = (
    b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32",'
    b'"parameters":{"binary_data_size":16}}]}'
)


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (Request(path="/invocations"), b'{"instances":[[1,2,3,4.5]]}'),
        (Request(path="/endpoints/numbers/invocations"), b'{"instances":[[1,2,3,4.5]]}'),
        (Request(path="/v1/models/numbers:predict"), b'{"instances":[[1,2,3,4.5]]}'),
        (
            Request(
                path="/v2/models/numbers/infer",
                content_type="application/octet-stream",
                inference_header_content_length=str(len(TENSOR)),
            ),
            TENSOR + bytes(16),
        ),
        (
            Request(path="/v2/models/numbers/versions/1/infer", content_type=None),
            b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}',
        ),
    ],
    ids=["MLflow", "MLflow, a name", "KServe", "a binary tensor", "JSON without a type"],
)
async def test_other_protocols_are_begun_here_too(
    tmp_path: Path, request_: Request, body: bytes
) -> None:
    """Whatever head their clients usually send."""
    async with taking(tmp_path) as server:
        server.take(request_).body.come(body)
        status, _, document = await answered(request_)
    assert (status, server.left) == (200, [])
    assert document.keys() & {"predictions", "outputs"}


class Headers(dict[str, str]):
    """As granian has them."""

    def get_all(self, name: str) -> list[str]:
        """All values of a name."""
        return [self[name]]


async def test_a_queue_that_stands_refuses_before_the_body_is_read(tmp_path: Path) -> None:
    """In each protocol's form, on granian's thread; once the queue has room, requests are taken
    again."""
    async with taking(tmp_path, queue_target_ms=100) as server:
        standing = server.models.get("numbers").batcher._standing
        standing.most = 0
        first = server.take(Request())
        first.body.come(BODY)  # the first one finds out
        assert (await answered(first))[0] == 503
        for path in ("/predict", "/models/numbers/predict", "/v2/models/numbers/infer"):
            request = server.take(Request(path=path))
            ((status, headers, _),) = request.answers
            assert (status, headers["retry-after"]) == (503, "1")
        standing.most = 1
        again = server.take(Request())
        again.body.come(BODY)
        assert (await answered(again))[0] == 200
        outcomes = server.front.predictor.metrics.outcomes()
        assert sum(n for key, n in outcomes.items() if key[2] == "overloaded") == 4


async def test_a_request_with_a_trace_is_plain(tmp_path: Path) -> None:
    """It costs no detour, and its answer returns the header; so does a refusal."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with taking(tmp_path) as server:
        for outcome, status in ((BODY, 200), (b"{", 400), (ProtocolClosed(), 400)):
            request = Request(traceparent=trace)
            request.headers = Headers(request.headers)
            server.take(request).body.come(outcome)
            found, headers, _ = await answered(request)
            assert (found, headers["traceparent"], server.left) == (status, trace, [])


@pytest.mark.parametrize(
    "request_",
    [
        Request(method="GET"),
        Request(path="/health"),
        Request(path="/models/a/b/predict"),
        Request(content_length=None),
        Request(content_length="-1"),
        Request(content_length="9" * 5000),
        Request(content_length="2000000"),
        Request(content_length="8193"),
        Request(content_type="text/plain"),
        Request(content_type=None),
        Request(content_encoding="gzip"),
    ],
    ids=[
        "GET",
        "another route",
        "a slash",
        "chunked",
        "negative",
        "5,000 digits",
        "too long",
        "large",
        "text",
        "no type",
        "gzip",
    ],
)
async def test_what_needs_more_looking_at_goes_granians_way(
    tmp_path: Path, request_: Request
) -> None:
    """Its body is not asked for."""
    async with taking(tmp_path, max_body_bytes=1_000_000) as server:
        server.take(request_)
        assert server.left == [request_]
        assert not server.front.predictor.reader.reading


async def test_a_full_server_refuses_at_once(tmp_path: Path) -> None:
    """Without waking the loop, in the protocol's form, and it is counted; what needs more is left
    to the loop."""
    async with taking(tmp_path, max_in_flight=2) as server:
        first, second = server.take(Request()), server.take(Request())
        third = server.take(Request())
        status, headers, body = await answered(third)
        assert (status, headers["retry-after"], body["code"]) == (503, "1", "overloaded")
        foreign = server.take(Request(path="/v2/models/numbers/infer"))
        assert (await answered(foreign))[2].keys() == {"error"}
        traced = server.take(Request(traceparent="00-1-2-01"))
        assert server.left == [traced]
        outcomes = server.front.predictor.metrics.outcomes()
        assert outcomes["predict", "", "overloaded"] == 2
        for request in (first, second):
            request.body.come(BODY)
            assert (await answered(request))[0] == 200
        fourth = server.take(Request())
        fourth.body.come(BODY)
        assert (await answered(fourth))[0] == 200


async def test_a_body_that_is_too_slow_is_408(tmp_path: Path) -> None:
    """The connection is closed, nothing is remembered, and others are not touched."""
    async with taking(tmp_path, body_timeout_s=0.1) as server:
        slow = server.take(Request())
        status, headers, body = await answered(slow)
        assert (status, headers["connection"], body["code"]) == (408, "close", "body_too_slow")
        quick = server.take(Request())
        quick.body.come(BODY)
        assert (await answered(quick))[0] == 200
        assert not server.front.predictor.reader.reading


async def test_while_memory_is_scarce_bodies_are_read_in_pieces(tmp_path: Path) -> None:
    """By the other lane: granian keeps 8 KiB for each packet of one that is read in one step."""
    async with taking(tmp_path) as server:
        server.front.predictor.reader.whole_bytes = 0
        request = server.take(Request())
        assert server.left == [request]


async def test_a_client_that_leaves_within_its_body_is_counted(tmp_path: Path) -> None:
    """As over the other lane."""
    async with taking(tmp_path) as server:
        request = server.take(Request())
        request.body.come(ProtocolClosed())
        status, _, body = await answered(request)

    assert (status, body["code"]) == (400, "client_left")


async def test_an_intake_that_fails_does_not_end_granians_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; granian answers 500 when it forgets the request."""
    async with taking(tmp_path) as server:
        request = Request()
        del request.headers
        server.take(request)
        assert not request.answers
        assert not server.left


async def test_a_prediction_whose_client_leaves_leaves_the_queue(tmp_path: Path) -> None:
    """Its rows are not run, it is not in progress any more, and it is answered nothing."""
    async with taking(tmp_path, solo_after_ms=0) as server:  # no row is run at once, however late
        predictor = server.front.predictor
        sent: list[Any] = []
        model = next(iter(server.models))
        staying = predictor.begin(None, BODY, None, lambda *answer: sent.append(answer))
        leaving = predictor.begin(None, BODY, None, lambda *answer: sent.append(answer))
        leaving.abandon()
        await model.batcher.drain()

        assert (staying.done(), leaving.done(), len(sent), model.batcher.queued_rows) == (
            True,
            True,
            1,
            0,
        )
        assert not predictor.full()


@pytest.mark.parametrize(
    ("body", "status"),
    [(BODY, 200), (b'{"features":[1]}', 422), (b"{", 400)],
    ids=["answered", "refused", "no JSON"],
)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(
    tmp_path: Path, body: bytes, status: int
) -> None:
    """Its body and its exchange go with the answer, and not thousands of requests later."""
    async with taking(tmp_path) as server:
        request = server.take(Request())
        await asyncio.sleep(0)
        gc.collect()
        gc.disable()
        try:
            request.body.come(body)
            assert (await answered(request))[0] == status
            await asyncio.sleep(0)
            gone = weakref.ref(request)
            server.left.clear()
            request.body.__dict__.clear()
            # The script's own circle
            request.scope = request.proto = None  # type: ignore[assignment]
            del request
            assert gone() is None
        finally:
            gc.enable()


def test_a_granian_without_a_private_name_is_left_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning names what is missing; test_pages.py starts such a server, which works without
    it."""
    granian = ModuleType("granian.server.other")
    monkeypatch.setitem(sys.modules, granian.__name__, granian)
    monkeypatch.delattr("granian._futures._cbsched_aioschedule")

    with caplog.at_level("WARNING", logger="halfcore"):
        granian_private.install(granian, cast("Front", None))

    (record,) = caplog.records
    assert (
        "granian has no granian._futures._cbsched_aioschedule, "
        "granian.server.other._new_cbscheduler"
    ) in record.getMessage()
    assert not hasattr(granian, "_new_cbscheduler")
