"""KServe's and TensorFlow Serving's older protocol: `POST /v1/models/NAME:predict`.

The body is that of MLflow's protocol with `instances` or `inputs`; errors are those of the
inference protocol.
"""

from halfcore.predict.admission import Head, check_head
from halfcore.predict.prediction import Answer
from halfcore.predict.protocols.inference import Inference
from halfcore.predict.protocols.mlflow import Scoring
from halfcore.problem import Problem


class Instances(Scoring):
    """See `protocol.Wire`."""

    offers_csv = False

    def check_head(self, head: Head, *, max_body_bytes: int) -> None:
        """Accept JSON."""
        check_head(head, max_body_bytes=max_body_bytes)

    def refusal(self, problem: Problem) -> Answer:
        """`{"error": …}`."""
        return Inference().refusal(problem)
