"""The server's image with gRPC, which it has only if it is built so."""

import os
import subprocess

import numpy as np
import tritonclient.grpc as triton

from support.containers import ROOT, await_ready, container, docker
from support.serving import free_port

TAG = "with-grpc"


def test_an_image_that_is_built_with_grpc_answers_a_call() -> None:
    """`just image server` as docs/protocols.md types it, with another tag and free ports."""
    environment = os.environ | {"SERVER_EXTRAS": "grpc", "TAG": TAG, "NAMESPACE": ""}
    subprocess.run(["just", "image", "server"], cwd=ROOT, env=environment, check=True)
    port, image = free_port(), f"halfcore:{TAG}"
    more = ("-p", f"127.0.0.1:{port}:8001", "-e", "HALFCORE_GRPC_PORT=8001", "--read-only")
    try:
        with container(*more, image=image) as (_, http):
            await_ready(http)
            rows = triton.InferInput("input", [1, 4], "FP64")
            rows.set_data_from_numpy(np.array([[5.1, 3.5, 1.4, 0.2]]))
            with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
                assert client.infer("iris", [rows]).as_numpy("label").tolist() == [b"setosa"]
    finally:
        docker("rmi", image)
