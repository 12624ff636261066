"""`GET /metrics` for Prometheus."""

from typing import Any

from litestar import Response, get

from halfcore.metrics.exposition import CONTENT_TYPE, Exposition


def routes(exposition: Exposition) -> list[Any]:
    """`/metrics`: the metrics of all workers, whichever of them answers."""

    @get(
        "/metrics",
        sync_to_thread=False,
        media_type=CONTENT_TYPE,
        summary="Metrics in the Prometheus text format",
    )
    def show() -> Response[bytes]:
        return Response(exposition.text(), media_type=CONTENT_TYPE)

    return [show]
