"""LitServe. Documented: the API of its quickstart. Tuned: batches, the queue by ZeroMQ, no log."""

import litserve
from graph import PORT, TUNED, Graph


class Model(litserve.LitAPI):
    """One request a call."""

    def setup(self, device):
        """In the worker's process."""
        self.graph = Graph()

    def decode_request(self, request):
        """Its rows."""
        return request["rows"]

    def predict(self, rows):
        """The answer to one request."""
        return self.graph.answers([rows])[0]

    def encode_response(self, output):
        """A JSON object."""
        return output


class Batched(Model):
    """As many requests a call as wait."""

    def batch(self, inputs):
        """All requests' rows."""
        return inputs

    def predict(self, rows):
        """The answers to all of them."""
        return self.graph.answers(rows)

    def unbatch(self, output):
        """One answer a request."""
        return output


if __name__ == "__main__":
    if TUNED:
        server = litserve.LitServer(
            Batched(max_batch_size=64, batch_timeout=0.005),
            accelerator="cpu",
            workers_per_device=1,
            fast_queue=True,
            disable_openapi_url=True,
        )
    else:
        server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    more = {"log_level": "warning", "access_log": False} if TUNED else {}
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, **more)
