"""Clients of other model servers, unchanged: only the address is Halfcore's."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from support.bundles import MIXED, write_bundle
from support.serving import Server, serving

NAMES = ["x0", "x1", "x2", "x3"]
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [1.0, 2.0, 3.0, 4.0]])


@pytest.fixture(scope="module", params=["true", "false"], ids=["hot lane", "ASGI"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A real server, over both of its lanes."""
    root: Path = tmp_path_factory.mktemp("bundles")
    write_bundle(root)
    write_bundle(root, "mixed", inputs=MIXED)
    with serving(root, default_model="numbers", hot_lane=request.param) as running:
        yield running


@pytest.fixture
def labels(server: Server) -> list[str]:
    """The answers of the simplest route."""
    import httpx

    answer = httpx.post(f"http://127.0.0.1:{server.port}/predict", json={"features": ROWS.tolist()})
    found: list[str] = answer.json()["prediction"]
    return found


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType.*:UserWarning")
def test_mlflow_s_scoring_client(server: Server, labels: list[str]) -> None:
    """The client that `mlflow models serve` and Spark use."""
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient  # takes seconds

    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(timeout=60)
    assert client.get_version()

    for data in (pd.DataFrame(ROWS, columns=NAMES), ROWS):
        answer = client.invoke(data)
        assert answer.get_predictions()[0].tolist() == labels


def test_mlflow_s_deployments(server: Server, labels: list[str]) -> None:
    """`mlflow.deployments` with its `predict`."""
    from mlflow.deployments import get_deploy_client

    client = get_deploy_client(f"http://127.0.0.1:{server.port}")
    frame = pd.DataFrame(ROWS, columns=NAMES).to_dict(orient="split")
    del frame["index"]
    answer = client.predict(endpoint="numbers", inputs={"dataframe_split": frame})
    assert answer == {"predictions": labels}


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    """Triton's, closed by its own thread: one that the garbage collector closes, it may close in a
    thread of gevent, where that fails."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_triton_s_client(
    client: Any, labels: list[str], binary_in: bool, binary_out: bool | None
) -> None:
    """One tensor of numbers, with and without binary data."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("numbers")
    assert client.get_model_metadata("numbers")["inputs"]
    tensor = triton.InferInput("input", [2, 4], "FP32")
    tensor.set_data_from_numpy(ROWS.astype(np.float32), binary_data=binary_in)
    outputs = None
    if binary_out is not None:
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("label", "probabilities")
        ]

    answer = client.infer("numbers", [tensor], outputs=outputs, request_id="7")

    found = [_text(label) for label in answer.as_numpy("label")]
    assert found == labels
    assert answer.as_numpy("probabilities").shape == (2, 3)
    assert answer.get_response()["id"] == "7"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_s_client_compresses(
    client: Any, labels: list[str], algorithm: str, binary: bool
) -> None:
    """Its requests, which are expanded; it asks for compressed answers too, and accepts others."""
    tensor = triton.InferInput("input", [2, 4], "FP64")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)

    answer = client.infer(
        "numbers",
        [tensor],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )

    assert [_text(label) for label in answer.as_numpy("label")] == labels


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_with_columns(client: Any, binary: bool) -> None:
    """One tensor per column, texts among them."""
    columns: dict[str, tuple[str, Any]] = {
        "island": ("BYTES", np.array([b"Dream"], dtype=object)),
        "mass": ("FP32", np.array([4000], np.float32)),
        "count": ("INT64", np.array([3])),
        "sex": ("BYTES", np.array([b"MALE"], dtype=object)),
        "zone": ("INT64", np.array([20])),
        "wet": ("BOOL", np.array([False])),
    }
    tensors = []
    for name, (datatype, values) in columns.items():
        tensor = triton.InferInput(name, [1], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    assert client.infer("mixed", tensors).as_numpy("label").shape == (1,)


def test_triton_s_client_gets_the_error(client: Any) -> None:
    """As an exception with the message."""
    tensor = triton.InferInput("input", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match=r"Expected \[-1,4\], got \[1,3\]"):
        client.infer("numbers", [tensor])


def test_many_triton_requests_at_once(server: Server, labels: list[str]) -> None:
    """Each gets its own answer."""
    wrong: list[Any] = []

    def ask() -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            for i in range(20):
                tensor = triton.InferInput("input", [1, 4], "FP64")
                tensor.set_data_from_numpy(ROWS[i % 2 : i % 2 + 1])
                found = _text(client.infer("numbers", [tensor]).as_numpy("label")[0])
                if found != labels[i % 2]:
                    wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
