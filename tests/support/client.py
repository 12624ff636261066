"""The app under plain ASGI, without a server or a socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from litestar import Litestar
from prometheus_client.parser import text_string_to_metric_families

from halfcore.settings.groups import Settings
from halfcore.worker import Worker


@asynccontextmanager
async def app_client(bundles: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app that serves these bundles, its lifespan run around the block."""
    app = Worker(Settings(bundles=bundles, log_level="error", **settings)).app
    started, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        # In a task of its own: the lifespan holds a task group, and pytest ends a fixture in
        # another task than it began it in.
        async with app.lifespan():
            started.set()
            await stop.wait()

    lifespan = asyncio.create_task(live())
    await asyncio.wait(
        (lifespan, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED
    )
    try:
        async with httpx.AsyncClient(transport=transport_of(app), base_url="http://test") as client:
            yield client
    finally:
        stop.set()
        await lifespan


def transport_of(app: Litestar) -> httpx.ASGITransport:
    """httpx's way into an app; each library has a type of its own for the same ASGI callable."""
    return httpx.ASGITransport(app)  # type: ignore[arg-type]


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Every sample of /metrics: (name, label values in order of their names) → value."""
    return parsed((await client.get("/metrics")).text)


async def until(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], Any]) -> Any:
    """Ask until the answer is a wanted one, and return it."""
    async with asyncio.timeout(60):
        # The state is the server's, behind HTTP
        while not wanted(answer := await ask()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return answer


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait for something to be true of another process, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """Samples of a text in the Prometheus format; fails if it is not one."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
