"""mosec. Documented: the worker of its first example, `json` of the standard library, no batching.

Tuned: batches of what waits, for at most the shortest time that can be asked for, and orjson.
Patient: the same with the time that mosec has chosen for batches, which saves CPU time.
"""

import sys

import orjson
from graph import PORT, SETTINGS, TUNED, Graph
from mosec import Server, Worker


class Model(Worker):
    """One request a call."""

    def __init__(self):
        super().__init__()
        self.graph = Graph()

    def forward(self, data):
        """The answer to one request."""
        return self.graph.answers([data["rows"]])[0]


class Batched(Model):
    """As many requests a call as wait."""

    def deserialize(self, data):
        """JSON by orjson."""
        return orjson.loads(data)

    def serialize(self, data):
        """JSON by orjson."""
        return orjson.dumps(data)

    def forward(self, data):
        """The answers to all of them."""
        return self.graph.answers([each["rows"] for each in data])


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--port", str(PORT)]
    if TUNED:
        sys.argv += ["--log-level", "warning", "--capacity", "20000"]
    server = Server()
    if TUNED:
        wait_ms = 10 if SETTINGS == "patient" else 1
        server.append_worker(Batched, num=1, max_batch_size=64, max_wait_time=wait_ms)
    else:
        server.append_worker(Model, num=1)
    server.run()
