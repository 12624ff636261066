"""A client that says how long it waits is answered by then, in its protocol's form, and its rows
are not run any more."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from halfcore.predict.deadline import HEADER
from support.bundles import write_bundle
from support.client import parsed
from support.processes import connect, status
from support.serving import Server, receive, request, serving

GOOD = b'{"features":[1,2,3,4.5]}'
MANY = b"[" + b",".join([b'{"x0":1,"x1":2,"x2":3,"x3":4}'] * 100) + b"]" + b" " * 20_000
"""Less than a batch, and long enough to be decoded in slices."""
INSTANCES = b'{"instances":[[1,2,3,4.5]]}'
TENSOR = b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32","data":[1,2,3,4.5]}]%b}'
TRITON = TENSOR % b',"parameters":{"timeout":%b}'
BINARY = (
    b'{"inputs":[{"name":"i","shape":[1,4],"datatype":"FP32",'
    b'"parameters":{"binary_data_size":16}}],"parameters":{"timeout":20000}}'
)
CHUNKED = {"content-length": None, "transfer-encoding": "chunked"}
SHORT = {HEADER: "20"}
BYTES = {"inference-header-content-length": str(len(BINARY))}
LATE = {
    "a row": request("/predict", GOOD, headers=SHORT),
    "a body in chunks": request("/predict", headers=CHUNKED | SHORT)
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
    "many rows": request("/models/numbers/predict", MANY, headers=SHORT),
    "MLflow's protocol": request("/invocations", INSTANCES, headers=SHORT),
    "KServe's protocol": request("/v1/models/numbers:predict", INSTANCES, headers=SHORT),
    "the inference protocol": request("/v2/models/numbers/infer", TENSOR % b"", headers=SHORT),
    "Triton's parameter": request("/v2/models/numbers/infer", TRITON % b"20000"),
    "Triton's parameter, binary": request(
        "/v2/models/numbers/infer", BINARY + b"\0\0\x80\x3f" * 4, headers=BYTES
    ),
}
IN_TIME = {
    "no deadline": request("/predict", GOOD),
    "a header": request("/predict", GOOD, headers={HEADER: "60000"}),
    "Triton's parameter, long": request("/v2/models/numbers/infer", TRITON % b"60000000"),
    "Triton's parameter, longer than a float": request(
        "/v2/models/numbers/infer", TRITON % (b"1" + b"0" * 400)
    ),
    "Triton's parameter, none": request("/v2/models/numbers/infer", TRITON % b"0"),
}
ERRORS = {"MLflow's protocol": "message", "a row": "detail", "a body in chunks": "detail"} | {
    "many rows": "detail"
}
"""The member of an answer that has the sentence; `error` in all others."""


@pytest.fixture(scope="module", params=["hot lane", "ASGI"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """Rows wait for a second here."""
    bundles = tmp_path_factory.mktemp("bundles")
    write_bundle(bundles)
    lane = request.param == "hot lane"
    with serving(bundles, hot_lane=lane, max_queue_delay_ms=1000, solo_after_ms=0) as server:
        yield server


def sample(server: Server, *name: str) -> float:
    """One sample of the server's metrics; 0 if it has none."""
    _, _, body = server.send(request("/metrics", method="GET")).partition(b"\r\n\r\n")
    return parsed(body.decode()).get(name, 0.0)


def all_at_once(server: Server, messages: Mapping[str, bytes]) -> dict[str, bytes]:
    """Send each on a connection of its own; return the answers."""
    # Its run is the end of what earlier requests scheduled: what follows waits for the whole second
    assert status(server.send(request("/predict", GOOD))) == 200
    with ExitStack() as stack:
        connections = {name: stack.enter_context(connect(server)) for name in messages}
        for name, connection in connections.items():
            connection.sendall(messages[name])
        return {name: receive(connection) for name, connection in connections.items()}


def test_late_requests_are_answered_with_504_and_not_run(server: Server) -> None:
    """They are counted by their outcome, and nothing of them stays in the queue; the others get
    their answers."""
    counted = ("halfcore_requests_total", "numbers", "deadline_exceeded", "predict")
    run = ("halfcore_batch_rows_sum", "numbers")
    before = sample(server, *counted), sample(server, *run)

    answers = all_at_once(server, LATE | IN_TIME)

    for name in LATE:
        assert status(answers[name]) == 504, name
        document = json.loads(answers[name].partition(b"\r\n\r\n")[2])
        assert "deadline passed" in document[ERRORS.get(name, "error")]
    assert [status(answers[name]) for name in IN_TIME] == [200] * len(IN_TIME)
    assert sample(server, *counted) == before[0] + len(LATE)
    assert sample(server, *run) == before[1] + len(IN_TIME) + 1
    assert sample(server, "halfcore_queued_rows", "numbers") == 0


@pytest.mark.parametrize("wrong", ["", "0", "-1", "1.5", "50ms", "1" * 10, "soon"])
def test_a_wrong_header_is_named(server: Server, wrong: str) -> None:
    """In the form of the protocol."""
    for path, body in (("/predict", GOOD), ("/invocations", INSTANCES)):
        answer = server.send(request(path, body, headers={HEADER: wrong}))
        assert status(answer) == 400
        assert f"{HEADER} is '{wrong}'".encode() in answer


@pytest.mark.parametrize("wrong", [b"-1", b"true", b'"1"', b"1.5"])
def test_a_wrong_parameter_is_named(server: Server, wrong: bytes) -> None:
    """As any wrong value of the protocol."""
    answer = server.send(request("/v2/models/numbers/infer", TRITON % wrong))
    assert status(answer) == 400
    assert b"parameters.timeout is" in answer
