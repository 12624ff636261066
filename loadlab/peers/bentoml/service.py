"""BentoML. Documented: an API of its quickstart. Tuned: adaptive batching, no metrics, no logs."""

import bentoml
import numpy as np
from graph import TUNED, Graph

SERVICE = {"workers": 1}
API = {}
if TUNED:
    SERVICE |= {
        "metrics": {"enabled": False},
        "monitoring": {"enabled": False},
        "logging": {"access": {"enabled": False}},
        "runner_probe": {"enabled": False},
    }
    API = {"batchable": True, "max_batch_size": 1024, "max_latency_ms": 10000}


@bentoml.service(**SERVICE)
class Model:
    """One method: rows in, an answer for each row out."""

    def __init__(self) -> None:
        self.graph = Graph()

    @bentoml.api(**API)
    def predict(self, rows: np.ndarray) -> list[dict]:
        """What the graph says to each row; requests that wait are put together by BentoML."""
        labels, probabilities = (output.tolist() for output in self.graph.run(rows))
        return [
            {"label": label, "probabilities": each}
            for label, each in zip(labels, probabilities, strict=True)
        ]
