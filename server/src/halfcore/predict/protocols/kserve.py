"""KServe's and TensorFlow Serving's older protocol: `POST /v1/models/NAME:predict`.

The body is that of MLflow's protocol with `instances` or `inputs`; errors are those of the
inference protocol.
"""

from collections.abc import Generator

from halfcore.models.served import LoadedModel
from halfcore.predict.admission import Head, check_length, check_not_encoded
from halfcore.predict.prediction import Answer
from halfcore.predict.protocols.inference import Inference
from halfcore.predict.protocols.mlflow import Scoring
from halfcore.predict.protocols.protocol import Call, Reserve
from halfcore.problem import Problem


class Instances(Scoring):
    """See `protocol.Wire`."""

    offers_csv = False
    answers_as_logged = False

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Accept a body of any content type: KServe's client sends JSON without one."""
        check_not_encoded(head)
        check_length(head, max_body_bytes=max_body_bytes)

    def read(
        self, model: LoadedModel, body: bytes, head: Head, reserve: Reserve
    ) -> Generator[None, None, Call]:
        """Read JSON, whatever its content type."""
        return (yield from super().read(model, body, head._replace(content_type=None), reserve))

    def refusal(self, problem: Problem) -> Answer:
        """`{"error": …}`."""
        return Inference().refusal(problem)
