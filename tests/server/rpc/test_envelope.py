"""Which model a serialized request is for, and which bytes are no request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfcore.problem import Problem
from halfcore.rpc.envelope import MOST_PARTS, Envelope, read
from halfcore.rpc.messages import message
from halfcore.rpc.wire import parsed

REQUEST = "inference.ModelInferRequest"


@given(
    model=st.text(max_size=40),
    version=st.text(max_size=5),
    raw=st.lists(st.binary(max_size=40), max_size=3),
)
def test_the_names_are_those_that_protobuf_reads(
    model: str, version: str, raw: list[bytes]
) -> None:
    """Whatever else is in the request."""
    request = message(REQUEST)(model_name=model, model_version=version, raw_input_contents=raw)
    request.inputs.add(name="x", datatype="FP32", shape=[1, -1])
    assert read(request.SerializeToString()) == Envelope(model, version)


@given(body=st.binary(max_size=60))
def test_what_protobuf_refuses_is_refused(body: bytes) -> None:
    """Either here, or when the message is read; never with another error."""
    try:
        read(body)
        parsed(REQUEST, body)
    except Problem as problem:
        status = problem.status
    else:
        return
    assert status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\x02\xff\xfe",
        b"\x0a" + b"\xff" * 11,
        b"\x0b",
        b"{}",
        b"\x09\x01",
        b"\x80",
    ],
)
def test_bytes_that_are_no_message_are_refused(body: bytes) -> None:
    """Cut off, not UTF-8, a length without an end, a group, JSON."""
    with pytest.raises(Problem, match="not a message of this call"):
        read(body)


def test_fields_of_other_types_are_passed_over() -> None:
    """A client may know more fields than the server."""
    unknown = b"\xf8\x01\x96\x01" + b"\xfd\x01abcd" + b"\xf9\x01abcdefgh"
    assert read(unknown + b"\x0a\x01m" + unknown) == Envelope("m", "")


@pytest.mark.parametrize("number", [1, 2])
def test_a_name_of_another_wire_type_is_passed_over_as_protobuf_does(number: int) -> None:
    """A number is no text, although its bytes may look like a model's name."""
    named = b"\x0a\x01m\x12\x013"
    for kind, value in ((0, b"\x41"), (1, b"penguins"), (5, b"iris")):
        other = bytes([number << 3 | kind]) + value
        for body in (other, named + other, other + named):
            request = parsed(REQUEST, body)
            assert read(body) == Envelope(request.model_name, request.model_version)


def test_a_request_of_very_many_parts_is_refused_before_it_is_parsed() -> None:
    """An empty input has two bytes, and protobuf's object of it many more."""
    with pytest.raises(Problem, match="more than 20000 parts"):
        read(b"\x2a\x00" * (MOST_PARTS + 1))
    assert read(b"\x2a\x00" * MOST_PARTS) == Envelope("", "")
