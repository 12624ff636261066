"""`GET /metrics` for Prometheus."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Response, get

from halfcore.metrics.exposition import CONTENT_TYPE


def routes(text: Callable[[], Awaitable[bytes]]) -> list[Any]:
    """`/metrics`: the metrics of all workers, whichever of them answers; `text` makes them."""

    @get(
        "/metrics",
        media_type=CONTENT_TYPE,
        summary="Metrics in the Prometheus text format",
    )
    async def show() -> Response[bytes]:
        return Response(await text(), media_type=CONTENT_TYPE)

    return [show]
