"""The parameters of inputs and outputs, which inference.proto does not declare."""

import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from halfcore.problem import Problem
from halfcore.rpc.parameters import of_outputs


def asking(*counts: int | None) -> ModelInferRequest:
    """A request for as many outputs, with a number of classes or without."""
    request = ModelInferRequest(model_name="a")
    for number, count in enumerate(counts):
        output = request.outputs.add(name=f"o{number}")
        output.parameters["binary_data"].bool_param = True
        if count is not None:
            output.parameters["classification"].int64_param = count
    return request


def test_each_output_has_its_own() -> None:
    """In their order, and only those that matter; a request without them is not read."""
    sent = asking(None, 3, None, -1).SerializeToString()
    assert list(of_outputs(sent)) == [{}, {"classification": 3}, {}, {"classification": -1}]
    assert list(of_outputs(asking(None, None).SerializeToString())) == []


def test_a_parameter_without_a_value_is_none() -> None:
    """As null is over HTTP."""
    request = asking(1)
    request.outputs[0].parameters["classification"].Clear()
    assert list(of_outputs(request.SerializeToString())) == [{"classification": None}]


def test_a_part_of_another_wire_type_is_passed_over_as_protobuf_does() -> None:
    """A number in the place of an output, of parameters or of a key is no field of the message."""
    sent = asking(3).SerializeToString()
    for number in (b"\x30\x01", b"\x28\x01"):
        assert list(of_outputs(number + sent)) == [{"classification": 3}]
    output = asking(3).outputs[0].SerializeToString() + b"\x10\x07\x08\x07"
    assert list(of_outputs(b"\x32" + bytes([len(output)]) + output)) == [{"classification": 3}]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (b"\x08\x01" * 20_000 + b"classification", "more than 20000 parts"),
        (b"\x12\x10\x0a\x0eclassification\x08", "not a message of this call"),
        (b"\x12\x14\x0a\x0eclassification\x12\x02\x0a\x09", "not a message of this call"),
        (b"\x12\x14\x0a\x0eclassification\x12\x09\x10\x03", "not a message of this call"),
        (b"\x12\x10\x0a\x7fclassification", "not a message of this call"),
        (b"\x0a\x0eclassification\x12\x09", "not a message of this call"),
    ],
    ids=[
        "very many parts",
        "cut off",
        "another value",
        "a value cut off",
        "a key cut off",
        "parameters cut off",
    ],
)
def test_what_cannot_be_read_is_refused(parameters: bytes, sentence: str) -> None:
    """400, before it takes much time or memory."""
    length = bytes((len(parameters) & 127 | 128, len(parameters) >> 7 & 127 | 128))
    length += bytes((len(parameters) >> 14,))
    with pytest.raises(Problem, match=sentence) as caught:
        list(of_outputs(b"\x32" + length + parameters))
    assert caught.value.status == 400
