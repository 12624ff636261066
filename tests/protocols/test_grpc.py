"""The inference protocol over gRPC: Triton's client unchanged, plain stubs, refusals, and the
end."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from halfcore.rpc.messages import message
from support.bundles import MIXED, write_bundle
from support.client import parsed, wait_until
from support.serving import Server, free_port, serving

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [1.0, 2.0, 3.0, 4.0]])
MOST_BYTES = 100_000
COLUMNS: dict[str, tuple[str, Any]] = {
    "island": ("BYTES", np.array([b"Dream"], dtype=object)),
    "mass": ("FP32", np.array([np.nan], np.float32)),
    "count": ("INT64", np.array([3])),
    "sex": ("BYTES", np.array([b"MALE"], dtype=object)),
    "zone": ("INT64", np.array([20])),
    "wet": ("BOOL", np.array([False])),
}
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
HEALTH = "/grpc.health.v1.Health/Check"


class Running(NamedTuple):
    """A server, and where it listens for gRPC."""

    server: Server
    address: str

    def http(self, path: str, document: Any = None) -> httpx.Response:
        """Ask over HTTP."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        return httpx.get(url) if document is None else httpx.post(url, json=document)

    def metric(self, *sample: str) -> float:
        """A sample of /metrics; 0 if it is not there."""
        return parsed(self.http("/metrics").text).get(sample, 0.0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a challenger, because of which requests have ids."""
    root: Path = tmp_path_factory.mktemp("bundles")
    write_bundle(root, created_at="2026-02-02T00:00:00Z")
    write_bundle(root, version="2", classes=["c", "b", "a"])
    write_bundle(root, "mixed", inputs=MIXED)
    write_bundle(root, "sum", task="regression", dtype="float64")
    return root


@pytest.fixture(scope="module")
def running(bundles: Path) -> Iterator[Running]:
    """One server for all tests that do not end it."""
    port = free_port()
    limits = {"max_body_bytes": MOST_BYTES, "max_rows": 100, "body_timeout_s": 1}
    with serving(
        bundles,
        default_model="numbers",
        challengers="numbers=version:2",
        grpc_port=port,
        **limits,
    ) as server:
        yield Running(server, f"127.0.0.1:{port}")


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    """A connection of its own."""
    with grpc.insecure_channel(running.address, [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    """A client as protoc generates it."""
    return GRPCInferenceServiceStub(channel)


def typed(datatype: str = "FP64", rows: Any = ROWS, model: str = "numbers") -> Any:
    """A request of one tensor with typed contents."""
    request = ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="input", datatype=datatype, shape=np.shape(rows))
    getattr(tensor.contents, CONTENTS[datatype]).extend(np.ravel(rows).tolist())
    return request


def over_http(running: Running, rows: Any, model: str = "numbers") -> dict[str, Any]:
    """The same rows over HTTP: output → values."""
    tensor = {"name": "input", "shape": np.shape(rows), "datatype": "FP64"}
    document = {"inputs": [tensor | {"data": np.ravel(rows).tolist()}]}
    answer = running.http(f"/v2/models/{model}/infer", document).json()
    return {output["name"]: output["data"] for output in answer["outputs"]}


# -- clients ---------------------------------------------------------------------------------------


def test_triton_s_client(running: Running) -> None:
    """What it asks before a prediction, and a prediction of raw tensors with an id and outputs."""
    with triton.InferenceServerClient(running.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("numbers")
        assert client.is_model_ready("numbers", "1")
        assert client.get_server_metadata().name == "Halfcore"
        described = client.get_model_metadata("mixed")
        assert [(tensor.name, tensor.datatype) for tensor in described.inputs] == [
            ("island", "BYTES"),
            ("mass", "FP32"),
            ("count", "INT64"),
            ("sex", "BYTES"),
            ("zone", "INT64"),
            ("wet", "BOOL"),
        ]
        models = client.get_model_repository_index().models
        assert {(model.name, model.state) for model in models} == {
            ("numbers", "READY"),
            ("mixed", "READY"),
            ("sum", "READY"),
        }
        tensor = triton.InferInput("input", [2, 4], "FP32")
        tensor.set_data_from_numpy(ROWS.astype(np.float32))
        outputs = [triton.InferRequestedOutput(name) for name in ("predict_proba", "label")]
        answer = client.infer("numbers", [tensor], outputs=outputs, request_id="7")
        expected = over_http(running, ROWS)
        assert [label.decode() for label in answer.as_numpy("label")] == expected["label"]
        found = answer.as_numpy("predict_proba")
        assert found.ravel().tolist() == pytest.approx(expected["probabilities"])
        assert found.shape == (2, 3)
        response = answer.get_response()
        assert [output.name for output in response.outputs] == ["predict_proba", "label"]
        assert (response.id, response.model_name, response.model_version) == ("7", "numbers", "1")


def test_the_most_probable_classes(running: Running, stub: Any) -> None:
    """As Triton's client asks for them, in raw and in typed contents."""
    probabilities = over_http(running, ROWS)["probabilities"]
    order = sorted(range(3), key=lambda index: -probabilities[index])
    with triton.InferenceServerClient(running.address) as client:
        tensor = triton.InferInput("input", [2, 4], "FP32")
        tensor.set_data_from_numpy(ROWS.astype(np.float32))
        output = triton.InferRequestedOutput("probabilities", class_count=2)
        found = client.infer("numbers", [tensor], outputs=[output]).as_numpy("probabilities")
    assert found.shape == (2, 2)
    assert [int(text.split(b":")[1]) for text in found[0]] == order[:2]
    response = stub.ModelInfer(with_classes("probabilities", int64_param=2))
    assert list(response.outputs[0].contents.bytes_contents) == found.ravel().tolist()


def test_triton_s_client_with_columns(running: Running) -> None:
    """One tensor per column: texts, a null, integers, a boolean."""
    tensors = []
    for name, (datatype, values) in COLUMNS.items():
        tensor = triton.InferInput(name, [1], datatype)
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    record = {"island": "Dream", "mass": None, "count": 3, "sex": "MALE", "zone": 20, "wet": False}
    expected = running.http("/models/mixed/predict", record).json()["prediction"]
    with triton.InferenceServerClient(running.address) as client:
        answer = client.infer("mixed", tensors)
        assert answer.as_numpy("label").tolist() == [expected.encode()]
        with pytest.raises(InferenceServerException, match="Missing: wet"):
            client.infer("mixed", tensors[:-1])


@pytest.mark.parametrize("datatype", [name for name in CONTENTS if name not in ("BOOL", "BYTES")])
def test_typed_contents_of_every_number_s_type(running: Running, stub: Any, datatype: str) -> None:
    """The answer is that of the same rows over HTTP, and typed as well."""
    rows = ROWS if datatype.startswith("FP") else np.array([[1, 2, 3, 4], [9, 8, 7, 6]])
    answer = stub.ModelInfer(typed(datatype, rows))
    label, probabilities = answer.outputs
    expected = over_http(running, rows)
    assert not answer.raw_output_contents
    assert [text.decode() for text in label.contents.bytes_contents] == expected["label"]
    assert list(probabilities.contents.fp32_contents) == pytest.approx(expected["probabilities"])
    assert list(probabilities.shape) == [2, 3]


def test_typed_contents_of_columns(stub: Any) -> None:
    """Texts and booleans, with one raw tensor among them: then the answer is raw."""
    request = ModelInferRequest(model_name="mixed")
    for name, (datatype, values) in COLUMNS.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(tensor.contents, CONTENTS[datatype]).extend(values.tolist())
    label, _ = stub.ModelInfer(request).outputs
    assert len(label.contents.bytes_contents) == 1

    request.inputs[2].ClearField("contents")
    request.raw_input_contents.append(np.array([3]).tobytes())
    answer = stub.ModelInfer(request)
    text = label.contents.bytes_contents[0]
    assert answer.raw_output_contents[0] == len(text).to_bytes(4, "little") + text


def test_a_regressor_answers_in_its_own_type(stub: Any) -> None:
    """`value`, FP64, exactly."""
    (value,) = stub.ModelInfer(typed(model="sum")).outputs
    assert (value.name, value.datatype) == ("value", "FP64")
    assert list(value.contents.fp64_contents) == ROWS.sum(axis=1).tolist()


def test_many_rows_of_a_long_message(running: Running, stub: Any) -> None:
    """It is decoded in slices, and row i gets answer i."""
    rows = np.arange(400, dtype=np.float64).reshape(100, 4) % 10
    (value,) = stub.ModelInfer(typed(rows=rows, model="sum")).outputs
    assert list(value.contents.fp64_contents) == rows.sum(axis=1).tolist()


# -- what is shared with HTTP ----------------------------------------------------------------------


def test_a_call_is_counted_and_has_its_id(running: Running, stub: Any) -> None:
    """In the same metrics, by the outcome; the id is returned as over HTTP, with an answer and with
    a refusal."""
    counted = ("halfcore_requests_total", "numbers", "200", "predict")
    refused = ("halfcore_requests_total", "numbers", "bad_request", "predict")
    before = running.metric(*counted), running.metric(*refused)
    metadata = [("x-request-id", "order-4711")]

    answer, call = stub.ModelInfer.with_call(typed(), metadata=metadata)
    assert answer.model_version == "1"
    assert ("x-request-id", "order-4711") in call.trailing_metadata()
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(typed(rows=ROWS[:, :3]), metadata=metadata)
    assert ("x-request-id", "order-4711") in raised.value.trailing_metadata()

    assert (running.metric(*counted), running.metric(*refused)) == (before[0] + 1, before[1] + 1)


def changed(**changes: Any) -> Any:
    """A right request with changed fields."""
    request = typed()
    for name, value in changes.items():
        setattr(request if hasattr(request, name) else request.inputs[0], name, value)
    return request


def without_values() -> Any:
    """A request whose tensor has neither contents nor raw contents."""
    request = typed()
    request.inputs[0].ClearField("contents")
    return request


def with_raw(*parts: bytes) -> Any:
    """The same with these raw contents."""
    request = without_values()
    request.raw_input_contents.extend(parts)
    return request


def of_wrong_type() -> Any:
    """Integers in a tensor that says it has floats."""
    request = typed("INT32", ROWS.astype(int))
    request.inputs[0].datatype = "FP32"
    return request


def with_output(name: str) -> Any:
    """A request for one output."""
    request = typed()
    request.outputs.add(name=name)
    return request


def with_parameter(**value: Any) -> Any:
    """A request with the parameter `timeout`."""
    request = typed()
    for kind, given in value.items():
        setattr(request.parameters["timeout"], kind, given)
    return request


def with_outputs_twice() -> Any:
    """A request for an output, twice."""
    request = with_output("label")
    request.outputs.add(name="label")
    return request


def with_shared_memory(part: str) -> Any:
    """A request with an input, or an output, that says it is in shared memory."""
    request = with_output("label")
    tensor = request.inputs[0] if part == "inputs" else request.outputs[0]
    tensor.parameters["shared_memory_region"].string_param = "r"
    return request


def with_classes(name: str, **count: Any) -> Any:
    """A request for the most probable classes of an output."""
    request = with_output(name)
    for kind, given in count.items():
        setattr(request.outputs[0].parameters["classification"], kind, given)
    return request


REFUSALS: dict[str, tuple[Any, str, str]] = {
    "another model": (changed(model_name="none"), "NOT_FOUND", "expected one of mixed, numbers"),
    "no model": (changed(model_name=""), "NOT_FOUND", "expected one of mixed, numbers"),
    "another version": (changed(model_version="9"), "NOT_FOUND", "version '9' is not found"),
    "another shape": (typed(rows=ROWS[:, :3]), "INVALID_ARGUMENT", r"Expected \[-1,4\]"),
    "booleans for numbers": (typed("BOOL", ROWS > 2), "INVALID_ARGUMENT", '"x0" is true'),
    "a value out of range": (typed(rows=ROWS * 9e99), "INVALID_ARGUMENT", "x0"),
    "another datatype": (changed(datatype="FP16"), "INVALID_ARGUMENT", "raw_input_contents"),
    "an unknown datatype": (changed(datatype="FP128"), "INVALID_ARGUMENT", "FP128"),
    "no values": (without_values(), "INVALID_ARGUMENT", "has 0 values, expected 8"),
    "no input": (ModelInferRequest(model_name="numbers"), "INVALID_ARGUMENT", "4 inputs but got 0"),
    "values of another type": (of_wrong_type(), "INVALID_ARGUMENT", "expected fp32_contents"),
    "too few raw bytes": (with_raw(bytes(56)), "INVALID_ARGUMENT", "has 7 values, expected 8"),
    "a raw tensor too many": (with_raw(bytes(64), b""), "INVALID_ARGUMENT", "2 raw_input_contents"),
    "another output": (with_output("odds"), "INVALID_ARGUMENT", "inference output 'odds'"),
    "an output twice": (with_outputs_twice(), "INVALID_ARGUMENT", "asked for twice"),
    "a negative timeout": (with_parameter(int64_param=-1), "INVALID_ARGUMENT", "timeout is -1"),
    "a timeout in words": (with_parameter(string_param="1"), "INVALID_ARGUMENT", "timeout is 1"),
    "a timeout that passed": (with_parameter(int64_param=1), "DEADLINE_EXCEEDED", "deadline"),
    "an input in shared memory": (
        with_shared_memory("inputs"),
        "INVALID_ARGUMENT",
        "input 'input': parameters.shared_memory_region is not supported",
    ),
    "an output in shared memory": (
        with_shared_memory("outputs"),
        "INVALID_ARGUMENT",
        "output 'label': parameters.shared_memory_region is not supported",
    ),
    "classes of labels": (
        with_classes("label", int64_param=2),
        "INVALID_ARGUMENT",
        "parameters.classification is 2, expected it for the output probabilities alone",
    ),
    "classes in words": (
        with_classes("probabilities", string_param="all"),
        "INVALID_ARGUMENT",
        "parameters.classification is all, expected how many",
    ),
    "too many rows": (typed(rows=np.ones((101, 4))), "INVALID_ARGUMENT", "100"),
    "a long message": (with_raw(bytes(MOST_BYTES)), "RESOURCE_EXHAUSTED", "larger than max"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_wrong_request_gets_a_status_and_a_sentence(
    running: Running, stub: Any, name: str
) -> None:
    """And the next one is answered."""
    request, status, sentence = REFUSALS[name]
    with pytest.raises(grpc.RpcError, match=sentence) as raised:
        stub.ModelInfer(request)
    assert raised.value.code().name == status
    assert len(stub.ModelInfer(typed()).outputs) == 2


@pytest.mark.parametrize("body", [b"{}", b"\x0a\x07num", b"\x2a\x00" * 20_001, b"\x0a\x07numbers*"])
def test_bytes_that_are_no_request(channel: grpc.Channel, body: bytes) -> None:
    """Are refused as such."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as raised:
        call(body)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_part_that_protobuf_passes_over_is_passed_over(channel: grpc.Channel) -> None:
    """A number in the place of an output does not count as one."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    request = with_classes("probabilities", int64_param=2).SerializeToString()
    assert call(request + b"\x30\x01") == call(request)


def test_a_call_without_a_message_is_refused(channel: grpc.Channel) -> None:
    """As is one whose message does not arrive in time."""
    path = "/inference.GRPCInferenceService/ModelInfer"
    with pytest.raises(grpc.RpcError) as raised:
        channel.stream_unary(path)(iter(()))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    late = channel.stream_stream(path)(_never())
    with pytest.raises(grpc.RpcError, match="did not arrive within 1 s") as raised:
        next(late)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def _never() -> Iterator[bytes]:
    """Requests that do not arrive while anybody waits for them."""
    threading.Event().wait(3)
    yield b""


def test_an_unknown_call_is_unimplemented(stub: Any, running: Running) -> None:
    """As the protocol asks."""
    with (
        triton.InferenceServerClient(running.address) as client,
        pytest.raises(InferenceServerException, match="UNIMPLEMENTED"),
    ):
        client.get_inference_statistics("numbers")


def test_a_compressed_message_is_refused_without_expanding_it(running: Running, stub: Any) -> None:
    """A few kilobytes could otherwise take any amount of memory."""
    before = _peak_kb(running)
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(with_raw(bytes(30_000_000)), compression=grpc.Compression.Gzip)
    assert _peak_kb(running) - before < 15_000
    assert len(stub.ModelInfer(typed()).outputs) == 2


def _peak_kb(running: Running) -> int:
    status = Path(f"/proc/{running.server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    ("service", "status"),
    [("", 1), ("live", 1), ("inference.GRPCInferenceService", 1), ("numbers", 1), ("none", None)],
)
def test_the_health_check_of_kubernetes(
    channel: grpc.Channel, service: str, status: int | None
) -> None:
    """SERVING; an unknown service is NOT_FOUND."""
    request = message("grpc.health.v1.HealthCheckRequest")(service=service)
    check = channel.unary_unary(
        HEALTH,
        request_serializer=type(request).SerializeToString,
        response_deserializer=message("grpc.health.v1.HealthCheckResponse").FromString,
    )
    if status is not None:
        assert check(request).status == status
        return
    with pytest.raises(grpc.RpcError) as raised:
        check(request)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


# -- start and end ---------------------------------------------------------------------------------


def test_a_deadline_empties_the_queue_and_the_end_waits_for_accepted_calls(bundles: Path) -> None:
    """Rows wait for a second here, so a call can be seen in the queue."""
    port = free_port()
    with (
        serving(
            bundles,
            default_model="numbers",
            grpc_port=port,
            max_queue_delay_ms=1000,
            solo_after_ms=0,
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        running = Running(server, f"127.0.0.1:{port}")
        stub = GRPCInferenceServiceStub(channel)
        answered = ("halfcore_requests_total", "numbers", "200", "predict")
        for _ in range(5):  # the machine may be too slow to see it
            before = running.metric(*answered)
            call = _queued(running, stub)
            call.cancel()
            wait_until(lambda: running.metric("halfcore_queued_rows", "numbers") == 0)
            if running.metric(*answered) == before:
                break
        else:
            pytest.fail("five cancelled calls were run")
        rows = running.metric("halfcore_batch_rows_sum", "numbers")
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(typed(), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Either notices it first: the server, or the client, which then leaves.
        late = ("deadline_exceeded", "client_left")
        counted = [("halfcore_requests_total", "numbers", outcome, "predict") for outcome in late]
        wait_until(lambda: sum(running.metric(*name) for name in counted) >= 2)
        assert running.metric("halfcore_batch_rows_sum", "numbers") == rows

        call = _queued(running, stub)
        server.process.send_signal(signal.SIGTERM)
        assert len(call.result().outputs) == 2
        assert server.process.wait(90) == 0
        assert server.process.stderr is not None
        log = server.process.stderr.read()
        assert f"gRPC on 127.0.0.1:{port}" in log
        assert "drained: every accepted request was answered" in log
        assert "Traceback" not in log


def _queued(running: Running, stub: Any) -> Any:
    """A call whose row is in the queue."""
    while True:
        call = stub.ModelInfer.future(typed())
        while not call.done():
            if running.metric("halfcore_queued_rows", "numbers"):
                return call


@pytest.mark.slow
def test_nothing_is_loaded_unless_a_port_is_set(bundles: Path, running: Running) -> None:
    """HTTP pays nothing for it: the library is not in the process."""
    with serving(bundles, default_model="numbers") as server:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "onnxruntime" in maps
        assert "cygrpc" not in maps
    assert "cygrpc" in Path(f"/proc/{running.server.process.pid}/maps").read_text()


@pytest.mark.slow
def test_workers_share_the_port(bundles: Path) -> None:
    """Each connection is some worker's; together they count every call."""
    port = free_port()
    with serving(bundles, default_model="numbers", grpc_port=port, workers=2) as server:
        running = Running(server, f"127.0.0.1:{port}")
        for _ in range(30):
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(running.address, options) as channel:
                assert len(GRPCInferenceServiceStub(channel).ModelInfer(typed()).outputs) == 2
        sample = ("halfcore_requests_total", "numbers", "200", "predict")
        wait_until(lambda: running.metric(*sample) == 30)
        assert server.stop() == 0


def test_a_server_without_memory_for_a_message_is_overloaded(bundles: Path) -> None:
    """RESOURCE_EXHAUSTED with `retry-after`, as for every other load that it does not take."""
    port = free_port()
    limits = {"max_bytes_in_flight": 20_000, "grpc_port": port}
    with (
        serving(bundles, default_model="numbers", **limits) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with pytest.raises(grpc.RpcError, match="no memory for more large requests") as raised:
            GRPCInferenceServiceStub(channel).ModelInfer(with_raw(bytes(40_000)))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ("retry-after", "1") in raised.value.trailing_metadata()
        sample = ("halfcore_requests_total", "", "too_many_bytes", "predict")
        assert Running(server, "").metric(*sample) == 1


@pytest.mark.slow
def test_an_overloaded_server_says_so(bundles: Path) -> None:
    """RESOURCE_EXHAUSTED with `retry-after`, before the message is read; every other call is
    answered."""
    port = free_port()
    with (
        serving(bundles, default_model="numbers", grpc_port=port, max_in_flight=1) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(typed()) for _ in range(200)]
        outcomes: dict[str, int] = {}
        for call in calls:
            code = call.code()
            outcomes[code.name] = outcomes.get(code.name, 0) + 1
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                assert ("retry-after", "1") in call.trailing_metadata()
        assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}
        assert outcomes["OK"] >= 1
        running = Running(server, "")
        refused = running.metric("halfcore_requests_total", "", "overloaded", "predict")
        assert refused == outcomes.get("RESOURCE_EXHAUSTED", 0)
