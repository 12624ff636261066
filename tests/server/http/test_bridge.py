"""The bridge from RSGI to ASGI, between a real granian in this process and apps that try it."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server import embed

from halfcore.http import bridge
from halfcore.http.answers import Answers
from halfcore.predict.budget import Budget
from support.serving import free_port, request

App = Callable[[Any, Any, Any], Awaitable[None]]
MEBIBYTE = 1 << 20
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-made-by", b"a test")]}


class Served:
    """One granian with the bridge, on a loop of its own; each test gives it an app.

    It runs for the whole module: to stop an embedded granian is a race inside it, which hangs once
    in hundreds of times.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self.port = free_port()
        self.app: App | None = None
        self._runner = runner
        self._server = embed.Server(
            self._answer,
            port=self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
        )

    async def _answer(self, scope: Any, exchange: Any) -> None:
        assert self.app
        await bridge.answer(self.app, scope, exchange, Answers(Budget()))

    async def start(self) -> None:
        """Listen."""
        self._serve = asyncio.create_task(self._server.serve())
        await until_listening(self.port)

    async def stop(self) -> None:
        """Stop listening, and wait for granian's end."""
        self._server.stop()
        await self._serve

    def run(
        self, app: App, scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]
    ) -> None:
        """Run a scenario with a client of the app; nothing of a request may be left when it
        ends."""

        async def run() -> None:
            before = asyncio.all_tasks()
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.port}", timeout=20
            ) as client:
                await scenario(client)
            await until(lambda: asyncio.all_tasks() == before)  # no request left a task behind

        self.app = app
        self._runner.run(run())


@pytest.fixture(
    scope="module",
    params=[uvloop.new_event_loop, asyncio.new_event_loop],
    ids=["uvloop", "asyncio"],
)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """granian on each of the event loops that the server offers."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        served = Served(runner)
        runner.run(served.start())
        yield served
        runner.run(served.stop())


async def until_listening(port: int) -> None:
    """Wait until granian accepts connections."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
            except ConnectionRefusedError:
                await asyncio.sleep(0.005)
            else:
                return


async def raw(client: httpx.AsyncClient, data: bytes) -> bytes:
    """The answer to these bytes until granian closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    """A part of an answer's body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize(
    "parts",
    [
        [part(b"one", more=False)],
        [part(b"", more=False)],
        [{"type": "http.response.body"}],
        [part(b"one "), part(b""), part(b"two"), part(b"", more=False)],
        [part(b""), part(b"late", more=False)],
        [part(bytes([i]) * MEBIBYTE, more=i < 3) for i in range(4)],
        [part(b"x" * 8 * MEBIBYTE, more=False)],
    ],
    ids=["one", "empty", "no body", "several", "the last one", "4 MiB in parts", "8 MiB in one"],
)
def test_what_an_app_sends_arrives(served: Served, parts: list[dict[str, Any]]) -> None:
    """Status, headers and the whole body, however it is cut; again on the same connection."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START | {"status": 203})
        for one in parts:
            await send(one)

    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            answer = await client.get("/")
            assert (answer.status_code, answer.headers["x-made-by"]) == (203, "a test")
            assert answer.content == b"".join(one.get("body", b"") for one in parts)

    served.run(app, scenario)


def test_a_file_arrives(served: Served, tmp_path: Path) -> None:
    """The extension pathsend is offered, and granian reads the file."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 * MEBIBYTE))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.pathsend" in scope["extensions"]
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(file)})
        assert await disconnected(receive)

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).content == file.read_bytes()

    served.run(app, scenario)


def test_each_part_arrives_before_the_next_is_made(served: Served) -> None:
    """As a client of events needs it: no part is held back until the next one."""
    arrived = [asyncio.Event() for _ in range(3)]

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        for i, event in enumerate(arrived):
            await send(part(b"event %d" % i))
            await event.wait()
        await send(part(b"", more=False))

    async def scenario(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/") as answer:
            numbers = iter(range(3))
            async for text in answer.aiter_raw():
                i = next(numbers)
                assert text == b"event %d" % i
                arrived[i].set()

    served.run(app, scenario)


def test_clients_that_do_not_read_cost_little_memory(served: Served, tmp_path: Path) -> None:
    """Of a file, some hundred kilobytes each; as soon as they read they get all of it."""
    clients, size = 20, 32 * MEBIBYTE
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    asked = 0

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal asked
        await send(START | {"headers": [(b"content-length", str(size).encode())]})
        await send({"type": "http.response.pathsend", "path": str(file)})
        asked += 1

    async def scenario(client: httpx.AsyncClient) -> None:
        before = resident_bytes()
        connections = [
            socket.create_connection(("127.0.0.1", client.base_url.port)) for _ in range(clients)
        ]
        for connection in connections:
            connection.sendall(request("/", method="GET"))
        await until(lambda: asked == clients)
        assert (await client.get("/")).content == file.read_bytes()
        assert resident_bytes() - before < 5 * size
        for connection in connections:
            connection.close()

    served.run(app, scenario)


def test_a_stream_that_is_too_long_is_an_error(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends, and the log says what to do: granian would keep all of it in memory for a
    client that does not read."""
    sent = 0

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        while True:
            await send(part(b"x" * 65536))
            sent += 65536

    async def scenario(client: httpx.AsyncClient) -> None:
        assert len((await client.get("/")).content) == bridge.MAX_STREAM_BYTES

    served.run(app, scenario)
    assert sent == bridge.MAX_STREAM_BYTES
    (record,) = caplog.records
    assert "pathsend" in caplog.text
    assert record.getMessage().startswith("an answer is incomplete")


def test_an_app_that_streams_learns_that_its_client_left(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Its next part is an error of the operating system's kind, and nothing is logged."""
    ended: list[BaseException] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        try:
            while True:
                await send(part(b"x"))
                await asyncio.sleep(0.001)
        except BaseException as error:
            ended.append(error)
            raise

    async def scenario(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/") as answer:
            await anext(answer.aiter_raw())
        await until(lambda: ended)

    served.run(app, scenario)
    assert isinstance(ended[0], OSError)
    assert not caplog.records


@pytest.mark.parametrize(
    "sent",
    [[], [START], [START, part(b"x")], [START, part(b"x" * MEBIBYTE)]],
    ids=["nothing", "head", "part", "much"],
)
def test_an_app_that_waits_learns_that_its_client_left(
    served: Served, sent: list[dict[str, Any]]
) -> None:
    """It receives http.disconnect, before its answer began and in the middle of it, and again if it
    asks again."""
    received: list[str] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)
        received.append((await receive())["type"])
        while received.count("http.disconnect") < 2:
            received.append((await receive())["type"])

    async def scenario(client: httpx.AsyncClient) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(request("/", method="GET", headers={"content-length": None}))
        await until(lambda: received)
        writer.close()
        await until(lambda: received.count("http.disconnect") == 2)
        assert received == ["http.request", "http.disconnect", "http.disconnect"]

    served.run(app, scenario)


@pytest.mark.parametrize(
    "parts",
    [[part(b"x", more=False)], [part(b"x"), part(b"", more=False)]],
    ids=["one", "streamed"],
)
def test_an_app_that_waits_is_released_by_its_own_answer(
    served: Served, parts: list[dict[str, Any]]
) -> None:
    """Litestar listens for the client's leaving while it streams, and returns only when it hears of
    it."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        listener = asyncio.create_task(disconnected(receive))
        await asyncio.sleep(0)
        await send(START)
        for one in parts:
            await send(one)
        assert await listener

    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            assert (await client.get("/")).content == b"x"

    served.run(app, scenario)


async def disconnected(receive: Any) -> bool:
    """Receive until the end; true."""
    while (await receive())["type"] != "http.disconnect":
        pass
    return True


# -- the app fails ---------------------------------------------------------------------------------


async def fails_at_once(_scope: Any, _receive: Any, _send: Any) -> None:
    """An app that does not answer."""
    raise ValueError("planted")


async def fails_after_the_head(_scope: Any, _receive: Any, send: Any) -> None:
    """An app of whose answer nothing was sent yet."""
    await send(START)
    raise ValueError("planted")


async def returns(_scope: Any, _receive: Any, _send: Any) -> None:
    """An app that forgets to answer."""


async def sends_a_body_first(_scope: Any, _receive: Any, send: Any) -> None:
    """An app that breaks the protocol."""
    await send(part(b"x", more=False))


@pytest.mark.parametrize("app", [fails_at_once, fails_after_the_head, returns, sends_a_body_first])
def test_an_app_that_fails_before_its_answer_is_500(
    served: Served, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """As everywhere: a problem document without details, and the stack in the log."""

    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            answer = await client.get("/")
            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")

    served.run(app, scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "a request failed unexpectedly"
    ] * 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("ends", ["fails", "returns"])
def test_an_app_that_fails_within_its_answer_breaks_it_off(
    served: Served, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sees that it is not complete, and the log says why, once."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START | {"headers": [(b"content-length", b"100")]})
        await send(part(b"x" * 10))
        if ends == "fails":
            raise ValueError("planted")

    async def scenario(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
        await until(lambda: caplog.records)

    served.run(app, scenario)
    (record,) = caplog.records
    assert record.getMessage().startswith("an answer is incomplete")
    assert record.exc_info


# -- the request's body ----------------------------------------------------------------------------


CHUNKED: dict[str, str | None] = {
    "content-length": None,
    "transfer-encoding": "chunked",
    "connection": "close",
}
BODIES = {
    "none": (
        request("/", method="GET", headers={"content-length": None, "connection": "close"}),
        b"",
    ),
    "of a known length": (
        request("/", b"x" * 200_000, headers={"connection": "close"}),
        b"x" * 200_000,
    ),
    "chunked": (request("/", b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n", headers=CHUNKED), b"one two"),
    "with trailers": (
        request("/", b"3\r\none\r\n0\r\nx-sum: 1\r\n\r\n", headers=CHUNKED | {"trailer": "x-sum"}),
        b"one",
    ),
    "cut off": (request("/", b"one", headers={"content-length": "7", "connection": "close"}), None),
    "cut off in a chunk": (request("/", b"9\r\none", headers=CHUNKED), None),
    "not in chunks": (request("/", b"3\r\none\r\nzz\r\n", headers=CHUNKED), None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_whole_or_its_client_left(served: Served, name: str) -> None:
    """A body that broke off is never taken for a shorter one."""
    sent, expected = BODIES[name]
    found: list[bytes | None] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        found.append(body if message["type"] == "http.request" else None)
        await send(START)
        await send(part(b"", more=False))

    async def scenario(client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(sent)
        if name.startswith("cut off"):
            writer.write_eof()
        await until(lambda: found)
        await reader.read()
        writer.close()

    served.run(app, scenario)
    assert found == [expected]


def test_a_cancelled_receive_misses_no_part(served: Served) -> None:
    """An app that stops waiting, and asks again, gets what arrived in between."""
    found: list[bytes] = []
    waits = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        impatient = asyncio.create_task(receive())
        await asyncio.sleep(0)
        impatient.cancel()
        waits.set()
        found.extend([first["body"], (await receive())["body"]])
        await send(START)
        await send(part(b"", more=False))

    async def scenario(client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(request("/", b"one", headers={"content-length": "7", "connection": "close"}))
        await waits.wait()
        writer.write(b" two")
        await reader.read()
        writer.close()

    served.run(app, scenario)
    assert found == [b"one", b" two"]


def test_a_body_that_is_not_read_holds_nothing_up(served: Served) -> None:
    """The answer is sent before the body arrives."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        listener = asyncio.create_task(disconnected(receive))
        await asyncio.sleep(0)
        await send(START)
        await send(part(b"enough", more=False))
        assert await listener

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await raw(client, request("/", b"x", headers={"content-length": "100"}))).endswith(
            b"enough"
        )

    served.run(app, scenario)


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is the case."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  it is set by granian's threads and by apps
            await asyncio.sleep(0.005)


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
