"""Triton by PyTriton, whose wheel has the server with its backend for Python and no other.

Documented: the binding of its quickstart. Tuned: larger batches of what waits, no metrics, no gRPC.
"""

import os
import sys
import sysconfig

# Its interpreter has to be this one's library: another one of the machine has the same name.
if not os.environ.get("LD_LIBRARY_PATH"):
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606  this very program

import numpy as np
from graph import MODEL, PORT, SPARE_PORTS, TUNED, Graph
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    graph = Graph()

    @batch
    def infer(rows):
        """Both outputs of the graph."""
        labels, probabilities = graph.run(rows)
        return {"label": labels.reshape(-1, 1), "probabilities": probabilities}

    server = {"http_port": PORT, "http_address": "127.0.0.1"}
    server |= dict(zip(("grpc_port", "metrics_port"), SPARE_PORTS, strict=True))
    model = ModelConfig(max_batch_size=128)
    if TUNED:
        server |= {"allow_grpc": False, "allow_metrics": False, "log_verbose": 0}
        model = ModelConfig(max_batch_size=1024, batcher=DynamicBatcher())
    with Triton(config=TritonConfig(**server)) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=infer,
            inputs=[Tensor(name="rows", dtype=np.float32, shape=(graph.columns,))],
            outputs=[
                Tensor(name="label", dtype=np.int64, shape=(1,)),
                Tensor(name="probabilities", dtype=np.float32, shape=(graph.classes,)),
            ],
            config=model,
        )
        triton.serve()
