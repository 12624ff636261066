"""`GET /metrics` for Prometheus."""

from collections.abc import Callable
from typing import Any

from litestar import Response, get

from halfcore.metrics.exposition import CONTENT_TYPE


def routes(text: Callable[[], bytes]) -> list[Any]:
    """`/metrics`: the metrics of all workers, whichever of them answers; `text` makes them."""

    @get(
        "/metrics",
        sync_to_thread=False,
        media_type=CONTENT_TYPE,
        summary="Metrics in the Prometheus text format",
    )
    def show() -> Response[bytes]:
        return Response(text(), media_type=CONTENT_TYPE)

    return [show]
