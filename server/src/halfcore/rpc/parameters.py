"""Reads the parameters of the inputs and outputs of a serialized `ModelInferRequest`.

inference.proto does not declare them: as maps they would take twenty times their length in memory.
So they are read here, part by part, and only in a message that holds one of the names that matter.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from halfcore.predict.protocols.outputs import CLASSIFICATION
from halfcore.predict.protocols.tensors import SHARED_MEMORY, Parameters, bad, refuse_shared_memory
from halfcore.problem import shown
from halfcore.rpc.envelope import MOST_PARTS, malformed, part, tag_of
from halfcore.rpc.messages import message

_NAME = tag_of(1)
_INPUTS, _OF_INPUT = tag_of(5), tag_of(4)
"""Tags of the fields: the inputs of a request, and the parameters of one."""
_OUTPUTS, _OF_OUTPUT = tag_of(6), tag_of(2)
_KEY, _VALUE = tag_of(1), tag_of(2)
_SHARED, _CLASSES = SHARED_MEMORY.encode(), CLASSIFICATION.encode()


def of_outputs(request: bytes) -> Iterator[Parameters]:
    """The parameters of each output that a request asks for, as far as they matter, in order; none
    where no output has any.

    Args:
        request: the serialized message, which protobuf has accepted.

    Raises:
        Problem: 400: a parameter that is not supported, or too many parts.
    """
    shared = _SHARED in request
    if not shared and _CLASSES not in request:
        return
    reader = _Reader()
    for tag, tensor in reader.parts(request):
        if tag == _INPUTS and shared:
            name, sent = reader.tensor(tensor, _OF_INPUT)
            refuse_shared_memory(sent, f"input '{shown(name)}': parameters")
        elif tag == _OUTPUTS:
            yield reader.tensor(tensor, _OF_OUTPUT)[1]


def value_of(sent: Any) -> Any:
    """What an `InferParameter` holds; None: nothing."""
    kind = sent.WhichOneof("parameter_choice")
    return getattr(sent, kind) if kind else None


class _Reader:
    """Reads parts of one request, of which there may be `MOST_PARTS`."""

    def __init__(self) -> None:
        self._count = 0

    def parts(self, of: bytes) -> Iterator[tuple[int, bytes]]:
        """The tag and the value of each part of a message."""
        at = 0
        while at < len(of):
            self._count += 1
            if self._count > MOST_PARTS:
                raise bad(
                    f"the inputs and outputs have more than {MOST_PARTS} parts, expected fewer "
                    "inputs or parameters"
                )
            at, tag, begin = part(of, at)
            yield tag, of[begin:at]

    def tensor(self, of: bytes, parameters: int) -> tuple[str, Parameters]:
        """The name of an input or output, and its parameters that matter, by their tag."""
        name, found = "", {}
        for tag, value in self.parts(of):
            if tag == _NAME:
                name = value.decode(errors="replace")
            elif tag == parameters and (_SHARED in value or _CLASSES in value):
                entry = dict(self.parts(value))
                key = entry.get(_KEY, b"").decode(errors="replace")
                found[key] = _value(entry.get(_VALUE, b""))
        return name, found


def _value(serialized: bytes) -> Any:
    try:
        return value_of(message("inference.InferParameter").FromString(serialized))
    except DecodeError:
        raise malformed() from None
