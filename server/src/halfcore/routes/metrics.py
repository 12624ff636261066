"""`GET /metrics` for Prometheus."""

from typing import Any

from litestar import Response, get

from halfcore.metrics import CONTENT_TYPE, Metrics


def routes(metrics: Metrics) -> list[Any]:
    """The metrics of this worker process."""

    @get("/metrics", sync_to_thread=False, media_type=CONTENT_TYPE, summary="Metrics in the Prometheus text format")
    def show() -> Response[bytes]:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return [show]
