"""Ray Serve on a local Ray. Documented: the deployment of its quickstart, one replica.

Tuned: dynamic batching, and what its guide to high throughput switches on: HAProxy instead of
the proxy in Python, and the settings behind `RAY_SERVE_THROUGHPUT_OPTIMIZED`. These are variables
that must be set before Ray is imported.
"""

import os
import resource
import signal

TUNED = os.environ["PEER_SETTINGS"] != "documented"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# By default a start leaves a token in the home directory, which later clusters of the user ask for.
os.environ["RAY_AUTH_MODE"] = "disabled"
# A single CPU starts all of Ray: its proxies are not ready in the time that they have by default.
os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
os.environ["RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S"] = "120"
if TUNED:
    os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "1"
    # 4,096 by default. HAProxy does not start if it may not open two and a half files a connection.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    os.environ["RAY_SERVE_HAPROXY_MAXCONN"] = str(min(20000, (files - 100) * 2 // 5))

import ray
from graph import PORT, Graph
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse


@serve.deployment(num_replicas=1)
class Model:
    """One request a call."""

    def __init__(self) -> None:
        self.graph = Graph()

    async def __call__(self, request: Request) -> JSONResponse:
        """The answer to one request."""
        return JSONResponse(self.graph.answers([(await request.json())["rows"]])[0])


@serve.deployment(num_replicas=1, max_ongoing_requests=10000)
class Batched:
    """As many requests a call as wait."""

    def __init__(self) -> None:
        self.graph = Graph()

    @serve.batch(max_batch_size=128, batch_wait_timeout_s=0.0)
    async def predict(self, requests: list) -> list:
        """The answers to all of them."""
        return self.graph.answers(requests)

    async def __call__(self, request: Request) -> JSONResponse:
        """The answer to one request."""
        return JSONResponse(await self.predict((await request.json())["rows"]))


if __name__ == "__main__":
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": PORT},
        logging_config={"enable_access_log": not TUNED},
    )
    serve.run((Batched if TUNED else Model).bind(), route_prefix="/predict")
    signal.pause()
